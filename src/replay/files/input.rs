//! The bytes of a trace file: counted, and decompressed if the file is compressed as a whole.
//!
//! Does not know what the bytes mean. Invariant: memory is a few buffers, whatever the file holds.

use std::fmt;
use std::io::{self, BufRead, BufReader, Cursor, ErrorKind, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Problem;

/// How much is read at a time.
const BUFFER_BYTES: usize = 64 * 1024;

/// The start of a file that tells its format: enough for a few blank lines or empty messages before all else.
pub(super) const PREFIX_BYTES: usize = 4 * 1024;

/// The first bytes of a zstd frame.
pub(super) const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// By what a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// RFC 1952; several members in a row are one file.
    Gzip,
    /// RFC 8878; several frames in a row are one file.
    Zstd,
}

impl fmt::Display for Compression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        })
    }
}

impl Compression {
    fn of(start: &[u8]) -> Option<Self> {
        match start {
            [0x1f, 0x8b, ..] => Some(Compression::Gzip),
            _ if start.starts_with(&ZSTD_MAGIC) => Some(Compression::Zstd),
            // A skippable frame, which parallel compressors begin with.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Compression::Zstd),
            _ => None,
        }
    }
}

/// What a file holds, decompressed.
pub(super) struct Input {
    content: BufReader<Box<dyn Read + Send>>,
    compression: Option<Compression>,
    prefix: Vec<u8>,
    /// Bytes of the content that have been consumed.
    offset: u64,
    /// Bytes of the file that have been read.
    read: Arc<AtomicU64>,
}

impl fmt::Debug for Input {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Input { compression, offset, read, .. } = self;
        let mut debug = formatter.debug_struct("Input");
        debug.field("compression", compression).field("offset", offset).field("read", read);
        debug.finish_non_exhaustive()
    }
}

impl Input {
    pub(super) fn new(file: Box<dyn Read + Send>) -> Result<Self, Problem> {
        let read = Arc::new(AtomicU64::new(0));
        let counted = Counted { file, read: Arc::clone(&read) };
        let (start, file) = peek(counted, ZSTD_MAGIC.len());
        let compression = Compression::of(&start);
        let content: Box<dyn Read + Send> = match compression {
            None => Box::new(file),
            Some(Compression::Gzip) => Box::new(flate2::read::MultiGzDecoder::new(file)),
            Some(Compression::Zstd) => Box::new(
                zstd::stream::read::Decoder::new(file)
                    .map_err(|source| problem(source, compression, read.load(Ordering::Relaxed)))?,
            ),
        };
        let (prefix, content) = peek(content, PREFIX_BYTES);
        let content = BufReader::with_capacity(BUFFER_BYTES, Box::new(content) as Box<dyn Read + Send>);
        Ok(Input { content, compression, prefix, offset: 0, read })
    }

    /// The start of the content, consumed or not: [`PREFIX_BYTES`], or all of it.
    pub(super) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// Bytes of the content that have been consumed.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// What comes next, as much as is at hand; nothing at the end.
    pub(super) fn chunk(&mut self) -> Result<&[u8], Problem> {
        let Input { content, compression, read, .. } = self;
        loop {
            match content.fill_buf() {
                // The buffer is asked for it below: borrowed here, it could not be returned from a loop.
                Ok(_) => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(problem(error, *compression, read.load(Ordering::Relaxed))),
            }
        }
        Ok(content.buffer())
    }

    /// Goes on behind the first bytes of a chunk.
    pub(super) fn consume(&mut self, length: usize) {
        self.content.consume(length);
        self.offset += length as u64;
    }

    /// The next `length` bytes, or as many as are left.
    pub(super) fn take(&mut self, length: usize) -> Result<Vec<u8>, Problem> {
        let mut bytes = Vec::new();
        let result = self.content.by_ref().take(length as u64).read_to_end(&mut bytes);
        result.map_err(|error| problem(error, self.compression, self.bytes_read()))?;
        self.offset += bytes.len() as u64;
        Ok(bytes)
    }
}

/// The operating system's errors have its number, those of a decompressor have none.
fn problem(source: io::Error, compression: Option<Compression>, offset: u64) -> Problem {
    match compression {
        Some(compression) if source.raw_os_error().is_none() => {
            Problem::Decompress { compression, offset, source }
        }
        _ => Problem::Read { offset, source },
    }
}

/// The first bytes, and a reader that has them still. An error behind them comes when they have been read: what
/// comes before the place where a file is damaged is not lost.
fn peek<R: Read>(mut reader: R, length: usize) -> (Vec<u8>, impl Read + use<R>) {
    let mut start = Vec::new();
    let error = reader.by_ref().take(length as u64).read_to_end(&mut start).err();
    (start.clone(), Cursor::new(start).chain(Postponed(error)).chain(reader))
}

/// Reads as nothing, after the error if there is one.
struct Postponed(Option<io::Error>);

impl Read for Postponed {
    fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

struct Counted {
    file: Box<dyn Read + Send>,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read(buffer)?;
        self.read.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}
