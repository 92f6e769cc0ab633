//! How the program begins: with what is stored, or with nothing.
//!
//! What was stored is restored under the config under which it was stored, the log is applied again by the same functions
//! that applied it, and only then the config of this start comes into force, by the way that a reload takes. Invariant:
//! nothing is served before that.

use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::aggregator::Seed;
use crate::assembly::{Beginning, build_from, build_pipeline};
use crate::config::{self, Loaded};
use crate::domain::batch::KnownFacts;
use crate::domain::stored::{Decoder, Encoder, Stored};
use crate::domain::time::{Arrival, Now};
use crate::mapping::flows::Compiled;
use crate::metrics::Recovery;
use crate::pipeline::input::Input;
use crate::pipeline::{Pipeline, wall};
use crate::receiver::accept_again;
use crate::reload::{Reloader, Source, StoredConfigs};
use crate::store::{self, Fsync, Journal, NotStored, Opened, Settings, StateReader};

/// Where our clock begins in a store: what is open then may turn out to be older than that, by as long as we were down.
const FIRST_MOMENT: Duration = Duration::from_secs(400 * 24 * 3600);

/// The pipeline that a config describes, with what its store holds, and a reloader of it.
pub fn begin(loaded: &Loaded, source: Source) -> anyhow::Result<(Arc<Pipeline>, Reloader)> {
    let Some(path) = &loaded.config.store.path else {
        let (pipeline, history) = build_pipeline(loaded)?;
        let pipeline = Arc::new(pipeline);
        let reloader = Reloader::new(Arc::clone(&pipeline), source, loaded, history);
        return Ok((pipeline, reloader));
    };
    begin_in(&loaded.path(path), loaded, source)
}

fn begin_in(path: &Path, loaded: &Loaded, source: Source) -> anyhow::Result<(Arc<Pipeline>, Reloader)> {
    let began = Instant::now();
    let mut opened = store::open(path)?;
    if let Some(damaged) = &opened.damaged {
        error!(put_to = %damaged.display(), "what the store holds is damaged: counters begin anew at 0");
    }
    let mut recovery = Recovery::default();
    let (mut known, seed) = match opened.state.as_mut() {
        Some(state) => restore(state, source)?,
        None => begin_empty(loaded, source)?,
    };
    if opened.state.is_some() {
        recovery.entries = replay(&mut opened, &mut known)?;
    }
    if let Some(cut) = opened.log.cut() {
        error!(bytes = cut.bytes, file = %cut.file.display(), "the log of the store was damaged at its end, and was cut off");
        recovery.cut_bytes = cut.bytes;
    }
    let is_new = opened.state.is_none();
    let is_changed = known.reloader.counts_otherwise_than(loaded);
    match is_changed {
        true => known = known.under(loaded, seed)?,
        false => known.reloader.started_again(loaded),
    }
    let Known { pipeline, mut reloader, last, .. } = known;
    let journal = Arc::new(Journal::start(opened, seed.0, settings(loaded)));
    if is_changed {
        journal.need_state();
    }
    pipeline.set_clock(last.arrival);
    pipeline.keep(journal);
    pipeline.is_settled();
    if (is_new || is_changed) && !pipeline.checkpoint() {
        warn!("the store cannot be written: nothing is accepted until it can be");
    }
    go_on(&pipeline, last);
    reloader.take_first(loaded, pipeline.now());
    recovery.took = began.elapsed();
    pipeline.metrics().recovered(&recovery);
    let (took, entries) = (recovery.took, recovery.entries);
    info!(?took, entries, open = pipeline.open_instances(), "the store {} is in use", path.display());
    Ok((pipeline, reloader))
}

/// What is known at some moment, and the last moment of which anything is known.
#[derive(Debug)]
pub struct Known {
    /// What is open, and what has been counted.
    pub pipeline: Arc<Pipeline>,
    /// What puts configs in force.
    pub reloader: Reloader,
    /// On both clocks.
    pub last: Now,
    facts: KnownFacts,
}

fn begin_empty(loaded: &Loaded, source: Source) -> anyhow::Result<(Known, Seed)> {
    let seed = Seed(RandomState::new().hash_one(0));
    let start = Now { arrival: Arrival::since_origin(FIRST_MOMENT), wall: wall() };
    Ok((Known::empty(loaded, source, seed, start)?, seed))
}

/// Reads a state, under the config under which it was written.
fn restore(state: &mut StateReader, source: Source) -> anyhow::Result<(Known, Seed)> {
    let (seed, path) = (Seed(state.seed), state.path().to_owned());
    let mut decoder = Decoder::new(|| state.next_piece());
    let known = Known::restore(&mut decoder, seed, None, source);
    Ok((known.with_context(|| format!("reading {}", path.display()))?, seed))
}

/// Applies the log. Returns how many entries that were.
fn replay(opened: &mut Opened, known: &mut Known) -> anyhow::Result<u64> {
    let mut entries = 0;
    while let Some(entry) = opened.log.next_entry()? {
        match Input::read(&entry) {
            Ok(input) => known.apply(input),
            Err(_) => error!(entry = opened.log.position(), "an entry of the log says nothing that is known"),
        }
        entries += 1;
    }
    Ok(entries)
}

impl Known {
    /// Nothing, from `start` on.
    pub fn empty(loaded: &Loaded, source: Source, seed: Seed, start: Now) -> anyhow::Result<Self> {
        let Compiled { flows, rules, history } = loaded.compile()?;
        let beginning = Beginning { now: start, seed: Some(seed), earlier: Default::default() };
        let pipeline = Arc::new(build_from(loaded, (flows, rules), beginning));
        pipeline.set_clock(start.arrival);
        let reloader = Reloader::new(Arc::clone(&pipeline), source, loaded, history);
        Ok(Known { pipeline, reloader, last: start, facts: KnownFacts::default() })
    }

    /// What was stored, under the settings under which it was, or under those of `loaded`.
    pub fn restore(
        from: &mut Decoder<'_>,
        seed: Seed,
        loaded: Option<&Loaded>,
        source: Source,
    ) -> anyhow::Result<Self> {
        let configs = StoredConfigs::read_from(&Vec::<u8>::read(from)?)?;
        let (restored, Compiled { flows, rules, .. }) = configs.restore()?;
        let settings = restored.settings(loaded)?;
        let now = Now { arrival: Arrival::since_origin(FIRST_MOMENT), wall: wall() };
        let earlier = (restored.earlier(), restored.generation());
        let beginning = Beginning { now, seed: Some(seed), earlier };
        let pipeline = Arc::new(build_from(&settings, (flows, rules), beginning));
        let last = pipeline.restore(from)?;
        pipeline.set_clock(last.arrival);
        let reloader = restored.reloader(Arc::clone(&pipeline), source, loaded);
        Ok(Known { pipeline, reloader, last, facts: KnownFacts::default() })
    }

    /// Applies one input again.
    pub fn apply(&mut self, input: Input<'_>) {
        let now = input.now();
        self.last = Now { arrival: self.last.arrival.max(now.arrival), wall: self.last.wall.max(now.wall) };
        if accept_again(&self.pipeline, &input, &mut self.facts) {
            return;
        }
        match input {
            Input::Config { now, config } => self.reloader.take_again(config, now),
            other => _ = self.pipeline.apply_again(other),
        }
    }

    /// The same under the settings of `loaded`.
    fn under(self, loaded: &Loaded, seed: Seed) -> anyhow::Result<Self> {
        let Known { pipeline, reloader, last, .. } = self;
        let source = reloader.source();
        let mut pieces = Vec::new();
        pipeline.set_clock(last.arrival);
        let mut encoder = Encoder::new(|piece| pieces.push(piece));
        pipeline.store(&mut encoder);
        encoder.finish();
        drop((pipeline, reloader));
        let mut pieces = pieces.into_iter();
        let known = Known::restore(&mut Decoder::new(|| pieces.next()), seed, Some(loaded), source)?;
        Ok(Known { last, ..known })
    }
}

/// Takes note of how long nothing was received since `last`.
fn go_on(pipeline: &Pipeline, last: Now) {
    let now = pipeline.now();
    let downtime = Duration::from_nanos(now.wall.nanoseconds_since(last.wall));
    let input = Input::Downtime { now, downtime };
    let applied = pipeline.log(&input, || Ok::<_, NotStored>(pipeline.apply_again(input.clone())));
    if applied.is_err() {
        // The state that is written as soon as possible says it.
        pipeline.apply_again(input);
    }
}

fn settings(loaded: &Loaded) -> Settings {
    let store = &loaded.config.store;
    Settings {
        fsync: match store.fsync {
            config::Fsync::Always => Fsync::Always,
            config::Fsync::Every(interval) => Fsync::Every(interval),
            config::Fsync::Never => Fsync::Never,
        },
        checkpoint_bytes: store.checkpoint_bytes as u64,
        free_bytes: store.free_bytes as u64,
    }
}
