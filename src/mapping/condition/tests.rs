//! Tables of what expressions mean.

use super::*;

mod mistakes;
mod properties;

/// The value of a path in the span that all tables are evaluated for; what is not listed is nil.
fn sample(path: &Path) -> Option<Value<'static>> {
    let attribute = match path {
        Path::ResourceAttribute(key) => format!("resource {key}"),
        Path::SpanAttribute(key) => key.to_string(),
        Path::ScopeName => return Some(Value::Str("tracer")),
        Path::ScopeVersion => return Some(Value::Str("1.2")),
        Path::SpanName => return Some(Value::Str("POST /orders")),
        Path::SpanKind => return Some(Value::Int(2)),
        Path::StatusCode => return Some(Value::Int(2)),
        Path::StatusMessage => return Some(Value::Str("")),
    };
    match attribute.as_str() {
        "resource service.name" => Some(Value::Str("gateway")),
        "text" => Some(Value::Str("abc")),
        "digits" => Some(Value::Str("42")),
        "odd \"key\"\\" => Some(Value::Str("odd")),
        "yes" => Some(Value::Bool(true)),
        "no" => Some(Value::Bool(false)),
        "int" => Some(Value::Int(42)),
        "double" => Some(Value::Double(42.0)),
        "half" => Some(Value::Double(0.5)),
        "nan" => Some(Value::Double(f64::NAN)),
        "bytes" => Some(Value::Bytes(&[0x01, 0xab])),
        "list" => Some(Value::Other),
        _ => None,
    }
}

fn sample_values(table: &PathTable) -> Vec<Option<Value<'static>>> {
    table.paths().iter().map(sample).collect()
}

/// Every condition of the table holds, or does not, for the sample span, which is no root span.
fn check(cases: &[(&str, bool)]) {
    for (text, expected) in cases {
        let mut table = PathTable::default();
        let condition = Condition::parse(text, &mut table).unwrap_or_else(|error| panic!("{text}: {error}"));
        let values = sample_values(&table);
        let slots = Slots { values: &values, is_root_span: false, lasting: None };
        assert_eq!(condition.holds(&slots), *expected, "{text}");
    }
}

#[test]
fn every_path_is_read_with_and_without_its_context() {
    check(&[
        (r#"resource.attributes["service.name"] == "gateway""#, true),
        (r#"instrumentation_scope.name == "tracer""#, true),
        (r#"instrumentation_scope.version == "1.2""#, true),
        (r#"scope.name == "tracer""#, true),
        (r#"scope.version == "1.2""#, true),
        (r#"span.attributes["text"] == "abc""#, true),
        (r#"attributes["text"] == "abc""#, true),
        (r#"attributes["odd \"key\"\\"] == "odd""#, true),
        (r#"span.name == "POST /orders""#, true),
        (r#"name == "POST /orders""#, true),
        (r#"span.kind == 2"#, true),
        (r#"kind == 2"#, true),
        (r#"span.status.code == 2"#, true),
        (r#"status.code == 2"#, true),
        (r#"span.status.message == """#, true),
        (r#"status.message == """#, true),
        (" span . attributes [ \"text\" ]\n==\t\"abc\" ", true),
    ]);
}

#[test]
fn a_missing_attribute_is_nil() {
    check(&[
        (r#"attributes["gone"] == "abc""#, false),
        (r#"attributes["gone"] != "abc""#, true),
        (r#"attributes["gone"] < "abc""#, false),
        (r#"attributes["gone"] <= "abc""#, false),
        (r#"attributes["gone"] > "abc""#, false),
        (r#"attributes["gone"] >= "abc""#, false),
        (r#"not attributes["gone"] >= "abc""#, true),
        (r#"attributes["gone"] == false"#, false),
        (r#"attributes["gone"] == 0"#, false),
        (r#"attributes["gone"] == nil"#, true),
        (r#"nil == attributes["gone"]"#, true),
        (r#"attributes["gone"] != nil"#, false),
        (r#"attributes["gone"] < nil"#, false),
        (r#"attributes["text"] == nil"#, false),
        (r#"attributes["text"] != nil"#, true),
        (r#"attributes["gone"] == attributes["lost"]"#, true),
        (r#"attributes["gone"] == attributes["text"]"#, false),
        (r#"span.name == nil"#, false),
        (r#"span.name != nil"#, true),
        // As OTTL has it: nil equals nil, so it is also not more than it.
        (r#"attributes["gone"] <= nil"#, true),
        (r#"attributes["gone"] >= attributes["lost"]"#, true),
    ]);
}

#[test]
fn numbers_compare_across_integers_and_floats() {
    check(&[
        (r#"attributes["int"] == 42"#, true),
        (r#"attributes["int"] == 42.0"#, true),
        (r#"attributes["int"] != 42.0"#, false),
        (r#"attributes["int"] < 42.5"#, true),
        (r#"attributes["int"] >= +42"#, true),
        (r#"attributes["double"] == 42"#, true),
        (r#"attributes["double"] > -1"#, true),
        (r#"attributes["double"] > 42"#, false),
        (r#"attributes["int"] == attributes["double"]"#, true),
        (r#"attributes["half"] == .5"#, true),
        (r#"attributes["half"] > -.5"#, true),
        (r#"attributes["half"] == 5.0e-1"#, true),
        (r#"attributes["half"] == 0.05E+1"#, true),
        ("-9223372036854775808 < 9223372036854775807", true),
        (r#"attributes["nan"] == attributes["nan"]"#, false),
        (r#"attributes["nan"] != attributes["nan"]"#, true),
        (r#"attributes["nan"] <= 1"#, false),
        (r#"attributes["nan"] >= 1"#, false),
    ]);
}

#[test]
fn values_of_different_types_are_unequal_and_have_no_order() {
    check(&[
        (r#"attributes["int"] == "42""#, false),
        (r#"attributes["int"] != "42""#, true),
        (r#"attributes["int"] <= "42""#, false),
        (r#"attributes["digits"] == 42"#, false),
        (r#"attributes["digits"] >= 42"#, false),
        (r#"attributes["yes"] == 1"#, false),
        (r#"attributes["yes"] != "true""#, true),
        (r#"attributes["bytes"] == "\x01""#, false),
        (r#"attributes["bytes"] != 427"#, true),
    ]);
}

#[test]
fn strings_booleans_and_bytes_are_equal_and_ordered_among_themselves() {
    check(&[
        (r#"attributes["text"] < "abd""#, true),
        (r#"attributes["text"] <= "abc""#, true),
        (r#"attributes["text"] > "ABC""#, true),
        (r#"attributes["text"] > "abcd""#, false),
        (r#"attributes["yes"] == true"#, true),
        (r#"attributes["no"] == false"#, true),
        (r#"attributes["no"] < attributes["yes"]"#, true),
        (r#"attributes["yes"] <= true"#, true),
        (r#"attributes["yes"] > true"#, false),
        (r#"attributes["bytes"] == 0x01ab"#, true),
        (r#"attributes["bytes"] == 0x01AB"#, true),
        (r#"attributes["bytes"] < 0x01ac"#, true),
        (r#"attributes["bytes"] > 0x01"#, true),
        ("true == true", true),
        (r#""a" == "b""#, false),
    ]);
}

#[test]
fn an_array_or_map_is_present_and_otherwise_incomparable() {
    check(&[
        (r#"attributes["list"] != nil"#, true),
        (r#"attributes["list"] == nil"#, false),
        (r#"attributes["list"] == """#, false),
        (r#"attributes["list"] != """#, true),
        (r#"attributes["list"] == attributes["list"]"#, false),
        (r#"attributes["list"] >= 0"#, false),
        (r#"IsMatch(attributes["list"], ".*")"#, false),
    ]);
}

#[test]
fn enum_names_are_the_numbers_of_the_schema() {
    check(&[
        ("span.kind == SPAN_KIND_SERVER", true),
        ("SPAN_KIND_SERVER == span.kind", true),
        ("span.kind == SPAN_KIND_CONSUMER", false),
        ("span.kind > SPAN_KIND_INTERNAL", true),
        ("span.status.code == STATUS_CODE_ERROR", true),
        ("span.status.code != STATUS_CODE_OK", true),
        ("SPAN_KIND_UNSPECIFIED == 0 and SPAN_KIND_INTERNAL == 1 and SPAN_KIND_SERVER == 2", true),
        ("SPAN_KIND_CLIENT == 3 and SPAN_KIND_PRODUCER == 4 and SPAN_KIND_CONSUMER == 5", true),
        ("STATUS_CODE_UNSET == 0 and STATUS_CODE_OK == 1 and STATUS_CODE_ERROR == 2", true),
        (r#"attributes["int"] == STATUS_CODE_OK"#, false),
    ]);
}

#[test]
fn not_binds_tighter_than_and_which_binds_tighter_than_or() {
    check(&[
        ("true or false and false", true),
        ("(true or false) and false", false),
        ("false and false or true", true),
        ("false and (false or true)", false),
        ("not true or true", true),
        ("not (true or true)", false),
        ("not false and false", false),
        ("not not true", true),
        ("not span.kind == 2 or span.kind == 2", true),
        ("not(span.kind == 2)", false),
        ("((((true))))", true),
    ]);
}

#[test]
fn a_boolean_stands_alone() {
    check(&[
        ("true", true),
        ("false", false),
        (r#"attributes["yes"]"#, true),
        (r#"attributes["no"]"#, false),
        (r#"not attributes["no"] and attributes["yes"]"#, true),
        (r#"(attributes["gone"])"#, false),
        (r#"attributes["int"]"#, false),
        (r#"attributes["text"]"#, false),
    ]);
}

#[test]
fn is_match_searches_the_text_of_a_value() {
    check(&[
        (r#"IsMatch(span.name, "^POST ")"#, true),
        (r#"IsMatch(span.name, "orders")"#, true),
        (r#"IsMatch(span.name, "^orders$")"#, false),
        (r#"IsMatch(span.name, "(?i)post\\s+/ORDERS")"#, true),
        (r#"IsMatch(attributes["int"], "^42$")"#, true),
        (r#"IsMatch(attributes["double"], "^42$")"#, true),
        (r#"IsMatch(attributes["yes"], "^true$")"#, true),
        (r#"IsMatch(attributes["bytes"], "^01ab$")"#, true),
        (r#"IsMatch(attributes["gone"], ".*")"#, false),
        (r#"not IsMatch(attributes["gone"], ".*")"#, true),
        (r#"IsMatch(span.name, "x") == false"#, true),
        (r#"attributes["yes"] == IsMatch ( span.name , "POST" )"#, true),
    ]);
}

#[test]
fn strings_have_the_escapes_of_go() {
    for (literal, expected) in [
        (r#""""#, ""),
        (r#""a\"b\\c""#, "a\"b\\c"),
        (r#""\a\b\f\n\r\t\v""#, "\x07\x08\x0c\n\r\t\x0b"),
        (r#""\x41\101\u0041\U0001F600""#, "AAA\u{1F600}"),
        (r#""\xc3\xa9 é""#, "é é"),
        (r#""it's""#, "it's"),
    ] {
        let value = ValueExpression::parse(literal, &mut PathTable::default()).expect(literal);
        let slots = Slots { values: &[], is_root_span: false, lasting: None };
        assert_eq!(value.value(&slots), Some(Value::Str(expected)), "{literal}");
    }
}

#[test]
fn is_root_span_asks_the_span() {
    let condition = Condition::parse("IsRootSpan()", &mut PathTable::default()).unwrap();
    assert!(condition.holds(&Slots { values: &[], is_root_span: true, lasting: None }));
    assert!(!condition.holds(&Slots { values: &[], is_root_span: false, lasting: None }));
}

#[test]
fn a_path_has_one_slot_for_all_expressions_of_a_table() {
    let mut table = PathTable::default();
    let first =
        Condition::parse(r#"name == "a" or attributes["x"] == 1 or span.name == "b""#, &mut table).unwrap();
    let second = ValueExpression::parse(r#"span.attributes["x"]"#, &mut table).unwrap();
    Condition::parse(r#"kind == 1 and resource.attributes["x"] == 1 and"#, &mut table).unwrap_err();
    Condition::parse(r#"resource.attributes["x"] == attributes["x"]"#, &mut table).unwrap();

    let spelled: Vec<String> = table.paths().iter().map(Path::to_string).collect();
    assert_eq!(spelled, ["span.name", r#"span.attributes["x"]"#, r#"resource.attributes["x"]"#]);
    assert_eq!(table.slot(Path::SpanAttribute("x".into())).index(), 1);
    // Expressions parsed earlier work with values for more paths than they know, and with too few.
    let values = [None, Some(Value::Int(1)), None];
    assert!(first.holds(&Slots { values: &values, is_root_span: false, lasting: None }));
    assert!(!first.holds(&Slots { values: &[], is_root_span: false, lasting: None }));
    assert_eq!(
        second.value(&Slots { values: &values, is_root_span: false, lasting: None }),
        Some(Value::Int(1))
    );
    assert_eq!(second.value(&Slots { values: &[], is_root_span: false, lasting: None }), None);
}

#[test]
fn only_paths_of_the_resource_make_an_expression_the_same_for_all_its_spans() {
    for (text, expected) in [
        (r#"resource.attributes["a"] == "b" and not IsMatch(resource.attributes["c"], "d")"#, true),
        ("true", true),
        (r#"resource.attributes["a"] == "b" or span.kind == 1"#, false),
        (r#"resource.attributes["a"] == "b" or IsMatch(span.name, "x")"#, false),
        (r#"resource.attributes["a"] == "b" and IsRootSpan()"#, false),
        (r#"scope.name == "b""#, false),
        (r#"attributes["a"]"#, false),
    ] {
        let condition = Condition::parse(text, &mut PathTable::default()).expect(text);
        assert_eq!(condition.reads_only_resource(), expected, "{text}");
    }
    for (text, expected) in [(r#"resource.attributes["a"]"#, true), (r#""a""#, true), ("span.name", false)] {
        let value = ValueExpression::parse(text, &mut PathTable::default()).expect(text);
        assert_eq!(value.reads_only_resource(), expected, "{text}");
    }
}

#[test]
fn expressions_are_equal_when_their_texts_are() {
    let mut table = PathTable::default();
    let mut condition = |text: &str| Condition::parse(text, &mut table).unwrap();
    assert_eq!(condition("true"), condition("true"));
    assert_ne!(condition("true"), condition("(true)"));
    assert_eq!(condition(" true").source(), " true");
    let mut value = |text: &str| ValueExpression::parse(text, &mut table).unwrap();
    assert_eq!(value("name"), value("name"));
    assert_ne!(value("name"), value("span.name"));
    assert_eq!(value("name").source(), "name");
}

#[test]
fn a_value_expression_is_a_path_or_a_string() {
    for (text, expected) in [
        (r#"resource.attributes["service.name"]"#, Some(Value::Str("gateway"))),
        (r#"attributes["int"]"#, Some(Value::Int(42))),
        (r#"attributes["list"]"#, Some(Value::Other)),
        (r#"attributes["gone"]"#, None),
        ("span.kind", Some(Value::Int(2))),
        (r#""checkout""#, Some(Value::Str("checkout"))),
    ] {
        let mut table = PathTable::default();
        let expression = ValueExpression::parse(text, &mut table).expect(text);
        let values = sample_values(&table);
        assert_eq!(
            expression.value(&Slots { values: &values, is_root_span: false, lasting: None }),
            expected,
            "{text}"
        );
    }
    let paths = "one of resource.attributes[\"key\"], span.attributes[\"key\"], span.name, span.kind, span.status.code, \
        span.status.message, instrumentation_scope.name, instrumentation_scope.version";
    for (text, expected) in [
        ("", "column 1: found the end of the expression, expected a path or a string in double quotes"),
        ("42", r#"column 1: found "42", expected a path or a string in double quotes"#),
        (
            "'checkout'",
            "column 1: found 'checkout', expected a path or a string in double quotes (strings need double quotes)",
        ),
        (r#"span.name == "x""#, r#"column 11: found "==", expected the end of the expression"#),
        (r#""a" "b""#, r#"column 5: found "b", expected the end of the expression"#),
        (
            "true",
            &format!("column 1: found the path \"true\", expected {paths} (strings need double quotes)"),
        ),
        (
            "span.nmae",
            &format!(
                "column 6: found the path \"span.nmae\", expected {paths} (did you mean \"span.name\"?)"
            ),
        ),
        ("Checkout", r#"column 1: found "Checkout", expected a path or a string in double quotes"#),
    ] {
        let error = ValueExpression::parse(text, &mut PathTable::default()).expect_err(text);
        assert_eq!(error.to_string(), expected, "{text}");
    }
}

#[test]
fn the_text_of_a_value_is_that_of_ottl() {
    for (value, expected) in [
        (Value::Str("a b"), "a b"),
        (Value::Bool(true), "true"),
        (Value::Bool(false), "false"),
        (Value::Int(i64::MIN), "-9223372036854775808"),
        (Value::Double(1.0), "1"),
        (Value::Double(-0.25), "-0.25"),
        (Value::Double(0.0), "0"),
        (Value::Double(0.000_001), "0.000001"),
        (Value::Double(0.000_000_15), "1.5e-7"),
        (Value::Double(1e20), "100000000000000000000"),
        (Value::Double(1e21), "1e+21"),
        (Value::Double(-1.5e300), "-1.5e+300"),
        (Value::Double(f64::NAN), "NaN"),
        (Value::Double(f64::INFINITY), "+Inf"),
        (Value::Double(f64::NEG_INFINITY), "-Inf"),
        (Value::Bytes(&[0x00, 0xab, 0x1f]), "00ab1f"),
        (Value::Bytes(&[]), ""),
        (Value::Other, ""),
    ] {
        assert_eq!(text_of(value), expected, "{value:?}");
    }
}
