//! Replay: traces that were recorded go the way that traces take when they come, in invented time.
//!
//! Knows files and the pipeline, and neither transports nor who asks. Invariant: what a file holds is decoded by the
//! decoders that requests are decoded by, so a recorded trace means what it meant when it was sent.

pub mod files;

use std::time::Duration;

use crate::domain::event::Incoming;
use crate::domain::time::{Arrival, EventTime, Now};
use crate::mapping::otlp::{DecodeError, json, wire};
use crate::mapping::spans::SpanMapper;
use crate::metrics::{Received, Transport};
use crate::pipeline::Pipeline;
use files::{ReadError, Request, TraceFile};

/// Why traces cannot be replayed. Every message names the file and the place.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The file cannot be read, or is no trace file.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What it holds cannot be decoded.
    #[error("{file}: the request at {place}")]
    Decode {
        /// The file.
        file: String,
        /// Where the request begins.
        place: files::Place,
        /// What is wrong with it.
        source: DecodeError,
    },
}

/// What was read of trace files, before any of it has been replayed.
#[derive(Debug, Default)]
pub struct Recording {
    events: Vec<Incoming>,
    received: Received,
}

/// Events of this much time arrive at once, as if in one request.
const REQUEST: Duration = Duration::from_millis(100);

/// The process has been running for so long when the first event comes that nothing can have been lost before.
const UPTIME: Duration = Duration::from_secs(100 * 365 * 86_400);

impl Recording {
    /// Adds what a file holds, by the rules of `pipeline`. `progress` is called after each piece.
    pub fn read(
        &mut self,
        mut file: TraceFile,
        pipeline: &Pipeline,
        mut progress: impl FnMut(&TraceFile),
    ) -> Result<(), ReplayError> {
        while let Some(piece) = file.next() {
            let piece = piece?;
            let in_force = pipeline.in_force();
            let mut mapper = SpanMapper::new(&in_force.rules, pipeline.limits.time, START);
            let decoded = match &piece.request {
                Request::Protobuf(bytes) => wire::walk(bytes, &mut mapper),
                Request::Json(bytes) => json::walk(bytes, &mut mapper),
            };
            if let Err(source) = decoded {
                let file = file.name().to_owned();
                return Err(ReplayError::Decode { file, place: piece.place, source });
            }
            let mapped = mapper.finish();
            self.received.events += mapped.received;
            self.received.sampled += mapped.sampled;
            self.received.overlong_keys += mapped.overlong_keys;
            self.received.rejected.extend(mapped.rejected.iter().map(|(why, count)| (why.as_str(), *count)));
            self.events.extend(mapped.events.into_incoming());
            progress(&file);
        }
        Ok(())
    }

    /// How many spans were read, and how many of them were refused.
    pub fn spans(&self) -> (u64, u64) {
        (self.received.events, self.received.rejected.iter().map(|(_, count)| count).sum())
    }

    /// Lets the events arrive as they ended, and time pass until everything is closed. `progress` gets the part of them
    /// that has arrived, between 0 and 1.
    pub fn replay(mut self, pipeline: &Pipeline, mut progress: impl FnMut(f64)) {
        // A span is exported when it has ended. The sort is stable: children stay before parents that end with them.
        self.events.sort_by_key(|incoming| incoming.event.end);
        let begin = self.events.first().map_or(START.wall, |first| first.event.end);
        let clock = Clock { begin };
        let total = self.events.len();
        let mut received = self.received;
        let mut rest = self.events.into_iter().peekable();
        while let Some(first) = rest.next() {
            let until = first.event.end.plus(REQUEST);
            let mut batch = vec![first];
            while let Some(next) = rest.next_if(|next| next.event.end < until) {
                batch.push(next);
            }
            let now = clock.now(until);
            sweep_until(pipeline, now.arrival, &clock);
            // Nothing else takes events in, and the pipeline has not been closed.
            let (all, transport) = (std::mem::take(&mut received), Transport::HttpJson);
            let _conflicts =
                pipeline.ingest(&pipeline.in_force(), transport, &all, batch.into_iter().collect(), now);
            progress(1.0 - rest.len() as f64 / total as f64);
        }
        sweep_until(pipeline, Arrival::since_origin(Duration::MAX), &clock);
        pipeline.close_all(clock.at(Arrival::since_origin(UPTIME)));
    }
}

/// The moment at which spans are read: any; nothing is refused for its age.
const START: Now = Now { arrival: Arrival::ORIGIN, wall: EventTime::EPOCH };

/// Invented time, in which it takes as long from event to event as it did then.
struct Clock {
    /// When the first event ended, by its sender's clock.
    begin: EventTime,
}

impl Clock {
    /// The moment at which something that ended at `end` arrives.
    fn now(&self, end: EventTime) -> Now {
        let since = Duration::from_nanos(end.nanoseconds_since(self.begin));
        Now { arrival: Arrival::since_origin(UPTIME).plus(since), wall: end }
    }

    /// Both clocks at an arrival.
    fn at(&self, arrival: Arrival) -> Now {
        let since = arrival.since(Arrival::since_origin(UPTIME));
        Now { arrival, wall: self.begin.plus(since) }
    }
}

/// Closes what is due until `until`, each at its own time.
fn sweep_until(pipeline: &Pipeline, until: Arrival, clock: &Clock) {
    while let Some(due) = pipeline.next_due().filter(|due| *due <= until) {
        while pipeline.sweep(clock.at(due)) {}
    }
}
