//! The two clocks, as two types that cannot be mixed.
//!
//! [`Arrival`] is our own monotonic clock and decides *when* an instance closes. [`EventTime`] is the sender's wall
//! clock and decides *what* it measured. Neither can be subtracted from the other, and all arithmetic on the
//! sender's timestamps saturates: a client may send any 64 bits.

use std::time::Duration;

/// A moment on our monotonic clock, in nanoseconds since the process started. Never compared with [`EventTime`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Arrival(u64);

impl Arrival {
    /// The moment the process started.
    pub const ORIGIN: Arrival = Arrival(0);

    /// From the time that has passed since the process started.
    pub fn since_origin(elapsed: Duration) -> Self {
        Arrival(nanoseconds(elapsed))
    }

    /// Nanoseconds since the process started.
    pub fn nanoseconds(self) -> u64 {
        self.0
    }

    /// This moment plus `wait`, at most the end of time.
    #[must_use]
    pub fn plus(self, wait: Duration) -> Self {
        Arrival(self.0.saturating_add(nanoseconds(wait)))
    }

    /// This moment minus `wait`, at least the origin.
    #[must_use]
    pub fn minus(self, wait: Duration) -> Self {
        Arrival(self.0.saturating_sub(nanoseconds(wait)))
    }

    /// How long after `earlier` this moment is; zero if it is not after it.
    pub fn since(self, earlier: Arrival) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A moment on a sender's wall clock, in nanoseconds since the Unix epoch, as OTLP sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EventTime(u64);

impl EventTime {
    /// The Unix epoch.
    pub const EPOCH: EventTime = EventTime(0);

    /// From nanoseconds since the Unix epoch; every value is allowed.
    pub fn from_unix_nanoseconds(nanoseconds: u64) -> Self {
        EventTime(nanoseconds)
    }

    /// Nanoseconds since the Unix epoch.
    pub fn unix_nanoseconds(self) -> u64 {
        self.0
    }

    /// Nanoseconds from `earlier` to this moment; zero if it is not after it.
    pub fn nanoseconds_since(self, earlier: EventTime) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This moment plus `span`, at most the last representable one.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        EventTime(self.0.saturating_add(nanoseconds(span)))
    }

    /// This moment minus `span`, at least the epoch.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        EventTime(self.0.saturating_sub(nanoseconds(span)))
    }
}

/// Both clocks, read once for each request or sweep and handed to the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Our monotonic clock: the only one that timers look at.
    pub arrival: Arrival,
    /// Our wall clock: judges senders' timestamps and stands in for a missing one, nothing else.
    pub wall: EventTime,
}

/// A duration as whole nanoseconds, saturating after 584 years.
pub fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
