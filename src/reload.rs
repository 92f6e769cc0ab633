//! Taking a changed config while the program runs: on SIGHUP, or when its files have changed.
//!
//! A config is read and checked as a whole before anything changes; one that is wrong changes nothing, and is told once.
//! Files are read again to see whether they changed: that works for editors that replace them and for the symbolic
//! links that Kubernetes swaps under a mounted ConfigMap. What is reloaded are the flows and what they are read by, and
//! what is in the files of certificates and tokens; all else needs a restart, which is said.

mod stored;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use crate::config::{self, Config, ConfigError, Loaded, Override};
use crate::domain::flow::Flow;
use crate::domain::time::{Arrival, Now};
use crate::mapping::flows::{Compiled, History};
use crate::metrics::Task;
use crate::pipeline::input::Input;
use crate::pipeline::{InForce, Pipeline};
use crate::secrets::{Follow, Look};
use crate::store::NotStored;
use crate::tasks::attempt_now;
pub use stored::StoredConfigs;
use stored::Texts;

/// Settings that a reload changes; what begins with one of these.
const RELOADED: [&str; 5] = ["flows", "include", "defaults", "ignore", "trace_flow"];

/// Hears SIGHUP from its creation on.
#[derive(Debug)]
pub struct ReloadSignal(Signal);

impl ReloadSignal {
    /// From now on this signal no longer kills the process.
    pub fn listen() -> anyhow::Result<Self> {
        Ok(ReloadSignal(signal(SignalKind::hangup()).context("listening for SIGHUP")?))
    }
}

/// Where the config comes from.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// Its main file, if there is one.
    pub path: Option<PathBuf>,
    /// What flags and variables set.
    pub overrides: Vec<Override>,
}

/// Why a config was not put in force.
enum NotTaken {
    Wrong(ConfigError),
    /// The log cannot be told.
    NotStored,
}

impl From<ConfigError> for NotTaken {
    fn from(error: ConfigError) -> Self {
        NotTaken::Wrong(error)
    }
}

impl From<NotStored> for NotTaken {
    fn from(_: NotStored) -> Self {
        NotTaken::NotStored
    }
}

/// What became of a look at the config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is the one in force, or was refused before.
    Unchanged,
    /// It is in force now.
    Taken,
    /// It is wrong, and the one before stays in force.
    Refused(String),
}

/// Takes configs one after the other.
#[derive(Debug)]
pub struct Reloader {
    pipeline: Arc<Pipeline>,
    source: Source,
    /// The settings with which the program started.
    started_with: Config,
    in_force: u32,
    history: History,
    /// The configs before the one in force of which instances may be open: the first that came after them, and when
    /// the last of these instances ends.
    ending: VecDeque<(u32, Arrival)>,
    /// The configs that are in force for some instance, as they are stored.
    texts: Texts,
    /// What was said about the last config that was refused.
    refused: Option<String>,
    secrets: Vec<Arc<dyn Follow>>,
}

impl Reloader {
    /// A reloader of a pipeline that was built from `loaded`.
    pub fn new(pipeline: Arc<Pipeline>, source: Source, loaded: &Loaded, history: History) -> Self {
        let texts = Texts::new(loaded, &history);
        let reloader = Reloader {
            pipeline,
            source,
            started_with: loaded.config.clone(),
            in_force: loaded.fingerprint,
            history,
            ending: VecDeque::new(),
            texts,
            refused: None,
            secrets: Vec::new(),
        };
        reloader.hand_on();
        reloader
    }

    /// The same, which looks at these as well.
    pub fn with_secrets(mut self, secrets: Vec<Arc<dyn Follow>>) -> Self {
        for secret in &secrets {
            self.pipeline.metrics().secret_reloaded(secret.name(), true);
        }
        self.secrets = secrets;
        self
    }

    /// Looks at the config on every signal and after every `interval`, zero for never, for as long as it is polled.
    pub async fn run(mut self, mut signal: ReloadSignal, interval: Duration) {
        loop {
            let sleep = async {
                match interval.is_zero() {
                    true => std::future::pending().await,
                    false => tokio::time::sleep(interval).await,
                }
            };
            let asked = tokio::select! {
                _ = signal.0.recv() => true,
                () = sleep => false,
            };
            // Files may hang, as on a network.
            let looked = tokio::task::spawn_blocking(move || {
                self.look_at_all(asked);
                self
            });
            match looked.await {
                Ok(reloader) => self = reloader,
                Err(error) => return error!(%error, "the config is not reloaded any more"),
            }
        }
    }

    /// Looks at the config and the secrets. A bug in that must not be the end of it: it is looked at again.
    pub fn look_at_all(&mut self, asked: bool) {
        let pipeline = Arc::clone(&self.pipeline);
        let panics = pipeline.metrics().panics();
        if attempt_now(Task::Reload, panics, || self.look(asked, pipeline.now())).is_none() {
            pipeline.metrics().reloaded(false, pipeline.now());
            // So that it is shown when one is good again.
            self.refused.get_or_insert_default();
        }
        // Counted and logged; it is looked at again.
        let _looked = attempt_now(Task::Reload, panics, || self.look_at_secrets());
    }

    /// Looks at the config, takes it if it has changed, and says what became of it. `asked`: somebody waits for an answer.
    pub fn look(&mut self, asked: bool, now: Now) -> Outcome {
        if self.source.path.is_none() {
            if asked {
                warn!("SIGHUP: there is no config file to read again");
            }
            return Outcome::Unchanged;
        }
        let loaded = match config::load(self.source.path.as_deref(), &self.source.overrides) {
            Ok(loaded) => loaded,
            Err(error) => return self.refuse(&error, asked, now),
        };
        let is_same = loaded.fingerprint == self.in_force;
        // Without the rules of those whose instances have all ended.
        let is_due = self.ending.front().is_some_and(|(_, end)| *end <= now.arrival);
        let is_lighter = is_due && self.history.earlier().next().is_some();
        if !is_same || is_lighter {
            match self.take(&loaded, now) {
                Ok(()) => {}
                Err(NotTaken::Wrong(error)) => return self.refuse(&error, asked, now),
                // It is looked at again.
                Err(NotTaken::NotStored) => return Outcome::Unchanged,
            }
        }
        let was_refused = self.refused.take().is_some();
        if is_same {
            self.pipeline.metrics().reloaded_again(was_refused);
            if asked || was_refused {
                info!("the config is the one in force");
            }
            return Outcome::Unchanged;
        }
        self.pipeline.metrics().reloaded(true, now);
        self.tell(&loaded.config);
        Outcome::Taken
    }

    /// Looks at the files of certificates and tokens, and says what became of them.
    fn look_at_secrets(&self) {
        for secret in &self.secrets {
            let (name, look) = (secret.name(), secret.look());
            let is_good = !matches!(look, Look::Refused(_) | Look::StillRefused);
            self.pipeline.metrics().secret_reloaded(name, is_good);
            match look {
                Look::Same | Look::StillRefused => {}
                Look::SameAgain => info!(secret = name, "the files hold again what is in force"),
                Look::Taken => {
                    info!(secret = name, "the files have changed, and what they hold is in force now")
                }
                Look::Refused(why) => {
                    error!(
                        secret = name,
                        "the files were not taken, what was in force before stays so: {why}"
                    );
                }
            }
        }
    }

    fn refuse(&mut self, error: &ConfigError, asked: bool, now: Now) -> Outcome {
        let message = format!("{:#}", anyhow::Error::msg(describe(error)));
        self.pipeline.metrics().reloaded(false, now);
        if !asked && self.refused.as_ref() == Some(&message) {
            return Outcome::Unchanged;
        }
        error!("the config was not reloaded, the one before stays in force: {message}");
        self.refused = Some(message.clone());
        Outcome::Refused(message)
    }

    /// Puts a config in force.
    fn take(&mut self, loaded: &Loaded, now: Now) -> Result<(), NotTaken> {
        let pipeline = Arc::clone(&self.pipeline);
        let config = loaded.to_bytes();
        let input = Input::Config { now, config: &config };
        let applied = pipeline.log(&input, || self.put_in_force(loaded, now).map_err(NotTaken::from));
        applied.map(|applied| applied.value)
    }

    fn put_in_force(&mut self, loaded: &Loaded, now: Now) -> Result<(), ConfigError> {
        let before = self.pipeline.in_force();
        let mut history = self.history.clone();
        while let Some((after, _)) = self.ending.front().filter(|(_, end)| *end <= now.arrival) {
            history.forget_before(*after);
            self.ending.pop_front();
        }
        let Compiled { flows, rules, mut history } = loaded.compile_after(history)?;
        history.forget_before(0);
        let rules = rules.with_value_bytes(self.started_with.limits.value_bytes);
        let earlier: Vec<Arc<Flow>> = history.earlier().map(Arc::clone).collect();
        let timers = loaded.config.defaults.timers();
        let (may_match, generation) = (rules.may_match(), history.generation());
        let catalog = before.catalog.successor(flows, earlier, timers, may_match, generation);
        let catalog = catalog.map_err(|(metric, pushed)| loaded.overlap(&metric, &pushed))?;
        let longest = before.catalog.fixed().iter().map(|flow| flow.timers.max_age);
        let longest = longest.max().unwrap_or_default().max(before.catalog.default_timers().max_age);
        self.ending.push_back((generation, now.arrival.plus(longest)));
        let buckets = loaded.config.defaults.buckets.bounds().into();
        self.pipeline.put_in_force(InForce { catalog, rules, buckets }, now);
        self.pipeline.metrics().config_in_force(loaded.fingerprint);
        self.history = history;
        self.in_force = loaded.fingerprint;
        self.texts.add(loaded, &self.history);
        self.hand_on();
        Ok(())
    }

    /// How many versions of flows go on serving instances that were opened before the config in force.
    pub fn earlier_versions(&self) -> usize {
        self.history.earlier().count()
    }

    fn tell(&self, config: &Config) {
        info!(hash = self.in_force, "the config was reloaded");
        let changed = changed_settings(&self.started_with, config);
        if !changed.is_empty() {
            warn!("these settings need a restart to take effect: {}", changed.join(", "));
        }
    }
}

fn describe(error: &ConfigError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// The settings that differ and that a reload does not change.
fn changed_settings(a: &Config, b: &Config) -> Vec<String> {
    let is_reloaded = |path: &str| RELOADED.iter().any(|reloaded| path.split('.').next() == Some(reloaded));
    let pairs = config::settings_of(a).into_iter().zip(config::settings_of(b));
    let differing = pairs.filter(|(a, b)| !is_reloaded(&a.path) && a != b);
    differing.map(|(a, _)| a.path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_restart_is_named() {
        let mut other = Config::default();
        other.listen.http = "127.0.0.1:1".to_owned();
        other.trace_flow = false;
        other.defaults.quiet_period = Duration::from_secs(1);
        assert_eq!(changed_settings(&Config::default(), &other), ["listen.http"]);
    }
}
