//! The two OTLP decoders against prost and the serde of `opentelemetry-proto`, which decode everything into
//! structs: the visits must be what those structs hold.

mod oracle;

use latency_aggregator::mapping::otlp::wire::Problem;
use latency_aggregator::mapping::otlp::{DecodeError, UNREADABLE_ID};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span};
use oracle::{
    SeenResource, SeenScope, SeenSpan, SeenValue, check_json, check_wire, expected, walk_json, walk_wire,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message;

// Requests of any content.

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[a-z.]{0,20}",
        1 => "\\PC{0,8}",
        1 => "[\"\\\\/\u{0}-\u{1f}é😀\u{fffd}]{0,6}",
        1 => "[a-z]{120,140}",
    ]
}

fn any_id(length: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![8 => vec(any::<u8>(), length), 1 => vec(any::<u8>(), 0..=16), 1 => Just(vec![0; length])]
}

fn any_value() -> impl Strategy<Value = AnyValue> {
    let scalar = prop_oneof![
        4 => any_text().prop_map(any_value::Value::StringValue),
        1 => any::<bool>().prop_map(any_value::Value::BoolValue),
        2 => any::<i64>().prop_map(any_value::Value::IntValue),
        2 => (0..100_000_i64).prop_map(any_value::Value::IntValue),
        // Eighths are the same in binary and decimal, whoever converts them.
        1 => any::<i32>().prop_map(|eighths| any_value::Value::DoubleValue(f64::from(eighths) / 8.0)),
        1 => vec(any::<u8>(), 0..9).prop_map(any_value::Value::BytesValue),
        1 => any::<i32>().prop_map(any_value::Value::StringValueStrindex),
    ];
    let leaf = option::weighted(0.95, scalar).prop_map(|value| AnyValue { value });
    leaf.prop_recursive(4, 12, 3, |inner| {
        let pair = (any_text(), option::of(inner.clone()));
        let pair = pair.prop_map(|(key, value)| KeyValue { key, value, key_strindex: 0 });
        prop_oneof![
            vec(inner, 0..3).prop_map(|values| any_value::Value::ArrayValue(ArrayValue { values })),
            vec(pair, 0..3).prop_map(|values| any_value::Value::KvlistValue(KeyValueList { values })),
        ]
        .prop_map(|value| AnyValue { value: Some(value) })
    })
}

fn any_attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    let attribute =
        (any_text(), option::weighted(0.95, any_value()), prop_oneof![9 => Just(0), 1 => any::<i32>()]);
    vec(attribute.prop_map(|(key, value, key_strindex)| KeyValue { key, value, key_strindex }), 0..5)
}

fn any_link() -> impl Strategy<Value = span::Link> {
    (any_id(16), any_id(8), any_text(), any_attributes(), any::<u32>()).prop_map(
        |(trace_id, span_id, trace_state, attributes, flags)| span::Link {
            trace_id,
            span_id,
            trace_state,
            attributes,
            dropped_attributes_count: flags / 2,
            flags,
        },
    )
}

fn any_event() -> impl Strategy<Value = span::Event> {
    (any::<u64>(), any_text(), any_attributes()).prop_map(|(time_unix_nano, name, attributes)| span::Event {
        time_unix_nano,
        name,
        attributes,
        dropped_attributes_count: 1,
    })
}

fn any_span() -> impl Strategy<Value = Span> {
    let number = || prop_oneof![4 => 0..6_i32, 1 => any::<i32>()];
    let ids = (any_id(16), any_id(8), prop_oneof![1 => Just(Vec::new()), 2 => any_id(8)]);
    let status = (any_text(), number()).prop_map(|(message, code)| Status { message, code });
    let lists = (any_attributes(), vec(any_event(), 0..2), vec(any_link(), 0..3), option::of(status));
    let scalars = (any_text(), any_text(), number(), any::<u32>(), any::<u64>(), any::<u64>());
    (ids, lists, scalars).prop_map(|(ids, lists, scalars)| Span {
        trace_id: ids.0,
        span_id: ids.1,
        parent_span_id: ids.2,
        trace_state: scalars.0,
        name: scalars.1,
        kind: scalars.2,
        flags: scalars.3,
        start_time_unix_nano: scalars.4,
        end_time_unix_nano: scalars.5,
        attributes: lists.0,
        dropped_attributes_count: scalars.3 / 3,
        events: lists.1,
        dropped_events_count: scalars.3 / 5,
        links: lists.2,
        dropped_links_count: scalars.3 / 7,
        status: lists.3,
    })
}

fn any_request() -> impl Strategy<Value = ExportTraceServiceRequest> {
    let scope = (any_text(), any_text(), any_attributes()).prop_map(|(name, version, attributes)| {
        InstrumentationScope { name, version, attributes, dropped_attributes_count: 0 }
    });
    let scope_spans = (option::of(scope), vec(any_span(), 0..3), any_text())
        .prop_map(|(scope, spans, schema_url)| ScopeSpans { scope, spans, schema_url });
    let resource = any_attributes().prop_map(|attributes| Resource { attributes, ..Resource::default() });
    let resource_spans = (option::of(resource), vec(scope_spans, 0..3), any_text())
        .prop_map(|(resource, scope_spans, schema_url)| ResourceSpans { resource, scope_spans, schema_url });
    vec(resource_spans, 0..3).prop_map(|resource_spans| ExportTraceServiceRequest { resource_spans })
}

// Encodings that no encoder would choose.

#[derive(Clone, Copy)]
enum Payload {
    Varint,
    Fixed64,
    Fixed32,
    Bytes,
    Message(&'static Shape),
}

/// The fields of a message.
type Shape = &'static [(u32, Payload)];

static REQUEST: Shape = &[(1, Payload::Message(&RESOURCE_SPANS))];
static RESOURCE_SPANS: Shape = &[
    (1, Payload::Message(&RESOURCE)),
    (2, Payload::Message(&SCOPE_SPANS)),
    (2, Payload::Message(&SCOPE_SPANS)),
    (3, Payload::Bytes),
];
static RESOURCE: Shape = &[(1, Payload::Message(&KEY_VALUE)), (2, Payload::Varint), (3, Payload::Bytes)];
static SCOPE_SPANS: Shape = &[
    (1, Payload::Message(&SCOPE)),
    (2, Payload::Message(&SPAN)),
    (2, Payload::Message(&SPAN)),
    (3, Payload::Bytes),
];
static SCOPE: Shape =
    &[(1, Payload::Bytes), (2, Payload::Bytes), (3, Payload::Message(&KEY_VALUE)), (4, Payload::Varint)];
static SPAN: Shape = &[
    (1, Payload::Bytes),
    (2, Payload::Bytes),
    (3, Payload::Bytes),
    (4, Payload::Bytes),
    (5, Payload::Bytes),
    (6, Payload::Varint),
    (7, Payload::Fixed64),
    (8, Payload::Fixed64),
    (9, Payload::Message(&KEY_VALUE)),
    (10, Payload::Varint),
    (11, Payload::Bytes),
    (12, Payload::Varint),
    (13, Payload::Message(&LINK)),
    (14, Payload::Varint),
    (15, Payload::Message(&STATUS)),
    (16, Payload::Fixed32),
];
static LINK: Shape = &[
    (1, Payload::Bytes),
    (2, Payload::Bytes),
    (3, Payload::Bytes),
    (4, Payload::Bytes),
    (5, Payload::Varint),
    (6, Payload::Fixed32),
];
static STATUS: Shape = &[(2, Payload::Bytes), (3, Payload::Varint)];
static KEY_VALUE: Shape = &[(1, Payload::Bytes), (2, Payload::Message(&ANY_VALUE)), (3, Payload::Varint)];
static ANY_VALUE: Shape = &[
    (1, Payload::Bytes),
    (2, Payload::Varint),
    (3, Payload::Varint),
    (4, Payload::Fixed64),
    (5, Payload::Message(&ARRAY_VALUE)),
    (6, Payload::Message(&KEY_VALUE_LIST)),
    (7, Payload::Bytes),
    (8, Payload::Varint),
];
static ARRAY_VALUE: Shape = &[(1, Payload::Message(&ANY_VALUE))];
static KEY_VALUE_LIST: Shape = &[(1, Payload::Message(&KEY_VALUE))];

/// Choices made from random bytes; when they run out, everything is zero and short.
struct Choices<'a>(std::slice::Iter<'a, u8>);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        self.0.next().copied().unwrap_or_default()
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    fn number(&mut self) -> u64 {
        match self.byte() % 4 {
            0 => u64::from(self.byte()),
            1 => u64::from(self.byte()) << 7,
            _ => u64::from_le_bytes(std::array::from_fn(|_| self.byte())),
        }
    }

    /// A varint, now and then longer than it need be.
    fn varint(&mut self, value: u64, out: &mut Vec<u8>) {
        prost::encoding::encode_varint(value, out);
        if self.byte() > 230 && (value < 1 << 28 || self.byte() > 250) {
            *out.last_mut().expect("a varint has bytes") |= 0x80;
            out.extend(std::iter::repeat_n(0x80, self.below(4)));
            out.push(0);
        }
    }

    fn bytes(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.varint(bytes.len() as u64, out);
        out.extend_from_slice(bytes);
    }

    fn payload(&mut self, number: u32, payload: Payload, depth: usize, out: &mut Vec<u8>) {
        let wire_type = match payload {
            Payload::Varint => 0,
            Payload::Fixed64 => 1,
            Payload::Bytes | Payload::Message(&_) => 2,
            Payload::Fixed32 => 5,
        };
        self.varint(u64::from(number << 3 | wire_type), out);
        match payload {
            Payload::Varint => {
                let value = self.number();
                self.varint(value, out);
            }
            Payload::Fixed64 => out.extend((0..8).map(|_| self.byte())),
            Payload::Fixed32 => out.extend((0..4).map(|_| self.byte())),
            Payload::Bytes => {
                let bits = if self.byte() < 240 { 0x7f } else { 0xff };
                let length = self.below(12);
                let bytes: Vec<u8> = (0..length).map(|_| self.byte() & bits).collect();
                self.bytes(&bytes, out);
            }
            Payload::Message(fields) => {
                let message = self.message(fields, depth + 1);
                self.bytes(&message, out);
            }
        }
    }

    fn message(&mut self, known: Shape, depth: usize) -> Vec<u8> {
        let mut out = Vec::new();
        // Enough fields to reach the spans, and few enough below them to end.
        let (least, spread) = match depth {
            0..5 => (2, 8),
            5..12 => (0, 8),
            _ => (0, 2),
        };
        for _ in 0..least + self.below(spread) {
            let (number, payload) = known[self.below(known.len())];
            let unknown = 17 + self.below(9) as u32 * 1000;
            match self.byte() {
                245 if self.byte() < 16 => self.payload(number, Payload::Varint, depth, &mut out),
                0..=245 => self.payload(number, payload, depth, &mut out),
                246 => self.payload(unknown, Payload::Fixed32, depth, &mut out),
                247 => self.payload(unknown, Payload::Fixed64, depth, &mut out),
                248..251 => self.payload(unknown, payload, depth, &mut out),
                251.. => {
                    self.varint(u64::from(unknown << 3 | 3), &mut out);
                    out.extend(self.message(SPAN, depth + 1));
                    self.varint(u64::from(unknown << 3 | 4), &mut out);
                }
            }
        }
        out
    }
}

/// Where and how to spoil an encoding.
fn any_damage() -> impl Strategy<Value = Vec<(prop::sample::Index, u8, u8)>> {
    vec((any::<prop::sample::Index>(), 0..5_u8, any::<u8>()), 1..4)
}

fn damage(bytes: &mut Vec<u8>, damages: &[(prop::sample::Index, u8, u8)]) {
    for (index, kind, byte) in damages {
        if bytes.is_empty() {
            return;
        }
        let at = index.index(bytes.len());
        match kind {
            0 => bytes[at] = *byte,
            1 => bytes[at] ^= 1 << (byte % 8),
            2 => bytes.insert(at, *byte),
            3 => drop(bytes.remove(at)),
            _ => bytes.truncate(at),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_request_is_walked_as_prost_decodes_it(request in any_request()) {
        let bytes = request.encode_to_vec();
        prop_assert_eq!(walk_wire(&bytes), Ok(expected(&request)));
        check_wire(&bytes);
    }

    #[test]
    fn any_request_gives_the_same_visits_in_json(request in any_request()) {
        let body = serde_json::to_string(&request).expect("the request has a JSON form");
        prop_assert_eq!(walk_json(&body), Ok(expected(&request)));
        let body = serde_json::to_string_pretty(&request).expect("the request has a JSON form");
        prop_assert_eq!(walk_json(&body), Ok(expected(&request)));
    }

    #[test]
    fn keys_of_json_objects_come_in_any_order(request in any_request()) {
        // A map of serde_json sorts its keys: attributes first, spans before their trace ids, and so on.
        let sorted = serde_json::to_value(&request).expect("the request has a JSON form");
        prop_assert_eq!(walk_json(reversed(&sorted)), Ok(expected(&request)));
        prop_assert_eq!(walk_json(sorted.to_string()), Ok(expected(&request)));
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_are_judged_as_prost_does(bytes in vec(any::<u8>(), 0..200)) {
        check_wire(&bytes);
        check_json(&bytes);
    }

    #[test]
    fn odd_encodings_are_walked_as_prost_decodes_them(choices in vec(any::<u8>(), 0..2000)) {
        check_wire(&Choices(choices.iter()).message(REQUEST, 0));
    }

    #[test]
    fn damaged_odd_encodings_are_judged_as_prost_does(
        choices in vec(any::<u8>(), 0..2000),
        damages in any_damage(),
    ) {
        let mut bytes = Choices(choices.iter()).message(REQUEST, 0);
        damage(&mut bytes, &damages);
        check_wire(&bytes);
    }

    #[test]
    fn damaged_requests_are_judged_as_prost_does(request in any_request(), damages in any_damage()) {
        let mut bytes = request.encode_to_vec();
        damage(&mut bytes, &damages);
        check_wire(&bytes);
    }

    #[test]
    fn damaged_json_never_panics(request in any_request(), damages in any_damage()) {
        let mut body = serde_json::to_vec(&request).expect("the request has a JSON form");
        damage(&mut body, &damages);
        check_json(&body);
    }
}

/// The JSON text of `value` with the keys of every object in falling order.
fn reversed(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::Array(list) => format!("[{}]", list.iter().map(reversed).collect::<Vec<_>>().join(",")),
        Value::Object(map) => {
            let mut keys: Vec<_> = map.keys().collect();
            keys.sort();
            let pair =
                |key: &&String| format!("{}:{}", Value::from(key.as_str()), reversed(&map[key.as_str()]));
            format!("{{{}}}", keys.iter().rev().map(pair).collect::<Vec<_>>().join(", "))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

// Protobuf, case by case.

/// A field with a length, by hand.
fn field(number: u32, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_varint(u64::from(number << 3 | 2), &mut out);
    prost::encoding::encode_varint(content.len() as u64, &mut out);
    out.extend_from_slice(content);
    out
}

/// A request of one resource and one scope with these encoded fields of one span.
fn request_of_span(span: &[u8]) -> Vec<u8> {
    field(1, &field(2, &field(2, span)))
}

fn problem_of(request: &[u8]) -> Option<Problem> {
    check_wire(request);
    match walk_wire(request) {
        Ok(_) => None,
        Err(DecodeError::Protobuf { problem, .. }) => Some(problem),
        Err(other) => panic!("not a protobuf error: {other}"),
    }
}

fn only_span(resources: Result<Vec<SeenResource>, DecodeError>) -> SeenSpan {
    let resources = resources.expect("the request decodes");
    let spans: Vec<_> = resources.iter().flat_map(|r| &r.scopes).flat_map(|s| &s.spans).collect();
    assert_eq!(spans.len(), 1, "one span in {resources:?}");
    spans[0].clone()
}

#[test]
fn an_empty_body_is_an_empty_request() {
    assert_eq!(walk_wire(b""), Ok(vec![]));
    assert_eq!(walk_wire(b"\x0a\x00"), Ok(vec![SeenResource::default()]));
}

#[test]
fn a_resource_and_a_scope_are_reported_before_spans_that_come_first() {
    let attribute = |key: &str| field(1, &field(1, key.as_bytes()));
    let scope_spans = [field(2, &field(5, b"first")), field(1, &field(1, b"library"))].concat();
    let request = field(1, &[field(2, &scope_spans), field(1, &attribute("service.name"))].concat());
    assert_eq!(problem_of(&request), None);
    let seen = walk_wire(&request).expect("the request decodes");
    assert_eq!(seen[0].attributes, [("service.name".to_owned(), SeenValue::Other)]);
    assert_eq!((seen[0].scopes[0].name.as_str(), seen[0].scopes[0].spans.len()), ("library", 1));
}

#[test]
fn a_message_that_comes_in_parts_is_merged() {
    let attribute = |key: &str| field(1, &field(1, key.as_bytes()));
    let scope_spans = [field(1, &field(1, b"library")), field(2, b""), field(1, &field(2, b"1.0"))].concat();
    let resource_spans =
        [field(1, &attribute("a")), field(2, &scope_spans), field(1, &attribute("b"))].concat();
    let request = field(1, &resource_spans);
    assert_eq!(problem_of(&request), None);
    let seen = walk_wire(&request).expect("the request decodes");
    let keys: Vec<_> = seen[0].attributes.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["a", "b"]);
    assert_eq!((seen[0].scopes[0].name.as_str(), seen[0].scopes[0].version.as_str()), ("library", "1.0"));
}

#[test]
fn of_a_scalar_that_comes_twice_the_last_counts() {
    let status = [field(15, b"\x18\x02\x12\x01a"), field(15, b"\x18\x01")].concat();
    let span = [field(5, b"old"), field(5, b"new"), vec![0x30, 2, 0x30, 3], status].concat();
    let request = request_of_span(&span);
    assert_eq!(problem_of(&request), None);
    let seen = only_span(walk_wire(&request));
    assert_eq!((seen.texts[1].as_str(), seen.kind, seen.status), ("new", 3, 1));
    assert_eq!(seen.texts[2], "a", "the parts of a status are merged");
}

#[test]
fn of_several_attribute_values_the_last_counts() {
    for (value, expected) in [
        (&b"\x12\x05\x0a\x01a\x18\x07"[..], SeenValue::Int(7)),
        (b"\x12\x05\x18\x07\x0a\x01a", SeenValue::Str("a".to_owned())),
        (b"\x12\x02\x18\x07\x12\x00", SeenValue::Int(7)),
        (b"\x12\x02\x18\x07\x12\x02\x10\x01", SeenValue::Bool(true)),
        (b"\x12\x04\x18\x07\x2a\x00", SeenValue::Other),
        (b"\x12\x00", SeenValue::Other),
        (b"", SeenValue::Other),
        // An empty value, and then what would be an integer if it were inside.
        (b"\x0a\x00\x12\x00\x18\x07", SeenValue::Other),
        (b"\x0a\x00\x12\x02\x18\x07\x18\x08", SeenValue::Int(7)),
    ] {
        let request = request_of_span(&field(9, value));
        assert_eq!(problem_of(&request), None);
        assert_eq!(only_span(walk_wire(&request)).attributes, [(String::new(), expected)]);
    }
}

#[test]
fn short_attributes_are_read_like_long_ones() {
    for value in [0, 1, 127, 128, 16_383, 16_384, 1 << 31, i64::MAX, -1, i64::MIN] {
        for key_length in [0, 1, 19, 127, 128, 300] {
            let value = Some(AnyValue { value: Some(any_value::Value::IntValue(value)) });
            let attribute = KeyValue { key: "k".repeat(key_length), value, key_strindex: 0 };
            check_wire(&request_of_span(&field(9, &attribute.encode_to_vec())));
        }
    }
    for length in [0, 1, 100, 124, 125, 126, 127, 128, 129, 20_000] {
        let value = Some(AnyValue { value: Some(any_value::Value::StringValue("v".repeat(length))) });
        let attribute = KeyValue { key: "key".to_owned(), value, key_strindex: 0 };
        check_wire(&request_of_span(&field(9, &attribute.encode_to_vec())));
    }
}

#[test]
fn repeated_attribute_keys_are_reported_in_order() {
    let attribute = |value: u8| field(9, &[b"\x0a\x01k\x12\x02\x18", &[value][..]].concat());
    let request = request_of_span(&[attribute(1), attribute(2)].concat());
    let expected = [("k".to_owned(), SeenValue::Int(1)), ("k".to_owned(), SeenValue::Int(2))];
    assert_eq!(only_span(walk_wire(&request)).attributes, expected);
}

#[test]
fn text_that_is_not_utf8_costs_characters_and_not_the_span() {
    let attribute = field(9, b"\x0a\x01\xff\x12\x05\x0a\x03a\xc3z");
    let request = request_of_span(&[field(5, b"caf\xe9"), attribute].concat());
    assert!(ExportTraceServiceRequest::decode(&request[..]).is_err(), "prost refuses the whole request");
    assert_eq!(problem_of(&request), None);
    let seen = only_span(walk_wire(&request));
    assert_eq!(seen.texts[1], "caf\u{fffd}");
    assert_eq!(seen.attributes, [("\u{fffd}".to_owned(), SeenValue::Str("a\u{fffd}z".to_owned()))]);
}

#[test]
fn the_content_of_events_and_link_attributes_is_not_read() {
    let span = [field(11, b"\xff"), field(13, &field(4, b"\xff"))].concat();
    let request = request_of_span(&span);
    assert!(ExportTraceServiceRequest::decode(&request[..]).is_err(), "prost reads both");
    assert_eq!(problem_of(&request), None);
}

#[test]
fn broken_bytes_are_refused_with_what_was_expected() {
    for (request, expected) in [
        (&b"\x0a"[..], Some(Problem::Truncated)),
        (b"\x0a\x01", Some(Problem::Truncated)),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", Some(Problem::Truncated)),
        (b"\x0a\x02\x0a\x01", Some(Problem::Truncated)),
        (b"\x80", Some(Problem::Truncated)),
        (b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02", Some(Problem::Varint)),
        (b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", Some(Problem::Varint)),
        (b"\x80\x80\x80\x80\x10\x00", Some(Problem::FieldNumber)),
        (b"\x00\x00", Some(Problem::FieldNumber)),
        (b"\x02\x00", Some(Problem::FieldNumber)),
        (b"\x08\x00", Some(Problem::UnexpectedWireType)),
        (b"\x0b\x0c", Some(Problem::UnexpectedWireType)),
        (b"\x16", Some(Problem::WireType)),
        (b"\x17", Some(Problem::WireType)),
        (b"\x14", Some(Problem::GroupEnd)),
        (b"\x13", Some(Problem::Truncated)),
        (b"\x13\x1c", Some(Problem::GroupEnd)),
        (b"\x13\x1b\x14\x1c", Some(Problem::GroupEnd)),
        (b"\x11\0\0\0\0\0\0\0", Some(Problem::Truncated)),
        (b"\x15\0\0\0", Some(Problem::Truncated)),
        // And what is odd, but well formed.
        (b"\x10\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", None),
        (b"\x10\x80\x00", None),
        (b"\x8a\x80\x00\x80\x00", None),
        (b"\x13\x14", None),
        (b"\x13\x08\x01\x1b\x1c\x0a\x01a\x14", None),
        (b"\x11\0\0\0\0\0\0\0\0\x15\0\0\0\0\x12\x01a", None),
        (b"\xf8\xff\xff\xff\x0f\x01", None),
    ] {
        assert_eq!(problem_of(request), expected, "{request:02x?}");
    }
}

#[test]
fn a_known_field_of_every_message_must_have_its_wire_type() {
    fn check(shape: Shape, wrap: &dyn Fn(&[u8]) -> Vec<u8>, depth: u32) {
        for &(number, payload) in shape {
            for wire_type in [0_u8, 1, 2, 3, 5] {
                let mut message = Vec::new();
                prost::encoding::encode_varint(u64::from(number << 3) | u64::from(wire_type), &mut message);
                // Reads as a varint, as a length, and as fixed bytes.
                message.extend_from_slice(match wire_type {
                    0 | 2 => &[0][..],
                    1 => &[0; 8],
                    5 => &[0; 4],
                    _ => &[],
                });
                let right = match payload {
                    Payload::Varint => 0,
                    Payload::Fixed64 => 1,
                    Payload::Fixed32 => 5,
                    Payload::Bytes | Payload::Message(_) => 2,
                };
                let expected = (wire_type != right).then_some(Problem::UnexpectedWireType);
                assert_eq!(problem_of(&wrap(&message)), expected, "field {number} wire type {wire_type}");
            }
            if let Payload::Message(inner) = payload
                && depth < 8
            {
                check(inner, &|message| wrap(&field(number, message)), depth + 1);
            }
        }
    }
    check(REQUEST, &<[u8]>::to_vec, 0);
}

#[test]
fn an_error_tells_the_byte_where_reading_stopped() {
    let request = request_of_span(&[field(5, b"name"), b"\x08\x01".to_vec()].concat());
    assert_eq!(request.len(), 14);
    let error = walk_wire(&request).expect_err("field 1 of a span is not a number");
    let expected = "decoding OTLP protobuf at byte 13: expected another wire type for this field";
    assert_eq!(error.to_string(), expected);
    let followed = [request.clone(), request].concat();
    assert_eq!(walk_wire(&followed), Err(error), "wherever the broken message ends");
}

#[test]
fn a_reserved_field_is_an_unknown_field() {
    for status in [&b"\x08\x01\x18\x02"[..], b"\x0a\x01a\x18\x02", b"\x0d\0\0\0\0\x18\x02"] {
        let request = request_of_span(&field(15, status));
        assert_eq!(problem_of(&request), None);
        assert_eq!(only_span(walk_wire(&request)).status, 2);
    }
}

#[test]
fn every_truncation_is_judged_as_prost_does() {
    let attribute = KeyValue {
        key: "order.id".to_owned(),
        value: Some(AnyValue { value: Some(any_value::Value::StringValue("x".repeat(200))) }),
        key_strindex: 0,
    };
    let span = Span {
        trace_id: vec![1; 16],
        attributes: vec![attribute.clone(), attribute],
        links: vec![span::Link { flags: 3, ..span::Link::default() }],
        status: Some(Status { message: "failed".to_owned(), code: 2 }),
        flags: 1,
        ..Span::default()
    };
    let request = request_of_span(&span.encode_to_vec());
    for length in 0..request.len() {
        check_wire(&request[..length]);
    }
}

#[test]
fn nesting_is_limited_where_prost_limits_it() {
    /// Wraps an `AnyValue` in an array, and in a list of pairs.
    fn in_array(value: &[u8]) -> Vec<u8> {
        field(5, &field(1, value))
    }
    fn in_pairs(value: &[u8]) -> Vec<u8> {
        field(6, &field(1, &field(2, value)))
    }
    let nested = |levels: usize, wrap: fn(&[u8]) -> Vec<u8>, core: &[u8]| {
        (0..levels).fold(core.to_vec(), |value, _| wrap(&value))
    };
    let of_span = |value: &[u8]| request_of_span(&field(9, &field(2, value)));
    let of_resource = |value: &[u8]| field(1, &field(1, &field(1, &field(2, value))));
    let of_scope = |value: &[u8]| field(1, &field(2, &field(1, &field(3, &field(2, value)))));
    let too_deep = Some(Problem::TooDeep);
    // The value of a span's or a scope's attribute is at depth 5, of a resource's at 4. An array adds 2, a
    // list of pairs 3; an unknown field counts like a message.
    for (depth, request, expected) in [
        (99, of_span(&nested(47, in_array, b"\x18\x01")), None),
        (100, of_span(&nested(47, in_array, b"\x2a\x00")), None),
        (101, of_span(&nested(48, in_array, b"\x18\x01")), too_deep),
        (99, of_scope(&nested(47, in_array, b"\x18\x01")), None),
        (100, of_scope(&nested(47, in_array, b"\x2a\x00")), None),
        (101, of_scope(&nested(48, in_array, b"\x18\x01")), too_deep),
        (100, of_resource(&nested(48, in_array, b"\x18\x01")), None),
        (101, of_resource(&nested(48, in_array, b"\x2a\x00")), too_deep),
        (100, of_resource(&nested(32, in_pairs, b"\x18\x01")), None),
        (100, of_resource(&nested(32, in_pairs, b"")), None),
        (101, of_resource(&nested(32, in_pairs, b"\x32\x00")), too_deep),
        (101, of_span(&nested(31, in_pairs, &field(6, &field(1, b"\x0a\x01k\x12\x02\x18\x01")))), too_deep),
        (100, of_span(&nested(31, in_pairs, &field(6, &field(1, b"\x0a\x01k")))), None),
        (101, of_span(&nested(32, in_pairs, b"\x18\x01")), too_deep),
        (100, of_resource(&nested(48, in_array, b"\x98\x06\x01")), too_deep),
        (99, of_span(&nested(47, in_array, b"\x98\x06\x01")), None),
    ] {
        assert_eq!(problem_of(&request), expected, "depth {depth}");
        assert_eq!(ExportTraceServiceRequest::decode(&request[..]).is_ok(), expected.is_none(), "{depth}");
    }
    for (groups, expected) in [(99, None), (100, None), (101, too_deep), (100_000, too_deep)] {
        let request = [vec![0x13; groups], vec![0x14; groups]].concat();
        assert_eq!(problem_of(&request), expected, "{groups} groups");
    }
    let request = [vec![0x13; 100], vec![0x08, 0x01], vec![0x14; 100]].concat();
    assert_eq!(problem_of(&request), too_deep, "a field in 100 groups");
}

// JSON, case by case.

fn json_of_span(span: &str) -> String {
    format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{span}}}]}}]}}]}}"#)
}

fn json_span(span: &str) -> SeenSpan {
    only_span(walk_json(json_of_span(span)))
}

fn json_problem(body: &str) -> String {
    walk_json(body).expect_err(body).to_string()
}

/// The problem that `span` is refused for, without where it is.
fn json_span_problem(span: &str) -> String {
    let text = json_problem(&json_of_span(span));
    let (_, problem) = text.split_once("resourceSpans: scopeSpans: spans: ").expect(&text);
    problem.to_owned()
}

#[test]
fn a_sample_in_json_and_in_protobuf_gives_the_same_visits() {
    let attribute = |key: &str, value| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        key_strindex: 0,
    };
    let text = |text: &str| any_value::Value::StringValue(text.to_owned());
    let span = Span {
        trace_id: 0x5b8e_fff7_9803_8103_d269_b633_813f_c60c_u128.to_be_bytes().to_vec(),
        span_id: 0xeee1_9b7e_c3c1_b174_u64.to_be_bytes().to_vec(),
        parent_span_id: 0xeee1_9b7e_c3c1_b173_u64.to_be_bytes().to_vec(),
        name: "reserve stock".to_owned(),
        kind: 2,
        start_time_unix_nano: 1_700_000_000_123_456_789,
        end_time_unix_nano: 1_700_000_001_000_000_001,
        attributes: vec![attribute("order.id", text("A-17"))],
        status: Some(Status { message: String::new(), code: 1 }),
        ..Span::default()
    };
    let scope = InstrumentationScope {
        name: "stock".to_owned(),
        version: "2.1.0".to_owned(),
        attributes: vec![attribute("scope.owner", text("logistics"))],
        dropped_attributes_count: 0,
    };
    let scope_spans = ScopeSpans { scope: Some(scope), spans: vec![span], schema_url: String::new() };
    let attributes = vec![attribute("service.name", text("warehouse"))];
    let resource = Some(Resource { attributes, ..Resource::default() });
    let resource_spans =
        vec![ResourceSpans { resource, scope_spans: vec![scope_spans], schema_url: String::new() }];
    let request = ExportTraceServiceRequest { resource_spans };
    let seen = walk_json(SAMPLE);
    assert_eq!(seen, walk_wire(&request.encode_to_vec()));
    assert_eq!(seen, Ok(expected(&request)));
}

const SAMPLE: &str = r#"{
  "resourceSpans": [
    {
      "resource": {
        "attributes": [{"key": "service.name", "value": {"stringValue": "warehouse"}}]
      },
      "scopeSpans": [
        {
          "scope": {
            "name": "stock",
            "version": "2.1.0",
            "attributes": [{"key": "scope.owner", "value": {"stringValue": "logistics"}}]
          },
          "spans": [
            {
              "traceId": "5B8EFFF798038103D269B633813FC60C",
              "spanId": "EEE19B7EC3C1B174",
              "parentSpanId": "EEE19B7EC3C1B173",
              "name": "reserve stock",
              "startTimeUnixNano": "1700000000123456789",
              "endTimeUnixNano": "1700000001000000001",
              "kind": 2,
              "attributes": [{"key": "order.id", "value": {"stringValue": "A-17"}}],
              "status": {"code": 1}
            }
          ]
        }
      ]
    }
  ]
}"#;

#[test]
fn ids_are_hexadecimal_in_any_case() {
    for id in ["0aFb", "0AFB", "0afb"] {
        assert_eq!(json_span(&format!(r#""traceId":"{id}""#)).ids[0], [0x0a, 0xfb]);
        assert_eq!(json_span(&format!(r#""spanId":"{id}""#)).ids[1], [0x0a, 0xfb]);
        assert_eq!(json_span(&format!(r#""parentSpanId":"{id}""#)).ids[2], [0x0a, 0xfb]);
        let link = json_span(&format!(r#""links":[{{"traceId":"{id}","spanId":"{id}"}}]"#));
        assert_eq!(link.links, [(vec![0x0a, 0xfb], vec![0x0a, 0xfb])]);
    }
    assert_eq!(json_span(r#""traceId":"""#).ids[0], Vec::<u8>::new());
}

#[test]
fn an_id_that_nobody_can_read_spoils_its_span_only() {
    let too_long = "0".repeat(34);
    for id in ["W47/95gDgQPSabYzgT/GDA==", "abc", "0g", "+1", "é", "\\ud800a", too_long.as_str()] {
        let span = json_span(&format!(r#""traceId":"{id}","parentSpanId":"{id}","name":"kept""#));
        assert_eq!(span.ids, [UNREADABLE_ID, &[], UNREADABLE_ID], "{id}");
        assert_eq!(span.texts[1], "kept");
    }
    // 24 characters of base64 may happen to be hexadecimal; 12 bytes are no trace id either.
    assert_eq!(json_span(r#""traceId":"abcdefabcdefabcdefabcdef""#).ids[0].len(), 12);
}

#[test]
fn only_lower_camel_case_keys_are_known() {
    assert_eq!(walk_json(r#"{"resource_spans":[{"scope_spans":5}]}"#), Ok(vec![]));
    let span = json_span(r#""trace_id":"00","start_time_unix_nano":7,"StartTimeUnixNano":7,"Name":"x""#);
    assert_eq!(span, SeenSpan::default());
}

#[test]
fn unknown_keys_are_ignored_at_any_depth() {
    let deep = format!("{}1{}", "[{\"a\":".repeat(100_000), "}]".repeat(100_000));
    for odd in ["1", "null", "\"\\ud800\"", "{\"a\":[{}]}", "-1e999", deep.as_str()] {
        let body = format!(
            r#"{{"x":{odd},"resourceSpans":[{{"x":{odd},"resource":{{"x":{odd},"attributes":[{{"x":{odd},"key":
            "k","value":{{"x":{odd},"intValue":1}}}}]}},"scopeSpans":[{{"x":{odd},"scope":{{"x":{odd}}},"spans":
            [{{"x":{odd},"events":{odd},"links":[{{"x":{odd}}}],"status":{{"x":{odd},"\ud800":{odd}}}}}]}}]}}]}}"#
        );
        let seen = walk_json(&body).expect("unknown keys are ignored");
        assert_eq!(seen[0].attributes, [("k".to_owned(), SeenValue::Int(1))]);
        assert_eq!(seen[0].scopes[0].spans[0].links.len(), 1);
    }
}

#[test]
fn enums_are_numbers_and_unknown_numbers_are_kept() {
    for (kind, expected) in [("3", 3), ("99", 99), ("-1", -1), ("2147483647", i32::MAX), ("2.0", 2)] {
        let span = json_span(&format!(r#""kind":{kind},"status":{{"code":{kind}}}"#));
        assert_eq!((span.kind, span.status), (expected, expected));
    }
    let expected =
        r#"kind: invalid type: string "SPAN_KIND_SERVER", expected the number of an enum, not its name"#;
    assert_eq!(json_span_problem(r#""kind":"SPAN_KIND_SERVER""#), expected);
    for span in
        [r#""status":{"code":"STATUS_CODE_ERROR"}"#, r#""kind":"2""#, r#""kind":1.5"#, r#""kind":4e9"#]
    {
        let problem = json_span_problem(span);
        assert!(problem.ends_with("expected the number of an enum, not its name"), "{problem}");
    }
}

#[test]
fn integers_are_numbers_or_decimal_text() {
    for (written, expected) in [
        ("0", 0),
        ("1544712660300000000", 1_544_712_660_300_000_000),
        ("18446744073709551615", u64::MAX),
        ("1e9", 1_000_000_000),
        ("1E+9", 1_000_000_000),
        ("1.0", 1),
        ("12.5e1", 125),
        ("-0", 0),
        ("1.7e18", 1_700_000_000_000_000_000),
    ] {
        for written in [written.to_owned(), format!("\"{written}\"")] {
            let span = json_span(&format!(r#""startTimeUnixNano":{written},"endTimeUnixNano":{written}"#));
            assert_eq!((span.start, span.end), (expected, expected), "{written}");
        }
    }
    for wrong in ["-1", "1.5", "18446744073709551616", "1e20", "1e400", "true", "{}", "[]"] {
        json_span_problem(&format!(r#""startTimeUnixNano":{wrong}"#));
    }
    for wrong in ["", " 1", "1 ", "+1", "-1", "0x10", "1e", "1.5", "1e20", "1e400", "inf", "NaN", "1_0", "٣"]
    {
        let problem = json_span_problem(&format!(r#""startTimeUnixNano":"{wrong}""#));
        let expected =
            "startTimeUnixNano: expected an integer in the range of u64, as a number or decimal text";
        assert_eq!(problem, expected, "{wrong}");
    }
    assert_eq!(json_span(r#""flags":257"#).flags, 257);
    assert_eq!(json_span(r#""flags":"4294967295""#).flags, u32::MAX);
    json_span_problem(r#""flags":4294967296"#);
}

#[test]
fn attribute_values_are_read_as_proto3_json_writes_them() {
    let bytes = |bytes: &[u8]| SeenValue::Bytes(bytes.to_vec());
    let double = |double: f64| SeenValue::Double(double.to_bits());
    for (value, expected) in [
        (r#"{"stringValue":"a\"\u00e9"}"#, SeenValue::Str("a\"é".to_owned())),
        (r#"{"stringValue":"a\ud800b"}"#, SeenValue::Str("a\u{fffd}\u{fffd}\u{fffd}b".to_owned())),
        (r#"{"boolValue":true}"#, SeenValue::Bool(true)),
        (r#"{"intValue":"-9223372036854775808"}"#, SeenValue::Int(i64::MIN)),
        (r#"{"intValue":9223372036854775807}"#, SeenValue::Int(i64::MAX)),
        (r#"{"intValue":-1.0e3}"#, SeenValue::Int(-1000)),
        (r#"{"doubleValue":1}"#, double(1.0)),
        (r#"{"doubleValue":-2}"#, double(-2.0)),
        (r#"{"doubleValue":0.1}"#, double(0.1)),
        (r#"{"doubleValue":"1.5e3"}"#, double(1500.0)),
        (r#"{"doubleValue":"NaN"}"#, double(f64::NAN)),
        (r#"{"doubleValue":"Infinity"}"#, double(f64::INFINITY)),
        (r#"{"doubleValue":"-Infinity"}"#, double(f64::NEG_INFINITY)),
        (r#"{"bytesValue":""}"#, bytes(b"")),
        (r#"{"bytesValue":"+/8="}"#, bytes(&[0xfb, 0xff])),
        (r#"{"bytesValue":"+/8"}"#, bytes(&[0xfb, 0xff])),
        (r#"{"bytesValue":"-_8"}"#, bytes(&[0xfb, 0xff])),
        (r#"{"bytesValue":"AA=="}"#, bytes(&[0])),
        (r#"{"bytesValue":"AAEC"}"#, bytes(&[0, 1, 2])),
        (r#"{"arrayValue":{}}"#, SeenValue::Other),
        (r#"{"arrayValue":{"values":null}}"#, SeenValue::Other),
        (r#"{"arrayValue":{"values":[{"intValue":1},null,{}]}}"#, SeenValue::Other),
        (r#"{"kvlistValue":{"values":[{"key":"k","value":{"arrayValue":{}}}]}}"#, SeenValue::Other),
        ("{}", SeenValue::Other),
        ("null", SeenValue::Other),
        (r#"{"stringValue":null}"#, SeenValue::Other),
        (r#"{"intValue":1,"stringValue":"last"}"#, SeenValue::Str("last".to_owned())),
        (r#"{"intValue":1,"stringValue":null}"#, SeenValue::Int(1)),
    ] {
        let span = json_span(&format!(r#""attributes":[{{"key":"k","value":{value}}}]"#));
        assert_eq!(span.attributes, [("k".to_owned(), expected)], "{value}");
    }
}

#[test]
fn attribute_values_of_the_wrong_kind_are_refused_by_key() {
    for (value, expected) in [
        (r#"{"stringValue":1}"#, "stringValue: invalid type: integer `1`, expected a string"),
        (r#"{"boolValue":"true"}"#, r#"boolValue: invalid type: string "true", expected a boolean"#),
        (
            r#"{"intValue":"x"}"#,
            "intValue: expected an integer in the range of i64, as a number or decimal text",
        ),
        (
            r#"{"intValue":9223372036854775808}"#,
            "intValue: expected an integer in the range of i64, as a number or decimal text",
        ),
        (
            r#"{"doubleValue":"inf"}"#,
            r#"doubleValue: expected a number, decimal text, "NaN", "Infinity" or "-Infinity""#,
        ),
        (
            r#"{"doubleValue":""}"#,
            r#"doubleValue: expected a number, decimal text, "NaN", "Infinity" or "-Infinity""#,
        ),
        (r#"{"bytesValue":"A"}"#, "bytesValue: expected base64"),
        (r#"{"bytesValue":"AAA*"}"#, "bytesValue: expected base64"),
        (r#"{"bytesValue":"AA="}"#, "bytesValue: expected base64"),
        (r#"{"bytesValue":"A==="}"#, "bytesValue: expected base64"),
        (r#"{"arrayValue":[]}"#, "arrayValue: invalid type: sequence, expected an object"),
        (r#"{"arrayValue":{"values":{}}}"#, "arrayValue: values: invalid type: map, expected an array"),
        ("5", "invalid type: integer `5`, expected an object"),
    ] {
        let problem = json_span_problem(&format!(r#""attributes":[{{"key":"k","value":{value}}}]"#));
        assert_eq!(problem, format!("attributes: value: {expected}"), "{value}");
    }
}

#[test]
fn null_is_the_default_of_whatever_it_stands_for() {
    assert_eq!(walk_json(r#"{"resourceSpans":null}"#), Ok(vec![]));
    assert_eq!(walk_json(r#"{"resourceSpans":[null]}"#), Ok(vec![SeenResource::default()]));
    let empty = r#"{"resourceSpans":[{"resource":null,"scopeSpans":null,"schemaUrl":null}]}"#;
    assert_eq!(walk_json(empty), Ok(vec![SeenResource::default()]));
    let scope = r#"{"resourceSpans":[{"resource":{"attributes":null},"scopeSpans":[null,{"scope":null,"spans":null},
        {"scope":{"name":null,"version":null,"attributes":null}}]}]}"#;
    assert_eq!(walk_json(scope).expect("all is default")[0].scopes, vec![SeenScope::default(); 3]);
    let span = r#""traceId":null,"spanId":null,"parentSpanId":null,"traceState":null,"name":null,"kind":null,"flags":
        null,"startTimeUnixNano":null,"endTimeUnixNano":null,"attributes":null,"events":null,"links":null,"status":null"#;
    assert_eq!(json_span(span), SeenSpan::default());
    assert_eq!(json_span(r#""status":{"code":null,"message":null}"#), SeenSpan::default());
    let one_null = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[null]}]}]}"#;
    assert_eq!(only_span(walk_json(one_null)), SeenSpan::default(), "a bad span, which is counted, not lost");
    let span = json_span(r#""attributes":[null,{"key":null,"value":null}],"links":[null]"#);
    assert_eq!(span.attributes, vec![(String::new(), SeenValue::Other); 2]);
    assert_eq!(span.links, [(vec![], vec![])]);
}

#[test]
fn an_empty_object_is_an_empty_request() {
    assert_eq!(walk_json("{}"), Ok(vec![]));
    assert_eq!(walk_json(" {\n} \n"), Ok(vec![]));
    assert_eq!(walk_json(r#"{"resourceSpans":[{}]}"#), Ok(vec![SeenResource::default()]));
}

#[test]
fn what_is_not_one_json_object_is_refused() {
    for body in
        ["", " ", "null", "[]", "5", "\"{}\"", "{} {}", "{}x", "{}]", "\u{feff}{}", "{", "{\"a\"}", "{,}"]
    {
        json_problem(body);
    }
    let error = walk_json(b"{\"a\":\n \"\xff\"}").expect_err("not UTF-8");
    assert_eq!(error.to_string(), "decoding OTLP JSON at line 2 column 3: expected UTF-8");
}

#[test]
fn a_key_that_comes_twice_is_refused() {
    assert_eq!(
        json_span_problem(r#""name":"a","kind":1,"name":"a""#),
        "name: expected this key once in an object"
    );
    for body in [
        r#"{"resourceSpans":[],"resourceSpans":[]}"#,
        r#"{"resourceSpans":[{"resource":null,"resource":null}]}"#,
        r#"{"resourceSpans":[{"resource":{"attributes":[],"attributes":[]}}]}"#,
    ] {
        assert!(json_problem(body).ends_with(": expected this key once in an object"), "{body}");
    }
    assert_eq!(walk_json(r#"{"unknown":1,"unknown":2}"#), Ok(vec![]), "an ignored key is ignored twice");
}

#[test]
fn a_json_error_tells_line_and_column_and_the_keys_on_the_way() {
    let wrong_kind = SAMPLE.replace("\"kind\": 2", "\"kind\": true");
    let line = 1 + wrong_kind.lines().position(|line| line.contains("kind")).expect("the line is there");
    let expected = format!(
        "decoding OTLP JSON at line {line} column 26: resourceSpans: scopeSpans: spans: kind: \
         invalid type: boolean `true`, expected the number of an enum, not its name"
    );
    assert_eq!(json_problem(&wrong_kind), expected);
    let one_line = wrong_kind.replace('\n', "");
    let column = one_line.find("true").expect("the value is there") + 4;
    assert_eq!(
        json_problem(&one_line),
        expected.replace(&format!("line {line} column 26"), &format!("line 1 column {column}"))
    );
    let resource = SAMPLE.replace("\"warehouse\"", "5");
    let line = resource.lines().nth(4).expect("the attribute is on the fifth line");
    let column = line.find("5}").expect("the value is there") + 1;
    let expected = format!(
        "decoding OTLP JSON at line 5 column {column}: resourceSpans: resource: attributes: value: \
         stringValue: invalid type: integer `5`, expected a string"
    );
    assert_eq!(json_problem(&resource), expected);
}

#[test]
fn a_json_error_stays_short_however_long_the_value() {
    let problem = json_problem(&json_of_span(&format!(r#""kind":"{}""#, "é".repeat(100_000))));
    assert!(problem.len() < 500, "{} bytes", problem.len());
    let problem = json_problem(&json_of_span(r#""kind":"x at line 9 column 9""#));
    assert!(problem.starts_with("decoding OTLP JSON at line 1 column "), "{problem}");
    assert!(problem.contains(r#""x at line 9 column 9""#), "{problem}");
}

#[test]
fn nesting_in_json_is_limited() {
    let nested = |levels: usize| {
        let (open, close) = (r#"{"arrayValue":{"values":["#, "]}}");
        let value = format!("{}{{}}{}", open.repeat(levels), close.repeat(levels));
        json_of_span(&format!(r#""attributes":[{{"key":"k","value":{value}}}]"#))
    };
    assert_eq!(only_span(walk_json(nested(40))).attributes, [("k".to_owned(), SeenValue::Other)]);
    for levels in [48, 100, 100_000] {
        assert!(json_problem(&nested(levels)).contains("recursion limit exceeded"), "{levels} levels");
    }
}
