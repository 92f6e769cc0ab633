//! Request bodies: read and inflated by one reader, with its limits, on the wire and after decompression.

use std::future::poll_fn;
use std::io::Read;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http::header::CONTENT_ENCODING;
use http::request::Parts;
use http::{HeaderMap, Version};
use http_body_util::BodyExt;

use super::in_flight::{Buffer, KEPT_BYTES, Reserved};
use super::{ReceiverLimits, Refusal};

/// How much of a body that is too large is read after all, and for how long, so that its client hears why.
const DRAIN_BYTES: usize = 256 * 1024 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// What a refused compression's answer names.
pub(super) const ACCEPTED_ENCODINGS: &str = "gzip, zstd, deflate";

/// A body as it came, which may have to be decompressed.
#[derive(Debug)]
pub(super) struct Content {
    bytes: Bytes,
    encoding: Encoding,
    limit: usize,
    reserved: Reserved,
}

/// Bodies from this size on are inflated and decoded where they hold up no other.
const LARGE_BYTES: usize = 512 * 1024;
/// The same for compressed ones.
const LARGE_COMPRESSED_BYTES: usize = 32 * 1024;

/// Reads the body of a request over HTTP.
pub(super) async fn read(request: &Parts, body: Body, limits: &ReceiverLimits) -> Result<Content, Refusal> {
    let encoding = match Encoding::of(&request.headers) {
        Ok(encoding) => encoding,
        Err(refusal) => {
            drain_later(body);
            return Err(refusal);
        }
    };
    let (bytes, reserved) =
        collect(body, |_| None, request.version == Version::HTTP_2, limits.request_bytes, limits).await?;
    Ok(Content { bytes, encoding, limit: limits.request_bytes, reserved }.inflated_if_small())
}

/// A frame of gRPC: whether its message is compressed, and how long it is (gRPC over HTTP2, "Length-Prefixed-Message").
const FRAME_HEADER: usize = 5;

/// Reads the one message of a request over gRPC, whose compression, if it is compressed, is `encoding`.
pub(super) async fn read_message(
    encoding: Encoding,
    body: Body,
    limits: &ReceiverLimits,
) -> Result<Content, Refusal> {
    let limit = limits.request_bytes;
    let (mut bytes, reserved) =
        collect(body, framed_length, false, limit.saturating_add(FRAME_HEADER), limits).await?;
    let undecodable = |what: &str| Refusal::Undecodable(format!("no gRPC message: {what}"));
    let Some((&[flag, a, b, c, d], message)) = bytes.split_first_chunk() else {
        return Err(undecodable("the body is shorter than the header of a frame"));
    };
    let declared = u32::from_be_bytes([a, b, c, d]) as usize;
    if declared > limit {
        return Err(too_large(limit));
    }
    if declared != message.len() {
        return Err(undecodable("the length in its header is not that of its one message"));
    }
    let encoding = match (flag, encoding) {
        (0, _) => Encoding::Identity,
        (1, Encoding::Identity) => {
            return Err(undecodable("it is compressed, and grpc-encoding does not say how"));
        }
        (1, encoding) => encoding,
        _ => return Err(undecodable("the first byte of its header is neither 0 nor 1")),
    };
    // Of no compression is an empty message a compressed one.
    if message.is_empty() && !matches!(encoding, Encoding::Identity) {
        return Err(undecodable("it is compressed, and empty"));
    }
    let bytes = bytes.split_off(FRAME_HEADER);
    Ok(Content { bytes, encoding, limit, reserved }.inflated_if_small())
}

impl Content {
    /// Whether working on it takes long enough to be felt by others. What is still compressed does.
    pub(super) fn is_large(&self) -> bool {
        self.encoding != Encoding::Identity || self.bytes.len() >= LARGE_BYTES
    }

    /// Inflates it at once if it turns out to be small: what little is on the wire may stand for very much.
    fn inflated_if_small(mut self) -> Self {
        if self.encoding == Encoding::Identity || self.bytes.len() >= LARGE_COMPRESSED_BYTES {
            return self;
        }
        let mut trial = self.reserved.another();
        // What is wrong with it, or why there is no room for it, will be found once more where it can be answered.
        if let Ok(bytes) = inflate(self.encoding, self.bytes.clone(), self.limit.min(LARGE_BYTES), &mut trial)
        {
            self = Content { bytes, encoding: Encoding::Identity, reserved: trial, ..self };
        }
        self
    }

    /// The request, of no more bytes than the limit, and the room for it, which is to be kept as long as it is.
    pub(super) fn inflate(self) -> Result<(Bytes, Reserved), Refusal> {
        let Content { bytes, encoding, limit, mut reserved } = self;
        let bytes = inflate(encoding, bytes, limit, &mut reserved)?;
        Ok((bytes, reserved))
    }
}

/// How long a body that has been announced is believed to be before it is there.
const BELIEVED_BYTES: usize = KEPT_BYTES;

/// How long a body of gRPC is, by the header of the frame at its beginning.
fn framed_length(begin: &[u8]) -> Option<usize> {
    let [_, length @ ..] = begin.first_chunk::<FRAME_HEADER>()?;
    Some((u32::from_be_bytes(*length) as usize).saturating_add(FRAME_HEADER))
}

/// Reads a body. `length` tells how long it is from how it begins, where that is not told by how it comes; `says_its_end`: it
/// can be told whether it has ended.
async fn collect(
    mut body: Body,
    length: impl Fn(&[u8]) -> Option<usize>,
    says_its_end: bool,
    limit: usize,
    limits: &ReceiverLimits,
) -> Result<(Bytes, Reserved), Refusal> {
    let mut reserved = limits.in_flight.begin();
    let collected = {
        let mut collecting = pin!(collect_all(&mut body, length, says_its_end, limit, &mut reserved));
        // A small body came with its headers: no clock is read for it, and no timer set.
        match poll_fn(|context| Poll::Ready(collecting.as_mut().poll(context))).await {
            Poll::Ready(collected) => collected,
            Poll::Pending => tokio::select! {
                collected = collecting => collected,
                () = tokio::time::sleep(limits.body_timeout) => Err(Refusal::TooSlow),
            },
        }
    };
    match collected {
        Ok(collected) => Ok((collected, reserved)),
        Err(refusal) => {
            drain_later(body);
            Err(refusal)
        }
    }
}

/// The same, however long it takes.
async fn collect_all(
    body: &mut Body,
    length: impl Fn(&[u8]) -> Option<usize>,
    says_its_end: bool,
    limit: usize,
    reserved: &mut Reserved,
) -> Result<Bytes, Refusal> {
    let mut first = Bytes::new();
    let mut whole: Option<Buffer> = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Refusal::Undecodable(format!("the body ended early: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        let before = whole.as_ref().map_or(first.len(), |whole| whole.len());
        if before + data.len() > limit {
            return Err(too_large(limit));
        }
        reserved.grow(data.len())?;
        match &mut whole {
            Some(whole) => whole.extend_from_slice(&data),
            // Most bodies come in one piece, which need not be copied, and which says that it is the last: to ask for one
            // more would be to wait for the task that reads the connection.
            None if first.is_empty() => {
                first = data;
                if body.is_end_stream() {
                    break;
                }
            }
            None => {
                let announced = length(&first).or_else(|| {
                    let rest = body.size_hint().exact()?;
                    Some((first.len() + data.len()).saturating_add(usize::try_from(rest).ok()?))
                });
                let mut buffer = reserved.buffer(announced.unwrap_or(0).min(BELIEVED_BYTES));
                buffer.extend_from_slice(&std::mem::take(&mut first));
                buffer.extend_from_slice(&data);
                whole = Some(buffer);
            }
        }
    }
    // A stream of HTTP/2 may be reset as if it had ended; those that ended say so.
    if body.size_hint().lower() > 0 || (says_its_end && !body.is_end_stream()) {
        return Err(Refusal::Undecodable("the body ended early".to_owned()));
    }
    Ok(whole.map_or(first, Buffer::freeze))
}

/// Reads what is refused, for some time, while its client is told so.
pub(super) fn drain_later(body: Body) {
    // Ends by itself, soon.
    tokio::spawn(tokio::time::timeout(DRAIN_TIME, drain(body)));
}

/// Reads what is refused already: a client that is still sending when its connection is closed sees a broken pipe
/// instead of the answer, and sends it all again.
async fn drain(mut body: Body) {
    let mut left = DRAIN_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, |data| data.len());
        let Some(rest) = left.checked_sub(length) else { return };
        left = rest;
    }
}

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    Zstd,
    Deflate,
}

impl Encoding {
    fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let Some(value) = headers.get(CONTENT_ENCODING) else {
            return Ok(Encoding::Identity);
        };
        match value.to_str().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(Encoding::Identity),
            "gzip" | "x-gzip" => Ok(Encoding::Gzip),
            "zstd" => Ok(Encoding::Zstd),
            "deflate" | "zlib" => Ok(Encoding::Deflate),
            _ => Err(Refusal::Unsupported(format!(
                "content-encoding is none of identity, {ACCEPTED_ENCODINGS}"
            ))),
        }
    }
}

fn inflate(encoding: Encoding, body: Bytes, limit: usize, reserved: &mut Reserved) -> Result<Bytes, Refusal> {
    let failed =
        |error: std::io::Error| Refusal::Undecodable(format!("the body cannot be decompressed: {error}"));
    match encoding {
        Encoding::Identity => Ok(body),
        // An empty body is an empty request, compressed or not.
        _ if body.is_empty() => Ok(body),
        Encoding::Gzip => read_limited(flate2::read::MultiGzDecoder::new(&*body), limit, reserved, failed),
        Encoding::Deflate => {
            let mut decoder = flate2::read::ZlibDecoder::new(&*body);
            let inflated = read_limited(&mut decoder, limit, reserved, failed)?;
            if decoder.total_in() < body.len() as u64 {
                let message =
                    "the body cannot be decompressed: there is more behind the end of its deflate stream";
                return Err(Refusal::Undecodable(message.to_owned()));
            }
            Ok(inflated)
        }
        Encoding::Zstd => {
            reserved.grow(1 << ZSTD_WINDOW_LOG)?;
            let mut decoder = zstd::stream::read::Decoder::with_buffer(&*body).map_err(failed)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(failed)?;
            read_limited(decoder, limit, reserved, failed)
        }
    }
}

/// The largest window of a zstd frame, whatever the frame says: 8 MiB, which every decoder should support and encoders
/// should not exceed (RFC 8878, section 3.1.1.1.2).
const ZSTD_WINDOW_LOG: u32 = 23;

/// How much room a request of `request_bytes` may take: as it is on the wire, in a frame, decompressed, and decoded. What it is
/// decoded to may take still more, where each of its spans has values of its own.
pub fn most_room(request_bytes: usize) -> usize {
    request_bytes.saturating_mul(3).saturating_add(FRAME_HEADER + (1 << ZSTD_WINDOW_LOG))
}

/// Less than this is copied out of the buffer in which it was inflated.
const COPIED_BYTES: usize = 64 * 1024;
/// How much is inflated before there must be room for more.
const INFLATE_STEP: usize = 256 * 1024;

/// Reads to the end, but no further than one byte beyond the limit.
fn read_limited(
    reader: impl Read,
    limit: usize,
    reserved: &mut Reserved,
    failed: impl Fn(std::io::Error) -> Refusal,
) -> Result<Bytes, Refusal> {
    let most = limit.saturating_add(1);
    let mut inflated = reserved.buffer(most.min(KEPT_BYTES));
    let mut reader = reader.take(most as u64);
    loop {
        if inflated.capacity() - inflated.len() < INFLATE_STEP {
            // Room at once: growing by doubling would take three times as much, and memory that is not touched is none.
            let rest = most.saturating_sub(inflated.len());
            inflated.reserve_exact(rest);
        }
        let more = reader.by_ref().take(INFLATE_STEP as u64).read_to_end(&mut inflated).map_err(&failed)?;
        reserved.grow(more)?;
        if inflated.len() > limit {
            return Err(too_large(limit));
        }
        if more < INFLATE_STEP {
            // Copied if there is much more room than it takes: others are to have that.
            let is_costly = inflated.capacity() > KEPT_BYTES || inflated.len() < COPIED_BYTES;
            let is_copied = is_costly && inflated.len() < inflated.capacity() / 2;
            return Ok(if is_copied { Bytes::copy_from_slice(&inflated) } else { inflated.freeze() });
        }
    }
}

fn too_large(limit: usize) -> Refusal {
    Refusal::TooLarge(format!(
        "the request is larger than the {limit} bytes allowed, on the wire or decompressed"
    ))
}
