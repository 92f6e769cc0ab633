//! Request bodies: read and inflated with one limit, on the wire and after decompression.

use std::io::Read;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use bytes::{Bytes, BytesMut};
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, HeaderValue};
use http_body_util::BodyExt;

use super::{Refusal, run};

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
}

/// Bodies from this size on are inflated and decoded where they hold up no other.
const LARGE_BYTES: usize = 512 * 1024;
/// The same for compressed ones.
const LARGE_COMPRESSED_BYTES: usize = 32 * 1024;

/// Reads a body of at most `limit` bytes.
pub(super) async fn read(headers: &HeaderMap, body: Body, limit: usize) -> Result<Content, Refusal> {
    let encoding = Encoding::of(headers)?;
    Ok(Content { bytes: collect(body, limit).await?, encoding, limit })
}

/// A gRPC message that was sent compressed, as the frame of a plain one; `limit` bounds both. What is no single
/// compressed message is left as it is: tonic says what is wrong with it.
pub(super) async fn inflate_grpc(request: Request, limit: usize) -> Result<Request, Refusal> {
    const FRAME_HEADER: usize = 5;
    let encoding = match request.headers().get(GRPC_ENCODING).map(HeaderValue::as_bytes) {
        Some(b"gzip") => Encoding::Gzip,
        Some(b"zstd") => Encoding::Zstd,
        _ => return Ok(request),
    };
    let (mut parts, body) = request.into_parts();
    let frame = collect(body, limit.saturating_add(FRAME_HEADER)).await?;
    let is_compressed = matches!(*frame, [1, a, b, c, d, ..]
        if u32::from_be_bytes([a, b, c, d]) as usize == frame.len() - FRAME_HEADER);
    if !is_compressed {
        return Ok(Request::from_parts(parts, Body::from(frame)));
    }
    let content = Content { bytes: frame.slice(FRAME_HEADER..), encoding, limit };
    let message = run(content.is_large(), move || content.inflate()).await?;
    let length = u32::try_from(message.len()).map_err(|_| too_large(limit))?;
    let mut plain = BytesMut::with_capacity(FRAME_HEADER + message.len());
    plain.extend_from_slice(&[0]);
    plain.extend_from_slice(&length.to_be_bytes());
    plain.extend_from_slice(&message);
    parts.headers.remove(GRPC_ENCODING);
    Ok(Request::from_parts(parts, Body::from(plain.freeze())))
}

/// Names the compression of a gRPC message.
const GRPC_ENCODING: &str = "grpc-encoding";

impl Content {
    /// A body that needs no decompression.
    pub(super) fn plain(bytes: Bytes) -> Self {
        Content { limit: bytes.len(), bytes, encoding: Encoding::Identity }
    }

    /// Whether working on it takes long enough to be felt by others.
    pub(super) fn is_large(&self) -> bool {
        let large =
            if matches!(self.encoding, Encoding::Identity) { LARGE_BYTES } else { LARGE_COMPRESSED_BYTES };
        self.bytes.len() >= large
    }

    /// The request, of no more bytes than the limit.
    pub(super) fn inflate(self) -> Result<Bytes, Refusal> {
        inflate(self.encoding, self.bytes, self.limit)
    }
}

async fn collect(mut body: Body, limit: usize) -> Result<Bytes, Refusal> {
    let mut collected = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Refusal::Undecodable(format!("the body ended early: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if collected.len() + data.len() > limit {
            // Ends by itself, soon.
            tokio::spawn(tokio::time::timeout(DRAIN_TIME, drain(body)));
            return Err(too_large(limit));
        }
        collected.extend_from_slice(&data);
    }
    Ok(collected.freeze())
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

#[derive(Debug, Clone, Copy)]
enum Encoding {
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

fn inflate(encoding: Encoding, body: Bytes, limit: usize) -> Result<Bytes, Refusal> {
    let failed =
        |error: std::io::Error| Refusal::Undecodable(format!("the body cannot be decompressed: {error}"));
    match encoding {
        Encoding::Identity => Ok(body),
        // An empty body is an empty request, compressed or not.
        _ if body.is_empty() => Ok(body),
        Encoding::Gzip => read_limited(flate2::read::MultiGzDecoder::new(&*body), limit, failed),
        Encoding::Deflate => read_limited(flate2::read::ZlibDecoder::new(&*body), limit, failed),
        Encoding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(&*body).map_err(failed)?;
            // Memory for the window is bounded whatever the frame says: 2^26 bytes, the default request limit.
            decoder.window_log_max(26).map_err(failed)?;
            read_limited(decoder, limit, failed)
        }
    }
}

/// Reads to the end, but no further than one byte beyond the limit.
fn read_limited(
    reader: impl Read,
    limit: usize,
    failed: impl Fn(std::io::Error) -> Refusal,
) -> Result<Bytes, Refusal> {
    let mut inflated = Vec::new();
    reader.take(limit as u64 + 1).read_to_end(&mut inflated).map_err(failed)?;
    if inflated.len() > limit { Err(too_large(limit)) } else { Ok(inflated.into()) }
}

fn too_large(limit: usize) -> Refusal {
    Refusal::TooLarge(format!(
        "the request is larger than the {limit} bytes allowed, on the wire or decompressed"
    ))
}
