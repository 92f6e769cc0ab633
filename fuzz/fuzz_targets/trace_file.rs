//! Trace files of any format and compression: reading ends, no piece is larger than the limit, and what can be
//! decoded of them is replayed to its end.

#![no_main]

use std::io::Cursor;

use latency_aggregator::replay::files::{Request, TraceFile};
use latency_aggregator_fuzz::{PIECE_LIMIT_BYTES, pipeline, replay};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    let Ok(pieces) = TraceFile::from_reader("file", Cursor::new(file.to_vec()), PIECE_LIMIT_BYTES) else {
        return;
    };
    let mut count = 0;
    for piece in pieces.map_while(Result::ok) {
        count += 1;
        if let Request::Json(bytes) = piece.request {
            assert!(bytes.len() <= PIECE_LIMIT_BYTES, "{} bytes", bytes.len());
        }
    }
    if count > 0 {
        replay(file, &pipeline());
    }
});
