//! Trace files as OTLP requests: which format a file has, and what it holds, one piece after the other.
//!
//! | format | begins with | a piece |
//! |---|---|---|
//! | OTLP JSON, one object or many, with white space or nothing between them | `{` and a key | an object |
//! | Jaeger's JSON export | the same | a trace, translated |
//! | OTLP protobuf | a `ResourceSpans` | a `ResourceSpans` |
//! | messages behind their lengths, each plain or compressed with zstd | a length and one of the above | a message |
//!
//! The Collector's file exporter writes the first (`format: json`) and the last (`format: proto`, and everything
//! with `compression: zstd`). A file of any format may be compressed as a whole, with gzip or zstd. The format is
//! told by what is in the file; its name says nothing. Does not know what a request means: whether a piece can be
//! decoded is for its decoder to say.
//!
//! Invariant: memory follows the largest piece, which has a limit, and not the file.

mod content;
mod error;
mod input;
mod jaeger;
mod messages;
mod objects;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

pub use error::{Problem, ReadError};

use content::{Content, Layout};
use input::{Input, PREFIX_BYTES};
use jaeger::Export;
use objects::Objects;

/// No piece of a file may be larger, compressed or not. A Jaeger export is read whole before it is translated, so
/// the limit holds for all of it.
pub const PIECE_LIMIT_BYTES: usize = 1 << 30;

/// The path that stands for standard input.
const STANDARD_INPUT: &str = "-";

/// One request of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins.
    pub place: Place,
    /// What it holds.
    pub request: Request,
}

/// The body of an `ExportTraceServiceRequest`, in one of the two encodings of OTLP. Nobody has decoded it yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// For [`wire::walk`](crate::mapping::otlp::wire::walk).
    Protobuf(Vec<u8>),
    /// For [`json::walk`](crate::mapping::otlp::json::walk).
    Json(Vec<u8>),
}

/// A place in a file, or in what it decompresses to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Counted from 1, for text.
    Line(u64),
    /// Counted from 0, for everything else.
    Byte(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line(line) => write!(formatter, "line {line}"),
            Place::Byte(byte) => write!(formatter, "byte {byte}"),
        }
    }
}

/// A trace file that is being read: iterates over its pieces in their order. The first error is the end.
#[derive(Debug)]
pub struct TraceFile {
    name: String,
    size: Option<u64>,
    input: Input,
    layout: Layout,
    objects: Objects,
    /// What is left of the Jaeger export that was read last.
    export: Option<Export>,
    piece_limit: usize,
    seen: Seen,
    ended: bool,
}

/// What has come so far; a file without a trace should say what it holds instead.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    pieces: u64,
    exports: u64,
    /// Requests with logs, metrics or profiles.
    others: u64,
}

impl TraceFile {
    /// Opens the file at `path`, or standard input for `-`, and finds out its format.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        if path.as_os_str() == STANDARD_INPUT {
            return Self::from_reader("standard input", std::io::stdin(), PIECE_LIMIT_BYTES);
        }
        let name = path.display().to_string();
        let file = File::open(path).map_err(|source| Problem::Open { source }.of(&name))?;
        // Of what is no regular file, such as a pipe, the length says nothing.
        let size = file.metadata().ok().filter(|metadata| metadata.is_file()).map(|metadata| metadata.len());
        Ok(Self { size, ..Self::from_reader(&name, file, PIECE_LIMIT_BYTES)? })
    }

    /// Reads from any source. `name` stands for it in errors; no piece may have more than `piece_limit` bytes.
    pub fn from_reader(
        name: &str,
        reader: impl Read + Send + 'static,
        piece_limit: usize,
    ) -> Result<Self, ReadError> {
        let begin = || {
            let mut input = Input::new(Box::new(reader))?;
            let layout = content::layout(input.prefix(), piece_limit).or_else(|problem| {
                // What looks like nothing known may be what is left of something damaged.
                input.take(PREFIX_BYTES + 1)?;
                Err(problem)
            })?;
            if matches!(layout, Layout::Objects) {
                input.take(content::mark_length(input.prefix()))?;
            }
            Ok((input, layout))
        };
        let (input, layout) = begin().map_err(|problem: Problem| problem.of(name))?;
        Ok(Self {
            name: name.to_owned(),
            size: None,
            input,
            layout,
            objects: Objects::default(),
            export: None,
            piece_limit,
            seen: Seen::default(),
            ended: false,
        })
    }

    /// What the file is called in errors.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The length of the file in bytes, if it has one.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// How many bytes of the file, as it lies on disk, have been read. Runs ahead of the pieces by a buffer.
    pub fn bytes_read(&self) -> u64 {
        self.input.bytes_read()
    }

    fn advance(&mut self) -> Result<Option<Piece>, Problem> {
        loop {
            if let Some(export) = &mut self.export {
                if let Some(piece) = export.next()? {
                    self.seen.pieces += 1;
                    return Ok(Some(piece));
                }
                self.export = None;
            }
            let Some((place, bytes)) = self.next_part()? else {
                return self.seen.check().map(|()| None);
            };
            if let Some(request) = self.request(place, bytes)? {
                self.seen.pieces += 1;
                return Ok(Some(Piece { place, request }));
            }
        }
    }

    /// The next object, field or message, whatever the file consists of.
    fn next_part(&mut self) -> Result<Option<(Place, Vec<u8>)>, Problem> {
        match self.layout {
            Layout::Objects => self.objects.next(&mut self.input, self.piece_limit),
            Layout::Fields => messages::next_field(&mut self.input, self.piece_limit),
            Layout::Messages => messages::next_message(&mut self.input, self.piece_limit),
        }
    }

    /// The request that a part is. A part that is none is counted, or becomes the export to go on with.
    fn request(&mut self, place: Place, bytes: Vec<u8>) -> Result<Option<Request>, Problem> {
        match content::of(self.layout, place, &bytes)? {
            Content::Protobuf => return Ok(Some(Request::Protobuf(bytes))),
            Content::Json => return Ok(Some(Request::Json(bytes))),
            Content::OtherSignal => self.seen.others += 1,
            Content::JaegerExport => {
                self.seen.exports += 1;
                self.export = Some(Export::new(place, bytes)?);
            }
        }
        Ok(None)
    }
}

impl Iterator for TraceFile {
    type Item = Result<Piece, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.advance().map_err(|problem| problem.of(&self.name));
        self.ended = !matches!(next, Ok(Some(_)));
        next.transpose()
    }
}

impl Seen {
    /// Whether a file that ends here held a trace.
    fn check(self) -> Result<(), Problem> {
        match self {
            Seen { pieces: 0, exports: 0, others: 0 } => Err(Problem::Empty),
            Seen { pieces: 0, exports: 0, .. } => {
                Err(Problem::NoTraces { found: "only logs, metrics or profiles" })
            }
            Seen { pieces: 0, .. } => Err(Problem::NoTraces { found: "a Jaeger export without traces" }),
            _ => Ok(()),
        }
    }
}
