//! Trace files of every format, read as OTLP requests and decoded by the decoders that requests are decoded by.
//!
//! The files in `tests/file_exporter` were written by version 0.161.0 of the Collector's file exporter: a request
//! with one span, a request with logs (`mixed` only), an empty request and another one with one span, in each of
//! its formats. `native` is `compression: zstd` with the feature gate `exporter.file.nativeCompression`.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};

use latency_aggregator::mapping::otlp::{SpanFields, Text, TraceVisitor, UNREADABLE_ID, Value, json, wire};
use latency_aggregator::replay::files::{
    PIECE_LIMIT_BYTES, Piece, Place, Problem, ReadError, Request, TraceFile,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, TracesData};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;

// What was seen, in a form that can be compared.

type Attributes = BTreeMap<String, Seen>;

#[derive(Debug, Clone, PartialEq)]
enum Seen {
    Str(String),
    Bool(bool),
    Int(i64),
    Double(f64),
    Bytes(Vec<u8>),
    Other,
}

#[derive(Debug, Default, Clone, PartialEq)]
struct SeenSpan {
    resource: Attributes,
    scope: (String, String),
    attributes: Attributes,
    links: Vec<(String, String)>,
    trace: String,
    id: String,
    parent: String,
    trace_state: String,
    name: String,
    kind: i32,
    start: u64,
    end: u64,
    status: (i32, String),
}

#[derive(Debug, Default)]
struct Recorder {
    spans: Vec<SeenSpan>,
    next: SeenSpan,
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn seen(value: Value<'_>) -> Seen {
    match value {
        Value::Str(text) => Seen::Str(text.read().into_owned()),
        Value::Bool(bool) => Seen::Bool(bool),
        Value::Int(integer) => Seen::Int(integer),
        Value::Double(double) => Seen::Double(double),
        Value::Bytes(bytes) => Seen::Bytes(bytes.to_vec()),
        Value::Other => Seen::Other,
    }
}

impl TraceVisitor for Recorder {
    fn resource(&mut self) {
        self.next = SeenSpan::default();
    }

    fn resource_attribute(&mut self, key: Text<'_>, value: Value<'_>) {
        self.next.resource.insert(key.read().into_owned(), seen(value));
    }

    fn scope(&mut self, name: Text<'_>, version: Text<'_>) {
        self.next.scope = (name.read().into_owned(), version.read().into_owned());
    }

    fn span_attribute(&mut self, key: Text<'_>, value: Value<'_>) {
        self.next.attributes.insert(key.read().into_owned(), seen(value));
    }

    fn span_link(&mut self, trace_id: &[u8], span_id: &[u8]) {
        self.next.links.push((hexadecimal(trace_id), hexadecimal(span_id)));
    }

    fn span(&mut self, span: SpanFields<'_>) {
        let (resource, scope) = (self.next.resource.clone(), self.next.scope.clone());
        let next = SeenSpan { resource, scope, ..SeenSpan::default() };
        self.spans.push(SeenSpan {
            trace: hexadecimal(span.trace_id),
            id: hexadecimal(span.span_id),
            parent: hexadecimal(span.parent_span_id),
            trace_state: span.trace_state.read().into_owned(),
            name: span.name.read().into_owned(),
            kind: span.kind,
            start: span.start_time_unix_nano,
            end: span.end_time_unix_nano,
            status: (span.status_code, span.status_message.read().into_owned()),
            ..std::mem::replace(&mut self.next, next)
        });
    }
}

fn spans_of(piece: &Piece) -> Vec<SeenSpan> {
    let mut recorder = Recorder::default();
    match &piece.request {
        Request::Protobuf(body) => wire::walk(body, &mut recorder).unwrap(),
        Request::Json(body) => json::walk(body, &mut recorder).unwrap(),
    }
    recorder.spans
}

// How files are read here.

fn open(bytes: &[u8]) -> Result<TraceFile, ReadError> {
    TraceFile::from_reader("trace", Cursor::new(bytes.to_vec()), PIECE_LIMIT_BYTES)
}

fn pieces(bytes: &[u8]) -> Result<Vec<Piece>, ReadError> {
    open(bytes)?.collect()
}

/// All spans of a file that can be read.
fn spans(bytes: &[u8]) -> Vec<SeenSpan> {
    pieces(bytes).unwrap().iter().flat_map(spans_of).collect()
}

/// Where the pieces of a file begin, as they are shown, and the names of the spans in each.
fn outline(bytes: &[u8]) -> Vec<(String, Vec<String>)> {
    let names = |piece: &Piece| spans_of(piece).into_iter().map(|span| span.name).collect();
    pieces(bytes).unwrap().iter().map(|piece| (piece.place.to_string(), names(piece))).collect()
}

/// The names of the spans before the error, and the error with its causes, as people see it.
fn failure(bytes: &[u8], piece_limit: usize) -> (Vec<String>, String) {
    let mut names = Vec::new();
    let file = TraceFile::from_reader("trace", Cursor::new(bytes.to_vec()), piece_limit);
    let mut file = match file {
        Ok(file) => file,
        Err(error) => return (names, chain(&error)),
    };
    loop {
        match file.next().expect("an error ends it") {
            Ok(piece) => names.extend(spans_of(&piece).into_iter().map(|span| span.name)),
            Err(error) => {
                assert!(file.next().is_none(), "the first error is the end");
                return (names, chain(&error));
            }
        }
    }
}

fn chain(error: &dyn Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", chain(cause)),
        None => error.to_string(),
    }
}

// What files are made of here.

fn traces_data(names: &[&str]) -> TracesData {
    let resource_spans = |name: &&str| ResourceSpans {
        resource: Some(Resource {
            attributes: vec![KeyValue {
                key: "service.name".to_owned(),
                value: Some(AnyValue { value: Some(any_value::Value::StringValue("shop".to_owned())) }),
                ..KeyValue::default()
            }],
            ..Resource::default()
        }),
        scope_spans: vec![ScopeSpans {
            spans: vec![Span {
                trace_id: vec![1; 16],
                span_id: vec![2; 8],
                name: (*name).to_owned(),
                ..Span::default()
            }],
            ..ScopeSpans::default()
        }],
        ..ResourceSpans::default()
    };
    TracesData { resource_spans: names.iter().map(resource_spans).collect() }
}

fn protobuf(names: &[&str]) -> Vec<u8> {
    traces_data(names).encode_to_vec()
}

fn otlp_json(name: &str) -> String {
    serde_json::to_string(&otlp_value(name)).unwrap()
}

fn pretty_json(name: &str) -> String {
    serde_json::to_string_pretty(&otlp_value(name)).unwrap()
}

fn otlp_value(name: &str) -> serde_json::Value {
    serde_json::json!({"resourceSpans": [{"scopeSpans": [{"spans": [
        {"traceId": "0102030405060708090a0b0c0d0e0f10", "spanId": "0102030405060708", "name": name},
    ]}]}]})
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 0).unwrap()
}

fn message(body: &[u8]) -> Vec<u8> {
    let mut message = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    message.extend(body);
    message
}

/// An export with one trace.
fn jaeger(spans: Vec<serde_json::Value>) -> String {
    let processes = serde_json::json!({"p1": {"serviceName": "shop", "tags": []}});
    let trace = serde_json::json!({"traceID": "1", "spans": spans, "processes": processes, "warnings": null});
    serde_json::json!({"data": [trace], "total": 0, "limit": 0, "offset": 0, "errors": null}).to_string()
}

fn jaeger_span(name: &str) -> serde_json::Value {
    serde_json::json!({
        "traceID": "0102030405060708090a0b0c0d0e0f10", "spanID": "0102030405060708", "operationName": name,
        "references": [], "startTime": 1, "duration": 1, "tags": [], "logs": [], "processID": "p1",
    })
}

// Formats.

type Outline = Vec<(String, Vec<String>)>;

fn line(line: u64, names: &[&str]) -> (String, Vec<String>) {
    (Place::Line(line).to_string(), names.iter().map(ToString::to_string).collect())
}

fn byte(byte: usize, names: &[&str]) -> (String, Vec<String>) {
    (Place::Byte(byte as u64).to_string(), names.iter().map(ToString::to_string).collect())
}

fn json_files() -> Vec<(&'static str, Vec<u8>, Outline)> {
    let (a, b) = (otlp_json("a"), otlp_json("b"));
    let pretty_lines = 1 + pretty_json("a").matches('\n').count() as u64;
    let both = vec![line(1, &["a"]), line(2, &["b"])];
    let cases = vec![
        ("an object", a.clone(), vec![line(1, &["a"])]),
        ("blank lines, a pretty object", format!("\n \r\n{}", pretty_json("a")), vec![line(3, &["a"])]),
        ("a byte order mark, an object", format!("\u{feff}{a}"), vec![line(1, &["a"])]),
        ("another key first", a.replacen('{', "{\"x\": [{}], ", 1), vec![line(1, &["a"])]),
        ("lines", format!("{a}\n{b}\n"), both.clone()),
        ("lines, the last without its end", format!("{a}\n{b}"), both),
        ("lines, some blank", format!("{a}\r\n\n{b}\n \n"), vec![line(1, &["a"]), line(3, &["b"])]),
        ("nothing between objects", format!("{a}{b}"), vec![line(1, &["a"]), line(1, &["b"])]),
        (
            "pretty objects",
            format!("{}\n{}", pretty_json("a"), pretty_json("b")),
            vec![line(1, &["a"]), line(1 + pretty_lines, &["b"])],
        ),
        ("an empty object first", format!("{{ }}\n{a}"), vec![line(1, &[]), line(2, &["a"])]),
        (
            "logs between",
            format!("{a}\n{{\"resourceLogs\":[{{}}]}}\n{b}"),
            vec![line(1, &["a"]), line(3, &["b"])],
        ),
        ("brackets and quotes in a name", otlp_json("}]\"\\{["), vec![line(1, &["}]\"\\{["])]),
        ("Jaeger", jaeger(vec![jaeger_span("a"), jaeger_span("b")]), vec![line(1, &["a", "b"])]),
        (
            "Jaeger, one trace alone",
            format!(
                "\n{}",
                serde_json::json!({"traceID": "1", "spans": [jaeger_span("a")], "processes": {}})
            ),
            vec![line(2, &["a"])],
        ),
        (
            "Jaeger, pretty, two traces, then OTLP",
            format!(
                "{{\n\"total\": 0,\n\"data\": [\n{{\"spans\": [{}]}},\n{{\"spans\": []}}]\n}}\n{b}",
                jaeger_span("a")
            ),
            vec![line(4, &["a"]), line(5, &[]), line(7, &["b"])],
        ),
    ];
    cases.into_iter().map(|(case, text, expected)| (case, text.into_bytes(), expected)).collect()
}

fn binary_files() -> Vec<(&'static str, Vec<u8>, Outline)> {
    let (a, b) = (protobuf(&["a"]), protobuf(&["b"]));
    let (zstd_a, zstd_b) = (message(&zstd(&a)), message(&zstd(&b)));
    let long = "n".repeat(100_000);
    let json = otlp_json("a");
    vec![
        ("protobuf", a.clone(), vec![byte(0, &["a"])]),
        ("protobuf, two resources", protobuf(&["a", "b"]), vec![byte(0, &["a"]), byte(a.len(), &["b"])]),
        ("protobuf, a long name", protobuf(&[&long]), vec![byte(0, &[&long])]),
        ("messages", [message(&a), message(&b)].concat(), vec![byte(0, &["a"]), byte(4 + a.len(), &["b"])]),
        ("a message, two resources", message(&protobuf(&["a", "b"])), vec![byte(0, &["a", "b"])]),
        (
            "messages, empty ones first",
            [vec![0; 8], message(&a)].concat(),
            vec![byte(0, &[]), byte(4, &[]), byte(8, &["a"])],
        ),
        (
            "messages of zstd",
            [zstd_a.clone(), zstd_b].concat(),
            vec![byte(0, &["a"]), byte(zstd_a.len(), &["b"])],
        ),
        ("a long message of zstd", message(&zstd(&protobuf(&[&long]))), vec![byte(0, &[&long])]),
        (
            "messages of JSON",
            [message(json.as_bytes()), message(b"{}")].concat(),
            vec![byte(0, &["a"]), byte(4 + json.len(), &[])],
        ),
        ("a message of JSON and zstd", message(&zstd(json.as_bytes())), vec![byte(0, &["a"])]),
    ]
}

#[test]
fn every_format_is_recognised_by_what_is_in_it() {
    for (case, bytes, expected) in [json_files(), binary_files()].concat() {
        assert_eq!(outline(&bytes), expected, "{case}");
    }
}

#[test]
fn every_format_may_be_compressed_as_a_whole() {
    for (case, bytes, expected) in [json_files(), binary_files()].concat() {
        let (start, end) = bytes.split_at(bytes.len() / 2);
        for (compression, compressed) in [
            ("gzip", gzip(&bytes)),
            ("gzip of two members", [gzip(start), gzip(end)].concat()),
            ("zstd", zstd(&bytes)),
            ("zstd of two frames", [zstd(start), zstd(end)].concat()),
            (
                "zstd behind a skippable frame",
                [b"\x50\x2a\x4d\x18\x01\0\0\0x".to_vec(), zstd(&bytes)].concat(),
            ),
        ] {
            assert_eq!(outline(&compressed), expected, "{case}, {compression}");
        }
    }
}

/// A protobuf request whose first bytes are as near to JSON as they can be.
#[test]
fn a_request_that_begins_like_white_space_and_a_brace_is_protobuf() {
    // A ResourceSpans of 123 bytes is `\n{`; a Resource in it is `\n` again, and 34 is the quote.
    for resource in [9, 10, 13, 32, 34] {
        let attribute = KeyValue { key: "k".repeat(resource - 4), ..KeyValue::default() };
        let resource = Resource { attributes: vec![attribute], ..Resource::default() };
        let padding = 123 - 2 - resource.encoded_len() - 2;
        let resource_spans = ResourceSpans {
            resource: Some(resource),
            schema_url: "u".repeat(padding),
            ..ResourceSpans::default()
        };
        let body = TracesData { resource_spans: vec![resource_spans] }.encode_to_vec();
        assert!(body.starts_with(b"\n{\n"), "{body:?}");
        let expected = Piece { place: Place::Byte(0), request: Request::Protobuf(body.clone()) };
        assert_eq!(pieces(&body).unwrap(), [expected]);
    }
}

fn exported(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/file_exporter").join(name)
}

#[test]
fn what_the_file_exporter_writes_is_read_in_each_of_its_formats() {
    for (name, requests) in [
        ("lines.json", 3),
        ("mixed.json", 3),
        ("messages.proto", 3),
        ("messages.proto.zstd", 3),
        ("messages.json.zstd", 3),
        ("native.proto.zstd", 3),
        ("native.json.zstd", 3),
    ] {
        let file = TraceFile::open(&exported(name)).unwrap();
        let pieces: Vec<Piece> = file.map(Result::unwrap).collect();
        assert_eq!(pieces.len(), requests, "{name}");
        let spans: Vec<SeenSpan> = pieces.iter().flat_map(spans_of).collect();
        let expected = |number: &str| SeenSpan {
            resource: Attributes::from([("service.name".to_owned(), Seen::Str("shop".to_owned()))]),
            scope: ("library".to_owned(), String::new()),
            attributes: Attributes::from([("items".to_owned(), Seen::Int(3))]),
            trace: format!("0102030405060708090a0b0c0d0e0f{number}"),
            id: format!("01020304050607{number}"),
            name: "POST /orders".to_owned(),
            kind: 2,
            start: 1_700_000_000_000_000_000,
            end: 1_700_000_000_100_000_000,
            ..SeenSpan::default()
        };
        assert_eq!(spans, [expected("01"), expected("02")], "{name}");
    }
}

#[test]
fn how_far_a_file_has_been_read_is_known() {
    let text = format!("{}\n", otlp_json(&"n".repeat(1000))).repeat(1000);
    let compressed = gzip(text.as_bytes());
    for bytes in [text.as_bytes(), &compressed] {
        let mut stored = tempfile::NamedTempFile::new().unwrap();
        stored.write_all(bytes).unwrap();
        let mut file = TraceFile::open(stored.path()).unwrap();
        let size = file.size().unwrap();
        assert_eq!(size, bytes.len() as u64);
        let mut read = vec![file.bytes_read()];
        while file.next().transpose().unwrap().is_some() {
            read.push(file.bytes_read());
        }
        assert!(read.is_sorted() && read[read.len() - 1] == size, "{read:?}");
        assert!(size < 100_000 || read[0] < size / 4, "reads {} of {size} bytes at first", read[0]);
    }
    assert_eq!(open(text.as_bytes()).unwrap().size(), None);
}

/// Endless, but for its length.
struct Repeated {
    line: Vec<u8>,
    at: usize,
    left: u64,
}

impl Read for Repeated {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = buffer.len().min(self.line.len() - self.at).min(usize::try_from(self.left).unwrap());
        buffer[..length].copy_from_slice(&self.line[self.at..self.at + length]);
        self.at = (self.at + length) % self.line.len();
        self.left -= length as u64;
        Ok(length)
    }
}

#[test]
fn a_file_is_not_read_ahead_of_its_pieces() {
    const LINES: u64 = 10_000_000_000;
    let line = format!("{}\n", otlp_json("a")).into_bytes();
    let left = LINES * line.len() as u64;
    let mut file =
        TraceFile::from_reader("trace", Repeated { line, at: 0, left }, PIECE_LIMIT_BYTES).unwrap();
    for number in 1..=1000 {
        assert_eq!(file.next().unwrap().unwrap().place, Place::Line(number));
    }
    assert!(file.bytes_read() < 1_000_000, "{}", file.bytes_read());
}

// Mistakes.

/// What a file may hold, as every message about another one says.
const FORMATS: &str = "OTLP JSON (one or more objects with the key \"resourceSpans\"), OTLP protobuf (bare, or each \
                       message behind its length in 4 bytes), or Jaeger's JSON export, as it is or compressed with \
                       gzip or zstd";

/// What every message about something that is not whole says.
const CUT_OFF: &str = "which the end of the file cuts off; expected all of it";

/// Checks the names of the spans before the error and its message, in which the names of the texts above stand for
/// those.
#[track_caller]
fn check_failure(bytes: &[u8], names: &[&str], message: &str) {
    let (before, found) = failure(bytes, PIECE_LIMIT_BYTES);
    assert_eq!(found, format!("trace: {}", message.replace("FORMATS", FORMATS).replace("CUT_OFF", CUT_OFF)));
    assert_eq!(before, names, "{message}");
}

#[test]
fn an_empty_file_is_an_error_that_says_so() {
    for empty in [&b""[..], b" \n\t\r\n", &b"\n".repeat(100_000), &gzip(b""), &zstd(b"\n")] {
        check_failure(empty, &[], "found an empty file; expected FORMATS");
    }
}

#[test]
fn what_is_no_trace_file_is_shown() {
    for (bytes, message) in [
        (
            &b"<html>\n<body>Not found</body>\n</html>\n<!-- too long to be shown -->"[..],
            r#"line 1: found the text "<html>\n<body>Not found</body>\n</html>\n<!"; expected FORMATS"#,
        ),
        (b"PK\x03\x04\x0a\0\0\0\0\0", "byte 0: found the bytes 50 4b 03 04 0a 00 00 00; expected FORMATS"),
        (&[0; 10_000], "byte 0: found the bytes 00 00 00 00 00 00 00 00; expected FORMATS"),
        (
            b"[{\"resourceSpans\":[]}]",
            r#"line 1: found the text "[{\"resourceSpans\":[]}]"; expected FORMATS"#,
        ),
        (b"\n\nhello", r#"line 1: found the text "\n\nhello"; expected FORMATS"#),
        (b"{\"foo\": 1}", r#"line 1: found an object that begins with the key "foo"; expected FORMATS"#),
        (b"{resourceSpans: []}", r#"line 1: found the text "{resourceSpans: []}"; expected FORMATS"#),
        (
            b"{\"resource_spans\":[]}",
            r#"line 1: found the key "resource_spans", which OTLP JSON spells "resourceSpans"; expected FORMATS"#,
        ),
        (
            b"\n{\"resourceLogs\":[]}\n{\"resourceMetrics\":[]}",
            "found only logs, metrics or profiles; expected traces: FORMATS",
        ),
        (
            br#"{"data":null,"errors":[{"code":404,"msg":"trace not found"}]}"#,
            "found a Jaeger export without traces; expected traces: FORMATS",
        ),
    ] {
        check_failure(bytes, &[], message);
    }
}

#[test]
fn what_is_cut_off_or_broken_is_an_error_behind_what_comes_before() {
    let (a, b) = (otlp_json("a"), otlp_json("b"));
    let cut = &b[..b.len() - 3];
    let cut_in_text = &b[..b.find("scopeSp").unwrap() + 3];
    for (text, message) in [
        (format!("{a}\n\n{cut}"), "line 3: found a JSON object, CUT_OFF"),
        (format!("{a}\n{cut_in_text}"), "line 2: found a JSON object, CUT_OFF"),
        (
            format!("{a}\n{cut_in_text}\n{a}\n"),
            "line 2: found the end of the line inside a text; expected a closing quote (is the line cut off?)",
        ),
        (format!("{a}\n, {{}}"), "line 2: found the text \", {}\"; expected FORMATS"),
        (format!("{a}\n{{5}}"), "line 2: found the text \"{5}\"; expected FORMATS"),
        (format!("{a}\0\0"), "line 1: found the bytes 00 00; expected FORMATS"),
    ] {
        check_failure(text.as_bytes(), &["a"], message);
    }

    let (bare_a, bare_b) = (protobuf(&["a"]), protobuf(&["b"]));
    let (message_a, message_b) = (message(&bare_a), message(&bare_b));
    // Both are of one length: of the field, and of what is in it.
    let (at, length) = (bare_a.len(), bare_a.len() - 2);
    for (bytes, message) in [
        (
            [&bare_a, &bare_b[..1]].concat(),
            format!("byte {at}: found the length of a ResourceSpans, CUT_OFF"),
        ),
        (
            [&bare_a, &bare_b[..9]].concat(),
            format!("byte {at}: found 7 of the {length} bytes of a message, CUT_OFF"),
        ),
        ([&bare_a, &b"\x12\0"[..]].concat(), format!("byte {at}: found the bytes 12 00; expected FORMATS")),
        (
            [&bare_a, &b"\n"[..], &[0xff; 10]].concat(),
            format!("byte {at}: found the bytes 0a ff ff ff ff ff ff ff; expected FORMATS"),
        ),
    ] {
        check_failure(&bytes, &["a"], &message);
    }
    let (at, length) = (message_a.len(), bare_b.len());
    for (bytes, message) in [
        (
            [&message_a, &message_b[..3]].concat(),
            format!("byte {at}: found 3 of the 4 bytes of a length, CUT_OFF"),
        ),
        (
            [&message_a, &message_b[..9]].concat(),
            format!("byte {at}: found 5 of the {length} bytes of a message, CUT_OFF"),
        ),
        (
            [&message_a, &[0xff; 8][..]].concat(),
            format!("byte {at}: found a piece of more than 1073741824 bytes; expected no larger one"),
        ),
    ] {
        check_failure(&bytes, &["a"], &message);
    }
}

#[test]
fn what_cannot_be_decompressed_is_an_error_behind_what_can() {
    let lines = format!("{}\n{}\n", otlp_json("a"), otlp_json("b"));
    for (compression, whole, cause) in [
        ("gzip", gzip(lines.as_bytes()), "incomplete deflate stream"),
        ("zstd", zstd(lines.as_bytes()), "incomplete frame"),
    ] {
        let bytes = [&*whole, &whole[..whole.len() / 2]].concat();
        let (names, found) = failure(&bytes, PIECE_LIMIT_BYTES);
        assert_eq!(names[..2], ["a", "b"], "{compression}");
        let place = format!("byte {} or shortly before", bytes.len());
        let problem =
            format!("found {compression} data that cannot be decompressed; expected all of it, undamaged");
        assert_eq!(found, format!("trace: {place}: {problem}: {cause}"));
    }
    let good = message(&protobuf(&["a"]));
    let mut damaged = message(&zstd(otlp_json("b").as_bytes()));
    damaged.truncate(40);
    damaged[..4].copy_from_slice(&36_u32.to_be_bytes());
    let problem = "found a zstd message that cannot be decompressed; expected all of it, undamaged";
    let expected = format!("byte {}: {problem}: incomplete frame", good.len());
    check_failure(&[good, damaged].concat(), &["a"], &expected);
}

#[test]
fn a_piece_of_exactly_the_limit_is_read_and_a_larger_one_is_not() {
    let (a, longer) = (otlp_json("a"), otlp_json(&"n".repeat(100)));
    let (protobuf_a, protobuf_longer) = (protobuf(&["a"]), protobuf(&[&"n".repeat(100)]));
    for (limit, bytes, place) in [
        (a.len(), format!("{a}\n{longer}").into_bytes(), "line 2".to_owned()),
        (a.len(), gzip(format!("{a}{longer}").as_bytes()), "line 1".to_owned()),
        (
            protobuf_a.len(),
            [message(&protobuf_a), message(&protobuf_longer)].concat(),
            format!("byte {}", protobuf_a.len() + 4),
        ),
        // Which is smaller than the limit until it is decompressed.
        (
            a.len(),
            [message(a.as_bytes()), message(&zstd(longer.as_bytes()))].concat(),
            format!("byte {}", a.len() + 4),
        ),
        (
            protobuf_a.len(),
            [protobuf_a.clone(), protobuf_longer].concat(),
            format!("byte {}", protobuf_a.len()),
        ),
    ] {
        let (names, found) = failure(&bytes, limit);
        assert_eq!(
            found,
            format!("trace: {place}: found a piece of more than {limit} bytes; expected no larger one")
        );
        assert_eq!(names, ["a"]);
    }
}

#[test]
fn what_the_operating_system_refuses_is_an_error_with_its_word_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.json");
    let error = TraceFile::open(&missing).unwrap_err();
    assert!(matches!(error.problem, Problem::Open { .. }), "{error:?}");
    assert!(
        chain(&error).starts_with(&format!("{}: cannot open it: ", missing.display())),
        "{}",
        chain(&error)
    );

    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _buffer: &mut [u8]) -> std::io::Result<usize> {
            // EIO.
            Err(std::io::Error::from_raw_os_error(5))
        }
    }
    let line = format!("{}\n", otlp_json("a")).into_bytes();
    let length = line.len();
    let mut file =
        TraceFile::from_reader("trace", Cursor::new(line).chain(Broken), PIECE_LIMIT_BYTES).unwrap();
    assert_eq!(spans_of(&file.next().unwrap().unwrap())[0].name, "a");
    let error = chain(&file.next().unwrap().unwrap_err());
    assert!(error.starts_with(&format!("trace: cannot read beyond byte {length}: ")), "{error}");
    let error = TraceFile::from_reader("trace", Broken, PIECE_LIMIT_BYTES).unwrap_err();
    assert!(chain(&error).starts_with("trace: cannot read beyond byte 0: "), "{error}");
}

// Jaeger.

fn tag(key: &str, kind: &str, value: impl Into<serde_json::Value>) -> serde_json::Value {
    serde_json::json!({"key": key, "type": kind, "value": value.into()})
}

fn reference(kind: &str, trace: &str, span: &str) -> serde_json::Value {
    serde_json::json!({"refType": kind, "traceID": trace, "spanID": span})
}

/// The span that a Jaeger span with these fields becomes.
fn translated(fields: serde_json::Value) -> SeenSpan {
    let mut span = jaeger_span("a");
    span.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let mut spans = spans(jaeger(vec![span]).as_bytes());
    assert_eq!(spans.len(), 1);
    spans.remove(0)
}

/// An export with what Jaeger writes, in several of the ways in which it has been written.
fn export_of_three_spans() -> serde_json::Value {
    serde_json::json!({"data": [{
        "traceID": "1f",
        "spans": [
            {
                "traceID": "000000000000001f", "spanID": "abc", "flags": 1, "operationName": "GET /\u{e4}\n",
                "references": null, "startTime": 1_700_000_000_123_456_u64, "duration": 1500, "logs": [
                    {"timestamp": 1, "fields": [tag("event", "string", "link")]},
                ],
                "tags": [
                    tag("span.kind", "string", "server"), tag("http.status_code", "int64", 500),
                    tag("error", "bool", true), tag("otel.status_description", "string", "no stock"),
                    tag("otel.scope.name", "string", "http"), tag("otel.scope.version", "string", "1.2"),
                    tag("otel.library.name", "string", "http"), tag("otel.library.version", "string", "1.2"),
                    tag("w3c.tracestate", "string", "ot=th:8"),
                ],
                "processID": "p1", "warnings": null,
            },
            {
                "traceID": "1f", "spanID": "000000000000000d", "operationName": "charge",
                "references": [reference("CHILD_OF", "1f", "0abc")], "startTime": 1_700_000_000_123_500_u64,
                "duration": 0, "processID": "p2",
            },
            {
                "traceID": "1f", "spanID": "e", "operationName": "lost", "startTime": u64::MAX, "duration": 1,
                "processID": "p3",
            },
        ],
        "processes": {
            "p1": {"serviceName": "shop", "tags": [tag("host.name", "string", "a"), tag("pid", "int64", 7)]},
            "p2": {"serviceName": "OTLPResourceNoServiceName", "tags": null},
        },
        "warnings": null,
    }]})
}

#[test]
fn a_jaeger_export_is_translated_field_by_field() {
    let export = export_of_three_spans();
    let trace = format!("{:032x}", 0x1f);
    let server = SeenSpan {
        resource: Attributes::from([
            ("service.name".to_owned(), Seen::Str("shop".to_owned())),
            ("host.name".to_owned(), Seen::Str("a".to_owned())),
            ("pid".to_owned(), Seen::Int(7)),
        ]),
        scope: ("http".to_owned(), "1.2".to_owned()),
        attributes: Attributes::from([("http.status_code".to_owned(), Seen::Int(500))]),
        trace: trace.clone(),
        id: "0000000000000abc".to_owned(),
        trace_state: "ot=th:8".to_owned(),
        name: "GET /\u{e4}\n".to_owned(),
        kind: 2,
        start: 1_700_000_000_123_456_000,
        end: 1_700_000_000_124_956_000,
        status: (2, "no stock".to_owned()),
        ..SeenSpan::default()
    };
    let charge = SeenSpan {
        trace: trace.clone(),
        id: "000000000000000d".to_owned(),
        parent: "0000000000000abc".to_owned(),
        name: "charge".to_owned(),
        start: 1_700_000_000_123_500_000,
        end: 1_700_000_000_123_500_000,
        ..SeenSpan::default()
    };
    let lost = SeenSpan {
        trace,
        id: "000000000000000e".to_owned(),
        name: "lost".to_owned(),
        start: u64::MAX,
        end: u64::MAX,
        ..SeenSpan::default()
    };
    assert_eq!(spans(export.to_string().as_bytes()), [server, charge, lost]);
    assert_eq!(spans(serde_json::to_string_pretty(&export).unwrap().as_bytes()).len(), 3);
}

#[test]
fn jaeger_ids_are_numbers_of_any_length() {
    let unreadable = hexadecimal(UNREADABLE_ID);
    for (trace, span, expected_trace, expected_span) in [
        ("1", "2", format!("{:032x}", 1), format!("{:016x}", 2)),
        ("ABCDEF0123456789", "F", format!("{:032x}", 0xabcdef0123456789_u64), format!("{:016x}", 0xf)),
        (
            "102030405060708090a0b0c0d0e0f10",
            "102030405060708",
            "0102030405060708090a0b0c0d0e0f10".to_owned(),
            "0102030405060708".to_owned(),
        ),
        ("", "", String::new(), String::new()),
        ("0102030405060708090a0b0c0d0e0f101", "01020304050607081", unreadable.clone(), unreadable.clone()),
        ("+1", "x", unreadable.clone(), unreadable.clone()),
        ("\u{e4}", "-1", unreadable.clone(), unreadable.clone()),
    ] {
        let span = translated(serde_json::json!({"traceID": trace, "spanID": span}));
        assert_eq!((span.trace, span.id), (expected_trace, expected_span));
    }
}

#[test]
fn a_jaeger_reference_is_the_parent_or_a_link() {
    let own = "0102030405060708090a0b0c0d0e0f10";
    let (child_of, follows_from) = ("CHILD_OF", "FOLLOWS_FROM");
    for (references, parent, links) in [
        (vec![(child_of, own, "a")], "a", vec![]),
        (vec![(child_of, "102030405060708090A0B0C0D0E0F10", "a")], "a", vec![]),
        (vec![(follows_from, own, "a")], "a", vec![]),
        (vec![(follows_from, own, "a"), (child_of, own, "b")], "b", vec![(own, "a")]),
        (vec![(child_of, own, "a"), (child_of, own, "b")], "a", vec![(own, "b")]),
        (vec![(follows_from, own, "a"), (follows_from, own, "b")], "a", vec![(own, "b")]),
        (vec![(child_of, "1", "a"), (follows_from, "2", "b")], "", vec![("1", "a"), ("2", "b")]),
        (vec![(child_of, "1", "a"), (follows_from, own, "b")], "b", vec![("1", "a")]),
        (vec![(child_of, own, "0")], "", vec![]),
        (vec![], "", vec![]),
    ] {
        let case = format!("{references:?}");
        let references: Vec<_> =
            references.into_iter().map(|(kind, trace, span)| reference(kind, trace, span)).collect();
        let span = translated(serde_json::json!({"references": references}));
        let parent = if parent.is_empty() { String::new() } else { format!("{parent:0>16}") };
        let links: Vec<_> = links
            .into_iter()
            .map(|(trace, span)| (format!("{trace:0>32}"), format!("{span:0>16}")))
            .collect();
        assert_eq!((span.parent, span.links), (parent, links), "{case}");
    }
    let old = translated(serde_json::json!({"parentSpanID": "a"}));
    assert_eq!(old.parent, format!("{:016x}", 0xa));
}

#[test]
fn a_jaeger_tag_is_a_field_or_an_attribute_of_its_type() {
    let attribute = |key: &str, value| (SeenSpan::default(), vec![(key.to_owned(), value)]);
    let kind = |kind| (SeenSpan { kind, ..SeenSpan::default() }, vec![]);
    let status = |status: i32| (SeenSpan { status: (status, String::new()), ..SeenSpan::default() }, vec![]);
    let text = |text: &str| Seen::Str(text.to_owned());
    for (tags, (fields, attributes)) in [
        (vec![tag("span.kind", "string", "internal")], kind(1)),
        (vec![tag("span.kind", "string", "server")], kind(2)),
        (vec![tag("span.kind", "string", "client")], kind(3)),
        (vec![tag("span.kind", "string", "producer")], kind(4)),
        (vec![tag("span.kind", "string", "consumer")], kind(5)),
        (vec![tag("span.kind", "string", "local")], attribute("span.kind", text("local"))),
        (vec![], kind(0)),
        (vec![tag("error", "bool", true)], status(2)),
        (vec![tag("error", "string", "true")], status(2)),
        (vec![tag("error", "bool", false)], attribute("error", Seen::Bool(false))),
        (vec![tag("error", "string", "timeout")], attribute("error", text("timeout"))),
        (vec![tag("otel.status_code", "string", "ERROR")], status(2)),
        (vec![tag("otel.status_code", "string", "Ok")], status(1)),
        (vec![tag("otel.status_code", "string", "OK"), tag("error", "bool", true)], status(2)),
        (vec![tag("error", "bool", true), tag("otel.status_code", "string", "OK")], status(2)),
        (vec![tag("k", "string", "v")], attribute("k", text("v"))),
        (vec![tag("k", "string", "5")], attribute("k", text("5"))),
        (vec![tag("k", "bool", false)], attribute("k", Seen::Bool(false))),
        (vec![tag("k", "bool", "true")], attribute("k", Seen::Bool(true))),
        (vec![tag("k", "int64", -5)], attribute("k", Seen::Int(-5))),
        (vec![tag("k", "int64", "9223372036854775807")], attribute("k", Seen::Int(i64::MAX))),
        (vec![tag("k", "int64", u64::MAX)], attribute("k", Seen::Double(u64::MAX as f64))),
        (vec![tag("k", "float64", 1.5)], attribute("k", Seen::Double(1.5))),
        (vec![tag("k", "float64", 2)], attribute("k", Seen::Double(2.0))),
        (vec![tag("k", "float64", "0.25")], attribute("k", Seen::Double(0.25))),
        (vec![tag("k", "binary", "AQID")], attribute("k", Seen::Bytes(vec![1, 2, 3]))),
        (vec![tag("k", "binary", "?")], attribute("k", text("?"))),
        (vec![serde_json::json!({"key": "k", "value": 7})], attribute("k", Seen::Int(7))),
        (vec![serde_json::json!({"key": "k", "value": [1, null]})], attribute("k", text("[1,null]"))),
        (vec![serde_json::json!({"key": "k"})], attribute("k", text("null"))),
    ] {
        let case = format!("{tags:?}");
        let span = translated(serde_json::json!({"tags": tags}));
        assert_eq!((span.kind, span.status), (fields.kind, fields.status), "{case}");
        assert_eq!(span.attributes, attributes.into_iter().collect(), "{case}");
    }
}

#[test]
fn a_mistake_in_a_jaeger_export_has_its_line() {
    let good = jaeger_span("a");
    for (text, message) in [
        (
            "\n{\"data\": [\"shop\", \"bank\"]}".to_owned(),
            r#"line 2 column 16: found invalid type: string "shop", expected struct Trace; expected Jaeger's JSON export"#,
        ),
        (
            "{\"data\": {}}".to_owned(),
            "line 1 column 9: found invalid type: map, expected a sequence; expected Jaeger's JSON export",
        ),
        (
            format!(
                "{{\"data\": [\n{{\"spans\": [{good}]}},\n  {{\"spans\": [\n    {{\"traceID\": 5}}]}}]}}"
            ),
            "line 4 column 17: found invalid type: integer `5`, expected a string; expected Jaeger's JSON export",
        ),
        (
            "{\"data\": [{\"traceID\": \"1\"}]}".to_owned(),
            "line 1 column 26: found missing field `spans`; expected Jaeger's JSON export",
        ),
    ] {
        let names: &[&str] = if text.contains("operationName") { &["a"] } else { &[] };
        check_failure(text.as_bytes(), names, message);
    }
}

/// A Jaeger span, and what it means.
#[derive(Debug, Clone)]
struct Invented {
    trace: u128,
    id: u64,
    parent: Option<u64>,
    links: Vec<(u128, u64)>,
    kind: usize,
    is_error: bool,
    start: u64,
    duration: u64,
    process: usize,
    scope: String,
    numbers: BTreeMap<String, i64>,
    pads: bool,
}

const KINDS: [&str; 6] = ["", "internal", "server", "client", "producer", "consumer"];

fn invented() -> impl Strategy<Value = Invented> {
    let ids = (prop_oneof![1_u128..100, any::<u128>()], 1..u64::MAX, proptest::option::of(1..u64::MAX));
    let links = vec((1..u128::MAX, any::<u64>()), 0..3);
    let times = (0..u64::MAX / 4000, 0..u64::MAX / 4000);
    let place = (0..3_usize, "[a-c]?", any::<bool>());
    let numbers = proptest::collection::btree_map("k[a-e]", any::<i64>(), 0..3);
    (ids, links, 0..KINDS.len(), any::<bool>(), times, place, numbers).prop_map(
        |((trace, id, parent), links, kind, is_error, (start, duration), (process, scope, pads), numbers)| {
            Invented {
                trace,
                id,
                parent,
                links,
                kind,
                is_error,
                start,
                duration,
                process,
                scope,
                numbers,
                pads,
            }
        },
    )
}

impl Invented {
    fn written(&self) -> serde_json::Value {
        let trace_id = |trace: u128| match u64::try_from(trace) {
            Ok(low) if self.pads => format!("{low:016x}"),
            _ if self.pads => format!("{trace:032x}"),
            _ => format!("{trace:x}"),
        };
        let span_id = |span: u64| if self.pads { format!("{span:016x}") } else { format!("{span:x}") };
        let mut references: Vec<_> = self
            .links
            .iter()
            .map(|(trace, span)| reference("FOLLOWS_FROM", &trace_id(*trace), &span_id(*span)))
            .collect();
        references
            .extend(self.parent.map(|parent| reference("CHILD_OF", &trace_id(self.trace), &span_id(parent))));
        let mut tags: Vec<_> = self
            .numbers
            .iter()
            .map(|(key, value)| {
                // As Jaeger writes what JavaScript cannot hold.
                let is_safe = value.unsigned_abs() < 1 << 53;
                if is_safe { tag(key, "int64", *value) } else { tag(key, "int64", value.to_string()) }
            })
            .collect();
        tags.extend((self.kind > 0).then(|| tag("span.kind", "string", KINDS[self.kind])));
        tags.extend(self.is_error.then(|| tag("error", "bool", true)));
        tags.extend((!self.scope.is_empty()).then(|| tag("otel.scope.name", "string", &*self.scope)));
        serde_json::json!({
            "traceID": trace_id(self.trace), "spanID": span_id(self.id), "operationName": format!("{:x}", self.id),
            "references": references, "startTime": self.start, "duration": self.duration, "tags": tags,
            "logs": [], "processID": format!("p{}", self.process),
        })
    }

    fn meant(&self) -> SeenSpan {
        SeenSpan {
            resource: Attributes::from([(
                "service.name".to_owned(),
                Seen::Str(format!("service {}", self.process)),
            )]),
            scope: (self.scope.clone(), String::new()),
            attributes: self.numbers.iter().map(|(key, value)| (key.clone(), Seen::Int(*value))).collect(),
            links: self
                .links
                .iter()
                .map(|(trace, span)| (format!("{trace:032x}"), format!("{span:016x}")))
                .collect(),
            trace: format!("{:032x}", self.trace),
            id: format!("{:016x}", self.id),
            parent: self.parent.map(|parent| format!("{parent:016x}")).unwrap_or_default(),
            name: format!("{:x}", self.id),
            kind: i32::try_from(self.kind).unwrap(),
            start: self.start * 1000,
            end: (self.start + self.duration) * 1000,
            status: (if self.is_error { 2 } else { 0 }, String::new()),
            ..SeenSpan::default()
        }
    }
}

fn export_of(traces: &[Vec<Invented>]) -> serde_json::Value {
    let process =
        |number| (format!("p{number}"), serde_json::json!({"serviceName": format!("service {number}")}));
    let processes: serde_json::Map<_, _> = (0..3).map(process).collect();
    let trace = |spans: &Vec<Invented>| {
        let spans: Vec<_> = spans.iter().map(Invented::written).collect();
        serde_json::json!({"traceID": "1", "spans": spans, "processes": processes})
    };
    serde_json::json!({"data": traces.iter().map(trace).collect::<Vec<_>>()})
}

/// Spans in an order that does not depend on how they are grouped.
fn sorted(mut spans: Vec<SeenSpan>) -> Vec<SeenSpan> {
    spans.sort_by(|a, b| (&a.id, &a.trace, a.start).cmp(&(&b.id, &b.trace, b.start)));
    spans
}

/// A reader that gives as many bytes at a time as it is told.
struct Dripping(Cursor<Vec<u8>>, usize);

impl Read for Dripping {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = buffer.len().min(self.1);
        self.0.read(&mut buffer[..length])
    }
}

proptest! {
    #[test]
    fn every_jaeger_span_becomes_the_span_that_it_means(traces in vec(vec(invented(), 0..6), 1..4)) {
        let pieces = pieces(export_of(&traces).to_string().as_bytes()).unwrap();
        prop_assert_eq!(pieces.len(), traces.len());
        for (piece, trace) in pieces.iter().zip(&traces) {
            prop_assert_eq!(sorted(spans_of(piece)), sorted(trace.iter().map(Invented::meant).collect()));
        }
    }

    #[test]
    fn objects_are_found_wherever_the_reads_end(
        names in vec("[a-z{}\\[\\]\"\\\\\n]{0,20}", 1..8),
        spaces in vec("[ \n\t\r]{0,5}", 8),
        pretty in vec(any::<bool>(), 8),
        bytes_at_a_time in 1..200_usize,
    ) {
        let (mut text, mut expected) = (String::new(), Vec::new());
        for (index, name) in names.iter().enumerate() {
            text.push_str(&spaces[index]);
            let object = if pretty[index] { pretty_json(name) } else { otlp_json(name) };
            let place = Place::Line(1 + text.matches('\n').count() as u64);
            text.push_str(&object);
            expected.push(Piece { place, request: Request::Json(object.into_bytes()) });
        }
        let reader = Dripping(Cursor::new(text.into_bytes()), bytes_at_a_time);
        let file = TraceFile::from_reader("trace", reader, PIECE_LIMIT_BYTES).unwrap();
        prop_assert_eq!(file.map(Result::unwrap).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn every_piece_of_a_binary_file_is_found_wherever_the_reads_end(
        names in vec("[a-z]{0,20}", 1..8),
        compressed in vec(any::<bool>(), 8),
        bytes_at_a_time in 1..200_usize,
    ) {
        let bodies: Vec<Vec<u8>> = names.iter().map(|name| protobuf(&[name])).collect();
        let messages: Vec<u8> = bodies.iter().zip(compressed).flat_map(|(body, compressed)| {
            message(&if compressed { zstd(body) } else { body.clone() })
        }).collect();
        for bytes in [messages, bodies.concat()] {
            let reader = Dripping(Cursor::new(bytes), bytes_at_a_time);
            let file = TraceFile::from_reader("trace", reader, PIECE_LIMIT_BYTES).unwrap();
            let found: Vec<Request> = file.map(|piece| piece.unwrap().request).collect();
            prop_assert_eq!(found, bodies.iter().cloned().map(Request::Protobuf).collect::<Vec<_>>());
        }
    }

    /// Whatever a file holds, it comes to an end.
    #[test]
    fn a_damaged_file_is_an_error_or_other_pieces(
        which in any::<prop::sample::Index>(),
        damages in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
        compression in 0..3,
    ) {
        let mut files = [json_files(), binary_files()].concat();
        let (_, mut bytes, _) = files.swap_remove(which.index(files.len()));
        bytes = match compression { 0 => bytes, 1 => gzip(&bytes), _ => zstd(&bytes) };
        for (place, value) in damages {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        bytes.truncate(bytes.len() - cut.index(bytes.len()) / 2);
        if let Err(error) = pieces(&bytes) {
            prop_assert!(chain(&error).starts_with("trace: "));
        }
    }
}
