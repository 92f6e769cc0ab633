//! What instances, flows and spans are found by.

use std::fmt;
use std::sync::Arc;

/// One version of a flow: its place in file order, and the generation of the config that brought it. The built-in flow
/// `trace` comes behind the configured ones, and flows that pushes create come behind that. The lowest id that matches
/// wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId {
    /// Its place in file order.
    pub place: u32,
    /// How often the config had been reloaded when it came.
    pub generation: u32,
}

impl FlowId {
    /// Stands for "no flow".
    pub const NONE: FlowId = FlowId { place: u32::MAX, generation: 0 };

    /// The flow at a place of the first config.
    pub const fn at(place: u32) -> Self {
        FlowId { place, generation: 0 }
    }
}

/// The sixteen bytes of an OTLP trace id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId(pub [u8; 16]);

impl fmt::Display for TraceId {
    /// In hexadecimal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The eight bytes of an OTLP span id; zero means "none".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SpanId(pub u64);

impl SpanId {
    /// The parent of a span that has none.
    pub const NONE: SpanId = SpanId(0);

    /// Whether this names a span at all.
    pub fn is_some(self) -> bool {
        self != Self::NONE
    }
}

/// What an instance is found by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A trace, or a push to a configured flow whose `id` is a trace id.
    Trace(TraceId),
    /// A trace as seen by a flow that is `also` there, beside the trace's own instance.
    Also {
        /// That flow.
        flow: FlowId,
        /// The trace.
        trace: TraceId,
    },
    /// A push's `(name, id)`, or a business key's `(flow, value)`.
    Named {
        /// The flow that the value is a key of.
        flow: FlowId,
        /// The `id` of the push, or the value of the key.
        id: Arc<str>,
    },
}

impl Key {
    /// The trace whose spans gather under this key, if it is one.
    pub fn trace(&self) -> Option<TraceId> {
        match self {
            Key::Trace(trace) | Key::Also { trace, .. } => Some(*trace),
            Key::Named { .. } => None,
        }
    }

    /// What another trace is found by in the same view of things.
    #[must_use]
    pub fn beside(&self, trace: TraceId) -> Key {
        match self {
            Key::Also { flow, .. } => Key::Also { flow: *flow, trace },
            Key::Trace(_) | Key::Named { .. } => Key::Trace(trace),
        }
    }
}
