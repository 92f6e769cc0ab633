//! What changes anything, as an entry of the log: what a request brought, a sweep, and what only this machine could
//! decide at that moment.
//!
//! Invariant: to apply the same inputs to the same state gives the same state, since nothing else is asked for the time.

use std::time::Duration;

use crate::aggregator::Relief;
use crate::domain::ids::Key;
use crate::domain::stored::{Damaged, Decoder, Stored, from_bytes, to_bytes};
use crate::domain::time::{Arrival, EventTime, Now};
use crate::metrics::Transport;

/// Something that changes what is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input<'b> {
    /// A request with spans.
    Traces {
        /// How it came.
        transport: Transport,
        /// When it was applied.
        now: Now,
        /// The spans as events, as they are stored: that is a tenth of what the request was.
        spans: &'b [u8],
    },
    /// A request with pushes.
    Pushes {
        /// When it was decoded and applied.
        now: Now,
        /// What it said, as it came: pushes may create flows.
        request: &'b [u8],
    },
    /// What was due was closed.
    Sweep {
        /// When.
        now: Now,
    },
    /// A request was refused, which may have been lost.
    Loss {
        /// When.
        now: Now,
    },
    /// Something was let go for want of room.
    Relief {
        /// When.
        now: Now,
        /// What.
        relief: Relief,
    },
    /// Another config was put in force.
    Config {
        /// When.
        now: Now,
        /// What it says.
        config: &'b [u8],
    },
    /// Nothing was received for a while, and our clock stood still.
    Downtime {
        /// When it went on.
        now: Now,
        /// How long that was.
        downtime: Duration,
    },
}

const TRACES: u8 = 1;
const PUSHES: u8 = 2;
const SWEEP: u8 = 3;
const LOSS: u8 = 4;
const RELIEF: u8 = 5;
const CONFIG: u8 = 6;
const DOWNTIME: u8 = 7;

impl<'b> Input<'b> {
    /// About how many bytes it takes.
    pub fn bytes(&self) -> usize {
        const HEAD_BYTES: usize = 64;
        HEAD_BYTES
            + match self {
                Input::Traces { spans, .. } => spans.len(),
                Input::Pushes { request, .. } => request.len(),
                Input::Config { config, .. } => config.len(),
                Input::Sweep { .. } | Input::Loss { .. } | Input::Relief { .. } | Input::Downtime { .. } => 0,
            }
    }

    /// When it was applied.
    pub fn now(&self) -> Now {
        match self {
            Input::Traces { now, .. }
            | Input::Pushes { now, .. }
            | Input::Sweep { now }
            | Input::Loss { now }
            | Input::Relief { now, .. }
            | Input::Config { now, .. }
            | Input::Downtime { now, .. } => *now,
        }
    }

    /// Appends it.
    pub fn write(&self, to: &mut Vec<u8>) {
        let now = self.now();
        let mut head = |kind: u8| {
            to.push(kind);
            to.extend_from_slice(&now.arrival.nanoseconds().to_le_bytes());
            to.extend_from_slice(&now.wall.unix_nanoseconds().to_le_bytes());
        };
        match self {
            Input::Traces { transport, spans, .. } => {
                head(TRACES);
                to.push(number_of(*transport));
                to.extend_from_slice(spans);
            }
            Input::Pushes { request, .. } => {
                head(PUSHES);
                to.extend_from_slice(request);
            }
            Input::Sweep { .. } => head(SWEEP),
            Input::Loss { .. } => head(LOSS),
            Input::Relief { relief, .. } => {
                head(RELIEF);
                to.extend(to_bytes(|to| {
                    relief.folded.write(to);
                    relief.ended.write(to);
                    relief.is_last.write(to);
                }));
            }
            Input::Config { config, .. } => {
                head(CONFIG);
                to.extend_from_slice(config);
            }
            Input::Downtime { downtime, .. } => {
                head(DOWNTIME);
                to.extend(to_bytes(|to| downtime.write(to)));
            }
        }
    }

    /// Reads it again.
    pub fn read(entry: &'b [u8]) -> Result<Self, Damaged> {
        let (kind, rest) = entry.split_first().ok_or(Damaged)?;
        let (arrival, rest) = number(rest)?;
        let (wall, rest) = number(rest)?;
        let now = Now {
            arrival: Arrival::since_origin(Duration::from_nanos(arrival)),
            wall: EventTime::from_unix_nanoseconds(wall),
        };
        Ok(match *kind {
            TRACES => {
                let (transport, spans) = rest.split_first().ok_or(Damaged)?;
                Input::Traces { transport: transport_of(*transport)?, now, spans }
            }
            PUSHES => Input::Pushes { now, request: rest },
            SWEEP => Input::Sweep { now },
            LOSS => Input::Loss { now },
            RELIEF => Input::Relief { now, relief: from_bytes(rest, read_relief)? },
            CONFIG => Input::Config { now, config: rest },
            DOWNTIME => Input::Downtime { now, downtime: from_bytes(rest, Stored::read)? },
            _ => return Err(Damaged),
        })
    }
}

fn read_relief(from: &mut Decoder<'_>) -> Result<Relief, Damaged> {
    let (folded, ended) = <(Vec<Key>, Vec<Key>)>::read(from)?;
    Ok(Relief { folded, ended, is_last: Stored::read(from)? })
}

fn number(bytes: &[u8]) -> Result<(u64, &[u8]), Damaged> {
    let (number, rest) = bytes.split_first_chunk().ok_or(Damaged)?;
    Ok((u64::from_le_bytes(*number), rest))
}

fn number_of(transport: Transport) -> u8 {
    match transport {
        Transport::Grpc => 0,
        Transport::HttpProtobuf => 1,
        Transport::HttpJson => 2,
        Transport::Push => 3,
    }
}

fn transport_of(number: u8) -> Result<Transport, Damaged> {
    Transport::ALL.into_iter().find(|transport| number_of(*transport) == number).ok_or(Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::TraceId;

    #[test]
    fn an_input_is_read_as_it_was_written() {
        let now = Now {
            arrival: Arrival::since_origin(Duration::from_nanos(7)),
            wall: EventTime::from_unix_nanoseconds(8),
        };
        let relief = Relief {
            folded: vec![Key::Trace(TraceId([1; 16]))],
            ended: vec![Key::Trace(TraceId([2; 16])), Key::Trace(TraceId([3; 16]))],
            is_last: true,
        };
        for input in [
            Input::Traces { transport: Transport::HttpJson, now, spans: b"spans" },
            Input::Pushes { now, request: b"{}" },
            Input::Sweep { now },
            Input::Loss { now },
            Input::Relief { now, relief },
            Input::Config { now, config: b"flows: []" },
            Input::Downtime { now, downtime: Duration::from_secs(3) },
        ] {
            let mut bytes = Vec::new();
            input.write(&mut bytes);
            assert_eq!(Input::read(&bytes), Ok(input.clone()));
            assert!(bytes.len() <= input.bytes() + 64, "{input:?}");
        }
        assert_eq!(Input::read(b""), Err(Damaged));
        assert_eq!(Input::read(&[99; 40]), Err(Damaged));
    }
}
