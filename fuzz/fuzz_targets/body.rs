//! Compressed bodies, over HTTP and gRPC: one that inflates to no more than the limit is answered as if it had come
//! plain, a larger one and a damaged one are refused for what they are.

#![no_main]

use std::io::{Read, Write};
use std::sync::Arc;

use latency_aggregator::pipeline::Pipeline;
use latency_aggregator::receiver::{otlp_grpc, otlp_http};
use latency_aggregator_fuzz::{Answer, limits, pipeline, post};
use libfuzzer_sys::fuzz_target;

const LIMIT_BYTES: usize = 4096;

/// As far as a bomb is looked into here.
const LOOKED_AT_BYTES: u64 = 1 << 16;

/// How much is read at once here.
const STEP_BYTES: usize = 64;

const PATH: &str = "/v1/traces";
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

#[derive(Debug, Clone, Copy, PartialEq)]
enum Encoding {
    Gzip,
    Zstd,
    Deflate,
}

// The first byte says how the rest is sent: as a body that is compressed already, or to be repeated and compressed.
fuzz_target!(|input: &[u8]| {
    let Some((&how, content)) = input.split_first() else { return };
    let encoding = [Encoding::Gzip, Encoding::Zstd, Encoding::Deflate][usize::from(how) % 3];
    let repetitions = usize::from(how / 3);
    if repetitions == 0 {
        check(encoding, content);
    } else {
        check(encoding, &deflate(encoding, &content.repeat(repetitions)));
    }
});

fn check(encoding: Encoding, body: &[u8]) {
    // One of its own: the traces of many inputs would fill it, and all further ones would be told to try again.
    let pipeline = pipeline();
    let over_http = over_http(&pipeline, Some(encoding), body);
    let over_grpc = (encoding != Encoding::Deflate).then(|| over_grpc(&pipeline, Some(encoding), body));
    if body.is_empty() {
        return;
    }
    let (inflated, is_damaged) = inflate(encoding, body);
    // What was read last of a damaged body is not known.
    let most = inflated.len() + if is_damaged { STEP_BYTES } else { 0 };
    let is_large = body.len() > LIMIT_BYTES || most > LIMIT_BYTES;
    match (is_large, is_damaged) {
        (true, true) => check_refused(over_http, over_grpc, &[413, 400]),
        (true, false) => check_refused(over_http, over_grpc, &[413]),
        (false, true) => check_refused(over_http, over_grpc, &[400]),
        (false, false) => {
            assert_eq!(over_http, self::over_http(&pipeline, None, &inflated));
            if let Some(over_grpc) = over_grpc {
                assert_eq!(over_grpc, self::over_grpc(&pipeline, None, &inflated));
            }
        }
    }
}

fn check_refused(over_http: Answer, over_grpc: Option<Answer>, expected: &[u16]) {
    assert!(expected.contains(&over_http.status), "{over_http:?}");
    if let Some(over_grpc) = over_grpc {
        const RESOURCE_EXHAUSTED: u16 = 8;
        const INVALID_ARGUMENT: u16 = 3;
        let status = match over_grpc.grpc {
            Some(RESOURCE_EXHAUSTED) => 413,
            Some(INVALID_ARGUMENT) => 400,
            _ => panic!("{over_grpc:?}"),
        };
        assert!(expected.contains(&status), "{over_grpc:?}");
    }
}

fn over_http(pipeline: &Arc<Pipeline>, encoding: Option<Encoding>, body: &[u8]) -> Answer {
    let encoding = match encoding {
        None => "identity",
        Some(Encoding::Gzip) => "gzip",
        Some(Encoding::Zstd) => "zstd",
        Some(Encoding::Deflate) => "deflate",
    };
    let router = otlp_http::router(Arc::clone(pipeline), limits(LIMIT_BYTES), PATH);
    let headers = [("content-type", "application/x-protobuf"), ("content-encoding", encoding)];
    let answer = post(router, PATH, &headers, body.to_vec());
    assert!([200, 400, 413].contains(&answer.status), "{answer:?}");
    answer
}

fn over_grpc(pipeline: &Arc<Pipeline>, encoding: Option<Encoding>, message: &[u8]) -> Answer {
    let (is_compressed, encoding) = match encoding {
        Some(Encoding::Gzip) => (1, "gzip"),
        Some(Encoding::Zstd) => (1, "zstd"),
        Some(Encoding::Deflate) | None => (0, "identity"),
    };
    let length = u32::try_from(message.len()).expect("a short message");
    let frame = [&[is_compressed], &length.to_be_bytes()[..], message].concat();
    let router = otlp_grpc::router(Arc::clone(pipeline), limits(LIMIT_BYTES));
    let headers = [("content-type", "application/grpc"), ("grpc-encoding", encoding), ("te", "trailers")];
    post(router, EXPORT, &headers, frame)
}

/// What the body holds, as far as it is looked at, and whether it is damaged.
fn inflate(encoding: Encoding, body: &[u8]) -> (Vec<u8>, bool) {
    let reader: Box<dyn Read + '_> = match encoding {
        Encoding::Gzip => Box::new(flate2::read::MultiGzDecoder::new(body)),
        Encoding::Deflate => Box::new(flate2::read::ZlibDecoder::new(body)),
        Encoding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(body).expect("a decoder");
            decoder.window_log_max(23).expect("a bound that zstd knows");
            Box::new(decoder)
        }
    };
    // What a step has read is lost when it fails.
    let mut inflated = Vec::new();
    let mut reader = reader.take(LOOKED_AT_BYTES);
    let mut step = [0; STEP_BYTES];
    loop {
        match reader.read(&mut step) {
            Ok(0) => return (inflated, false),
            Ok(length) => inflated.extend_from_slice(&step[..length]),
            Err(_) => return (inflated, true),
        }
    }
}

fn deflate(encoding: Encoding, content: &[u8]) -> Vec<u8> {
    let level = flate2::Compression::fast();
    match encoding {
        Encoding::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(content).and_then(|()| encoder.finish())
        }
        Encoding::Deflate => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
            encoder.write_all(content).and_then(|()| encoder.finish())
        }
        Encoding::Zstd => zstd::encode_all(content, 1),
    }
    .expect("a vector takes all bytes")
}
