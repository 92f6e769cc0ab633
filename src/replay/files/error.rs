//! Why a trace file cannot be read: the file, the place in it, what was found there and what would be right.
//!
//! Knows no format. Invariant: none of these goes away by reading the same file again, except those with the
//! operating system's word for it ([`Problem::Open`], [`Problem::Read`]).

use std::error::Error;
use std::{fmt, io};

use super::Place;
use super::input::Compression;

/// What a file may hold.
const EXPECTED: &str = "OTLP JSON (one or more objects with the key \"resourceSpans\"), OTLP protobuf (bare, or each \
                        message behind its length in 4 bytes), or Jaeger's JSON export, as it is or compressed with \
                        gzip or zstd";

/// A [`Problem`] of a file.
#[derive(Debug)]
pub struct ReadError {
    /// The file, as it was named.
    pub file: String,
    /// What is wrong with it.
    pub problem: Problem,
}

impl fmt::Display for ReadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.file, self.problem)
    }
}

impl Error for ReadError {
    /// The message holds the problem's, so its cause comes next.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.problem.source()
    }
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The operating system does not open it.
    #[error("cannot open it")]
    Open {
        /// Why not.
        source: io::Error,
    },
    /// The operating system does not read it.
    #[error("cannot read beyond byte {offset}")]
    Read {
        /// How much was read before.
        offset: u64,
        /// Why not.
        source: io::Error,
    },
    /// It is compressed as a whole, and cut off or damaged.
    #[error(
        "byte {offset} or shortly before: found {compression} data that cannot be decompressed; expected all of it, undamaged"
    )]
    Decompress {
        /// By what it was compressed.
        compression: Compression,
        /// How much of the file was read before.
        offset: u64,
        /// What the decompressor says.
        source: io::Error,
    },
    /// One message in it is compressed, and damaged.
    #[error("{place}: found a zstd message that cannot be decompressed; expected all of it, undamaged")]
    DecompressMessage {
        /// Where the message begins.
        place: Place,
        /// What the decompressor says.
        source: io::Error,
    },
    /// It has no bytes, or only white space.
    #[error("found an empty file; expected {EXPECTED}")]
    Empty,
    /// It ends without a trace.
    #[error("found {found}; expected traces: {EXPECTED}")]
    NoTraces {
        /// What it has instead.
        found: &'static str,
    },
    /// It holds something else.
    #[error("{place}: found {found}; expected {EXPECTED}")]
    Unknown {
        /// Where.
        place: Place,
        /// The first of what is there.
        found: String,
    },
    /// Its end comes too early.
    #[error("{place}: found {part}, which the end of the file cuts off; expected all of it")]
    CutOff {
        /// Where what is cut off begins.
        place: Place,
        /// What is cut off.
        part: String,
    },
    /// A text in a JSON object has a line break in it, which JSON does not allow.
    #[error(
        "line {line}: found the end of the line inside a text; expected a closing quote (is the line cut off?)"
    )]
    BrokenText {
        /// Counted from 1.
        line: u64,
    },
    /// One piece is larger than the limit.
    #[error("{place}: found a piece of more than {limit} bytes; expected no larger one")]
    TooLarge {
        /// Where the piece begins.
        place: Place,
        /// The most bytes that a piece may have.
        limit: usize,
    },
    /// It looks like a Jaeger export and is none.
    #[error("line {line} column {column}: found {found}; expected Jaeger's JSON export")]
    Jaeger {
        /// Counted from 1.
        line: u64,
        /// Counted from 1, in bytes.
        column: usize,
        /// What the JSON decoder says.
        found: String,
    },
}

impl Problem {
    pub(super) fn of(self, file: &str) -> ReadError {
        ReadError { file: file.to_owned(), problem: self }
    }
}
