"""Small bodies that expand to gigabytes, made without ever holding what they expand to."""

import zlib

import zstandard

MIB = 1024 * 1024
# What one copy of a piece expands to.
_PIECE = 16 * MIB


def gzip(total_bytes, unit=b"\0"):
    header = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    # The checksum at the end is wrong, which only those see who inflate all of it.
    return header + _deflated(total_bytes, unit) + bytes(8)


def deflate(total_bytes, unit=b"\0"):
    return b"\x78\x9c" + _deflated(total_bytes, unit) + bytes(4)


def zstd(total_bytes, unit=b"\0"):
    """One frame; the same block of one repeated byte again and again."""
    assert len(unit) == 1
    # Magic, a descriptor without a content size, a window of 2^23 bytes, which all decoders have.
    header = b"\x28\xb5\x2f\xfd\x00" + bytes([(23 - 10) << 3])
    block_bytes = 128 * 1024
    return (
        header
        + _zstd_block(1, block_bytes, unit) * (total_bytes // block_bytes)
        + _zstd_block(0, 0, b"", is_last=True)
    )


def _zstd_block(kind, size, content, is_last=False):
    return (size << 3 | kind << 1 | is_last).to_bytes(3, "little") + content


def _deflated(total_bytes, unit):
    """Blocks that end at whole bytes and refer to nothing before them, and so may be repeated."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = compressor.compress(unit * (_PIECE // len(unit))) + compressor.flush(zlib.Z_FULL_FLUSH)
    return piece * (total_bytes // _PIECE) + b"\x03\x00"


COMPRESSED = {"gzip": gzip, "zstd": zstd, "deflate": deflate}


def compressed(encoding, plain):
    """An honest body."""
    match encoding:
        case "gzip":
            compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
        case "deflate":
            compressor = zlib.compressobj(9, zlib.DEFLATED, 15)
        case "zstd":
            return zstandard.compress(plain, 3)
    return compressor.compress(plain) + compressor.flush()
