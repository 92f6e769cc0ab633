//! Trace files of any format and compression: reading ends, no piece is larger than the limit, and what can be
//! decoded of them is replayed to its end.

#![no_main]

use std::io::Cursor;

use latency_aggregator::replay::Recording;
use latency_aggregator::replay::files::{Request, TraceFile};
use latency_aggregator_fuzz::{check_pipeline, pipeline};
use libfuzzer_sys::fuzz_target;

const LIMIT_BYTES: usize = 1 << 16;

fuzz_target!(|file: &[u8]| {
    let Ok(pieces) = TraceFile::from_reader("file", Cursor::new(file.to_vec()), LIMIT_BYTES) else { return };
    let mut count = 0;
    for piece in pieces.map_while(Result::ok) {
        count += 1;
        if let Request::Json(bytes) = piece.request {
            assert!(bytes.len() <= LIMIT_BYTES, "{} bytes", bytes.len());
        }
    }
    if count > 0 {
        replay(file);
    }
});

fn replay(file: &[u8]) {
    let pipeline = pipeline();
    let mut recording = Recording::default();
    let file = TraceFile::from_reader("file", Cursor::new(file.to_vec()), LIMIT_BYTES);
    // What came before a mistake is kept.
    let is_whole = recording.read(file.expect("it was read before"), &pipeline, |_| {}).is_ok();
    let (read, refused) = recording.spans();
    assert!(refused <= read, "{refused} of {read}");
    recording.replay(&pipeline, |_| {});
    if is_whole {
        check_pipeline(&pipeline);
    }
}
