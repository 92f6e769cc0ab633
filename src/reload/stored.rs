//! The configs that are in force for some instance, as they are stored, and how they come into force again.

use std::sync::Arc;

use tracing::error;

use super::{NotTaken, Reloader, Source};
use crate::config::{self, ConfigError, Loaded};
use crate::domain::flow::Flow;
use crate::domain::stored::{Damaged, Stored, from_bytes, stored_fields, to_bytes};
use crate::domain::time::{Arrival, Now};
use crate::mapping::flows::{Compiled, History, Numbers};
use crate::pipeline::Pipeline;

/// What the configs were read from.
#[derive(Debug, Clone)]
pub(super) struct Texts {
    /// The one with which the program started: its settings hold until it ends.
    started_with: Vec<u8>,
    /// Those that are in force for some instance, the one that is so for new ones last.
    generations: Vec<(Numbers, Vec<u8>)>,
}

impl Texts {
    pub(super) fn new(loaded: &Loaded, history: &History) -> Self {
        let mut texts = Texts { started_with: loaded.to_bytes(), generations: Vec::new() };
        texts.add(loaded, history);
        texts
    }

    /// With `loaded` as the last of `history`, which may have forgotten some.
    pub(super) fn add(&mut self, loaded: &Loaded, history: &History) {
        let known = std::mem::take(&mut self.generations);
        let text = |numbers: &Numbers| {
            let known = known.iter().find(|(known, _)| known.generation == numbers.generation);
            known.map_or_else(|| loaded.to_bytes(), |(_, text)| text.clone())
        };
        let numbers = history.numbers().into_iter();
        self.generations = numbers.map(|numbers| (numbers.clone(), text(&numbers))).collect();
    }
}

/// What was stored of the configs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredConfigs {
    started_with: Vec<u8>,
    generations: Vec<(Numbers, Vec<u8>)>,
    ending: Vec<(u32, Arrival)>,
}

stored_fields!(StoredConfigs { started_with, generations, ending });

/// Configs that can come into force again.
#[derive(Debug)]
pub struct Restored {
    /// The config that was in force, as it was.
    in_force: Loaded,
    started_with: Loaded,
    history: History,
    stored: StoredConfigs,
}

impl StoredConfigs {
    /// Reads what [`Reloader`] handed on.
    pub fn read_from(bytes: &[u8]) -> Result<Self, Damaged> {
        from_bytes(bytes, Stored::read)
    }

    /// Compiles all of them, in order.
    pub fn restore(self) -> Result<(Restored, Compiled), ConfigError> {
        let started_with = config::load_stored(&self.started_with)?;
        let mut history = History::default();
        let mut last = None;
        for (numbers, text) in &self.generations {
            let loaded = config::load_stored(text)?;
            let compiled = loaded.compile_again(history, numbers)?;
            history = compiled.history.clone();
            last = Some((loaded, compiled));
        }
        let (in_force, compiled) = match last {
            Some(last) => last,
            None => (config::load_stored(&self.started_with)?, started_with.compile()?),
        };
        let restored = Restored { in_force, started_with, history, stored: self };
        Ok((restored, compiled))
    }
}

impl Restored {
    /// The flows that were in force with the settings under which they were so, or with those of `loaded`.
    pub fn settings(&self, loaded: Option<&Loaded>) -> Result<Loaded, ConfigError> {
        let in_force = config::load_stored(&self.in_force.to_bytes())?;
        Ok(loaded.unwrap_or(&self.started_with).with_flows_of(in_force))
    }

    /// The versions of flows that go on serving what was opened before.
    pub fn earlier(&self) -> Vec<Arc<Flow>> {
        self.history.earlier().map(Arc::clone).collect()
    }

    /// How often the config had been reloaded.
    pub fn generation(&self) -> u32 {
        self.history.generation()
    }

    /// A reloader of `pipeline`, which was built from these, with the settings of `loaded` if they are given.
    pub fn reloader(self, pipeline: Arc<Pipeline>, source: Source, loaded: Option<&Loaded>) -> Reloader {
        let started_with = loaded.unwrap_or(&self.started_with);
        let mut reloader = Reloader::new(pipeline, source, started_with, self.history);
        reloader.in_force = self.in_force.fingerprint;
        reloader.ending = self.stored.ending.into();
        reloader.texts.generations = self.stored.generations;
        reloader.hand_on();
        reloader
    }
}

impl Reloader {
    /// Where the config comes from.
    pub fn source(&self) -> Source {
        self.source.clone()
    }

    /// Whether settings that decide about what is counted are others in `loaded`.
    pub fn counts_otherwise_than(&self, loaded: &Loaded) -> bool {
        const COUNTS: [&str; 4] = ["limits.", "metrics.", "push.", "ingest."];
        let pairs = config::settings_of(&self.started_with).into_iter();
        let mut pairs = pairs.zip(config::settings_of(&loaded.config));
        let decides = |path: &str| COUNTS.iter().any(|part| path.starts_with(part));
        pairs.any(|(before, now)| before != now && decides(&before.path))
    }

    /// Takes note that the program has been started again, with `loaded`, which counts as before.
    pub fn started_again(&mut self, loaded: &Loaded) {
        self.started_with = loaded.config.clone();
        self.texts.started_with = loaded.to_bytes();
        self.hand_on();
    }

    /// Tells the pipeline what is to be stored of the configs.
    pub(super) fn hand_on(&self) {
        let Texts { started_with, generations } = self.texts.clone();
        let ending = self.ending.iter().copied().collect();
        let stored = StoredConfigs { started_with, generations, ending };
        self.pipeline.set_configs(to_bytes(|to| stored.write(to)));
    }

    /// Puts a config in force again that a log names.
    pub fn take_again(&mut self, config: &[u8], now: Now) {
        let taken = config::load_stored(config).and_then(|loaded| self.put_in_force(&loaded, now));
        if let Err(error) = taken {
            error!(%error, "a config of the log is refused by this version");
        }
    }

    /// Puts `loaded` in force, with which the program was started, unless it is in force already. What goes against what is
    /// stored is refused as by a reload: the program is of more use with the config before than not at all.
    pub fn take_first(&mut self, loaded: &Loaded, now: Now) {
        if loaded.fingerprint == self.in_force {
            return;
        }
        // What could not be stored is looked at again.
        if let Err(NotTaken::Wrong(error)) = self.take(loaded, now) {
            self.refuse(&error, true, now);
        }
    }
}
