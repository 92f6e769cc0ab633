//! Protobuf in files: messages behind their lengths, and the fields of one bare request.
//!
//! Knows how they are put one behind the other, and nothing of what is in them. The file exporter of the Collector
//! writes a length as 4 bytes, big endian, and behind it as many bytes: a request, or a zstd frame of one.
//!
//! Invariant: a length that is read is checked against the limit before anything is kept for it, and memory is
//! taken for the bytes that are there, not for those that are announced.

use std::io::Read;

use super::content::{RESOURCE_SPANS, describe};
use super::input::{Input, ZSTD_MAGIC};
use super::{Place, Problem};

/// The next message, decompressed, and where its length stands.
pub(super) fn next_message(input: &mut Input, limit: usize) -> Result<Option<(Place, Vec<u8>)>, Problem> {
    const LENGTH_BYTES: usize = 4;
    let place = Place::Byte(input.offset());
    let length = input.take(LENGTH_BYTES)?;
    if length.is_empty() {
        return Ok(None);
    }
    let Ok(length) = <[u8; LENGTH_BYTES]>::try_from(&*length) else {
        let part = format!("{} of the {LENGTH_BYTES} bytes of a length", length.len());
        return Err(Problem::CutOff { place, part });
    };
    let message = take(input, place, u32::from_be_bytes(length).into(), limit)?;
    if message.starts_with(&ZSTD_MAGIC) {
        return inflate(&message, place, limit).map(|message| Some((place, message)));
    }
    Ok(Some((place, message)))
}

/// The next field of a request, which is a request with one `ResourceSpans`.
pub(super) fn next_field(input: &mut Input, limit: usize) -> Result<Option<(Place, Vec<u8>)>, Problem> {
    let place = Place::Byte(input.offset());
    match input.chunk()? {
        [] => return Ok(None),
        [RESOURCE_SPANS, ..] => {}
        other => return Err(Problem::Unknown { place, found: describe(other) }),
    }
    let mut field = input.take(1)?;
    let length = varint(input, place, &mut field)?;
    field.extend(take(input, place, length, limit)?);
    Ok(Some((place, field)))
}

/// Reads a number and puts its bytes at the end of `field`.
fn varint(input: &mut Input, place: Place, field: &mut Vec<u8>) -> Result<u64, Problem> {
    const VARINT_BYTES: usize = 10;
    let mut value = 0_u64;
    for index in 0..VARINT_BYTES {
        let [byte] = *input.take(1)? else {
            return Err(Problem::CutOff { place, part: "the length of a ResourceSpans".to_owned() });
        };
        field.push(byte);
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Problem::Unknown { place, found: describe(field) })
}

fn take(input: &mut Input, place: Place, length: u64, limit: usize) -> Result<Vec<u8>, Problem> {
    let too_large = Problem::TooLarge { place, limit };
    let length = usize::try_from(length).ok().filter(|&length| length <= limit).ok_or(too_large)?;
    let bytes = input.take(length)?;
    if bytes.len() < length {
        let part = format!("{} of the {length} bytes of a message", bytes.len());
        return Err(Problem::CutOff { place, part });
    }
    Ok(bytes)
}

fn inflate(message: &[u8], place: Place, limit: usize) -> Result<Vec<u8>, Problem> {
    let mut inflated = Vec::new();
    // One byte beyond the limit tells a message at the limit from one above it.
    zstd::stream::read::Decoder::with_buffer(message)
        .and_then(|decoder| decoder.take(limit as u64 + 1).read_to_end(&mut inflated))
        .map_err(|source| Problem::DecompressMessage { place, source })?;
    if inflated.len() > limit { Err(Problem::TooLarge { place, limit }) } else { Ok(inflated) }
}
