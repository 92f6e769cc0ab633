//! Tables of how mistakes are reported, and of the limits.

use super::super::*;

/// Every condition of the table is refused with that text, and leaves the path table as it was.
fn check_refused(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        let mut table = PathTable::default();
        let error = Condition::parse(text, &mut table).expect_err(text);
        assert_eq!(error.to_string(), *expected, "{text}");
        assert_eq!(table.paths(), [], "{text}");
    }
}

#[test]
fn symbols_of_other_languages_are_explained() {
    check_refused(&[
        (
            r#"span.name = "x""#,
            r#"column 11: found "=", expected one of == != < <= > >= (did you mean "=="?)"#,
        ),
        (
            r#"span.name === "x""#,
            r#"column 11: found "===", expected one of == != < <= > >= (did you mean "=="?)"#,
        ),
        (
            r#"span.name <> "x""#,
            r#"column 11: found "<>", expected one of == != < <= > >= (did you mean "!="?)"#,
        ),
        (
            r#"span.name =~ "x""#,
            r#"column 11: found "=~", expected one of == != < <= > >= (did you mean IsMatch(path, "regex")?)"#,
        ),
        (
            "span.kind == 1 && true",
            r#"column 16: found "&&", expected "and", "or" or the end of the expression (did you mean "and"?)"#,
        ),
        (
            "span.kind == 1 || true",
            r#"column 16: found "||", expected "and", "or" or the end of the expression (did you mean "or"?)"#,
        ),
        (
            "span.kind == 1 AND true",
            r#"column 16: found "AND", expected "and", "or" or the end of the expression (did you mean "and"?)"#,
        ),
        (
            r#"attributes["x"] && true"#,
            r#"column 17: found "&&", expected "and", "or" or one of == != < <= > >= (did you mean "and"?)"#,
        ),
        (
            "!IsRootSpan()",
            "column 1: found \"!\", expected a condition: \"not\", \"(\", a path, a literal, an enum, \
             IsMatch(...) or IsRootSpan() (did you mean \"not\"?)",
        ),
        (
            "span.name == 'x y'",
            "column 14: found 'x y', expected a path, a literal, an enum, IsMatch(...) or IsRootSpan() \
             (strings need double quotes)",
        ),
        (
            r#"attributes["a"] * 2 == 4"#,
            r#"column 17: found "*", expected "and", "or" or one of == != < <= > >= (arithmetic is not supported)"#,
        ),
        (
            "span.kind == 1 == true",
            "column 16: found \"==\", expected \"and\", \"or\" or the end of the expression \
             (comparisons cannot be chained)",
        ),
        (
            "span.name == §",
            "column 14: found \"§\", expected a path, a literal, an enum, IsMatch(...) or IsRootSpan()",
        ),
    ]);
}

#[test]
fn a_wrong_path_is_pointed_at_and_guessed() {
    let paths = "one of resource.attributes[\"key\"], span.attributes[\"key\"], span.name, span.kind, span.status.code, \
        span.status.message, instrumentation_scope.name, instrumentation_scope.version";
    for (text, column, found, hint) in [
        (r#"span.atributes["x"] == 1"#, 6, "span.atributes", r#" (did you mean "span.attributes"?)"#),
        (
            r#"resouce.attributes["x"] == 1"#,
            1,
            "resouce.attributes",
            r#" (did you mean "resource.attributes"?)"#,
        ),
        (r#"span.nmae == "x""#, 6, "span.nmae", r#" (did you mean "span.name"?)"#),
        (r#"span.status.kode == 1"#, 13, "span.status.kode", r#" (did you mean "span.status.code"?)"#),
        ("span.status.co == 1", 13, "span.status.co", r#" (did you mean "span.status.code"?)"#),
        (r#"span.status == 1"#, 1, "span.status", r#" (did you mean "span.status.code"?)"#),
        (r#"true and span.trace_id == 1"#, 15, "span.trace_id", ""),
        (
            r#"resource.attributes.service.name == "x""#,
            21,
            "resource.attributes.service.name",
            r#" (did you mean resource.attributes["service.name"]?)"#,
        ),
        ("span.name == checkout", 14, "checkout", " (strings need double quotes)"),
        (r#"attributes["x"] == null"#, 20, "null", r#" (did you mean "nil"?)"#),
        (r#"IsMatch(target, "x")"#, 9, "target", " (strings need double quotes)"),
    ] {
        let error = Condition::parse(text, &mut PathTable::default()).expect_err(text);
        let expected = format!("column {column}: found the path \"{found}\", expected {paths}{hint}");
        assert_eq!(error.to_string(), expected, "{text}");
    }
}

#[test]
fn a_wrong_key_is_explained() {
    check_refused(&[
        ("span.attributes == 1", r#"column 17: found "==", expected a key, as in attributes["key"]"#),
        ("attributes[x] == 1", r#"column 12: found "x", expected a key in double quotes"#),
        (
            "attributes['x'] == 1",
            "column 12: found 'x', expected a key in double quotes (strings need double quotes)",
        ),
        (r#"attributes["x" == 1"#, r#"column 16: found "==", expected "]""#),
        (
            r#"attributes["x"]["y"] == 1"#,
            "column 16: found a second key, expected one, as values within values are not supported",
        ),
        (r#"span.name["x"] == 1"#, r#"column 10: found "[", expected no key after span.name"#),
        ("span. == 1", r#"column 7: found "==", expected the name of a field"#),
    ]);
}

#[test]
fn a_wrong_word_or_type_is_guessed() {
    let operand = "a path, a literal, an enum, IsMatch(...) or IsRootSpan()";
    for (text, column, found, hint) in [
        ("span.kind == SPAN_KIND_SERVR", 14, "SPAN_KIND_SERVR", r#" (did you mean "SPAN_KIND_SERVER"?)"#),
        ("span.kind == SERVER", 14, "SERVER", r#" (did you mean "SPAN_KIND_SERVER"?)"#),
        ("span.status.code == Error", 21, "Error", r#" (did you mean "STATUS_CODE_ERROR"?)"#),
        (r#"attributes["x"] == NULL"#, 20, "NULL", r#" (did you mean "nil"?)"#),
        (r#"attributes["x"] == True"#, 20, "True", r#" (did you mean "true"?)"#),
        (r#"attributes["x"] == SOMETHING_ELSE"#, 20, "SOMETHING_ELSE", ""),
    ] {
        let error = Condition::parse(text, &mut PathTable::default()).expect_err(text);
        assert_eq!(
            error.to_string(),
            format!("column {column}: found \"{found}\", expected {operand}{hint}")
        );
    }
    check_refused(&[
        (
            r#"span.kind == "SERVER""#,
            "column 14: found \"SERVER\", expected a SPAN_KIND_... or a number to compare with span.kind \
             (did you mean \"SPAN_KIND_SERVER\"?)",
        ),
        (
            "span.kind == STATUS_CODE_ERROR",
            r#"column 14: found "STATUS_CODE_ERROR", expected a SPAN_KIND_... to compare with span.kind"#,
        ),
        (
            "true == span.status.code",
            r#"column 1: found "true", expected a STATUS_CODE_... or a number to compare with span.status.code"#,
        ),
        ("span.name == 5", r#"column 14: found "5", expected a string to compare with span.name"#),
        ("span.name", "column 10: found the end of the expression, expected one of == != < <= > >="),
        ("span.kind and true", r#"column 11: found "and", expected one of == != < <= > >="#),
        ("(5)", r#"column 3: found ")", expected one of == != < <= > >="#),
    ]);
}

#[test]
fn a_wrong_call_is_explained() {
    check_refused(&[
        (
            r#"IsMtch(span.name, "x")"#,
            r#"column 1: found the function "IsMtch", expected IsMatch or IsRootSpan (did you mean "IsMatch"?)"#,
        ),
        (
            r#"true and isRootSpan()"#,
            "column 10: found the function \"isRootSpan\", expected IsMatch or IsRootSpan \
             (did you mean \"IsRootSpan\"?)",
        ),
        ("Len(span.name) == 3", r#"column 1: found the function "Len", expected IsMatch or IsRootSpan"#),
        ("IsRootSpan", r#"column 11: found the end of the expression, expected "(""#),
        ("IsRootSpan(1)", r#"column 12: found "1", expected ")""#),
        (r#"IsMatch("x", "x")"#, r#"column 9: found "x", expected a path"#),
        ("IsMatch(span.name)", r#"column 18: found ")", expected "," and a regular expression"#),
        (
            "IsMatch(span.name, span.name)",
            r#"column 20: found "span", expected a regular expression in double quotes"#,
        ),
        (r#"IsMatch(span.name, "a(b")"#, "column 20: found a bad regular expression: unclosed group"),
    ]);
}

#[test]
fn a_wrong_literal_is_explained() {
    check_refused(&[
        (
            r#"name == "abc"#,
            "column 9: found a string without an end, expected a closing '\"' on the same line",
        ),
        (
            r#"name == "a\.b""#,
            "column 11: found the escape \"\\.\", which is unknown or incomplete (a backslash itself is written \"\\\\\")",
        ),
        (r#"name == "\xff""#, "column 10: found a string whose escapes are not valid UTF-8"),
        (
            "kind == 9223372036854775808",
            "column 9: found \"9223372036854775808\", expected an integer from -9223372036854775808 to \
             9223372036854775807",
        ),
        ("kind == 010", r#"column 9: found "010", expected a number without leading zeros"#),
        ("kind == 1e3", r#"column 9: found "1e3", expected a number such as 10, -2.5 or 1.0e6"#),
        ("kind == 1.", r#"column 9: found "1.", expected a number such as 10, -2.5 or 1.0e6"#),
        ("kind == 2xx", r#"column 9: found "2xx", expected a number such as 10, -2.5 or 1.0e6"#),
        (
            "kind == 1.0e999",
            r#"column 9: found "1.0e999", expected a number within the range of a 64 bit float"#,
        ),
        (
            "kind == 0x",
            r#"column 9: found "0x", expected bytes as 0x followed by pairs of hexadecimal digits"#,
        ),
        (
            "name == \"a\nb\"",
            "column 9: found a string without an end, expected a closing '\"' on the same line",
        ),
        (
            "kind == 0x123",
            r#"column 9: found "0x123", expected bytes as 0x followed by pairs of hexadecimal digits"#,
        ),
    ]);
}

#[test]
fn the_first_mistake_is_reported_with_its_line_and_column() {
    let condition = "a condition: \"not\", \"(\", a path, a literal, an enum, IsMatch(...) or IsRootSpan()";
    for (text, offset, line, column) in [("", 0, 1, 1), ("  \n ", 4, 2, 2), ("true and ", 9, 1, 10)] {
        let error = Condition::parse(text, &mut PathTable::default()).expect_err(text);
        assert_eq!((error.offset, error.line, error.column), (offset, line, column), "{text:?}");
        assert_eq!(error.message, format!("found the end of the expression, expected {condition}"));
    }
    let text = "attributes[\"é\"] == \"ü\"\r\nand name = 'unread";
    let error = Condition::parse(text, &mut PathTable::default()).unwrap_err();
    assert_eq!((error.offset, error.line, error.column), (35, 2, 10));
    assert_eq!(
        error.to_string(),
        r#"line 2, column 10: found "=", expected one of == != < <= > >= (did you mean "=="?)"#
    );
    check_refused(&[
        ("(true", r#"column 6: found the end of the expression, expected "and", "or" or ")""#),
        ("true)", r#"column 5: found ")", expected "and", "or" or the end of the expression"#),
    ]);
}

#[test]
fn what_is_too_large_is_refused_and_the_limit_itself_is_not() {
    let parse = |text: &str| Condition::parse(text, &mut PathTable::default());
    let padded = |length: usize| format!("{:length$}", "true");
    assert!(parse(&padded(MAXIMUM_EXPRESSION_BYTES)).is_ok());
    let error = parse(&padded(MAXIMUM_EXPRESSION_BYTES + 1)).unwrap_err();
    assert_eq!(error.message, "found an expression of 16385 bytes, expected at most 16384");
    assert_eq!(parse(&"é".repeat(MAXIMUM_EXPRESSION_BYTES)).unwrap_err().offset, MAXIMUM_EXPRESSION_BYTES);

    let nested = |depth: usize| format!("{}true{}", "(".repeat(depth), ")".repeat(depth));
    assert!(parse(&nested(MAXIMUM_NESTING)).is_ok());
    assert!(parse(&format!("{} and {}", nested(MAXIMUM_NESTING), nested(MAXIMUM_NESTING))).is_ok());
    let error = parse(&nested(MAXIMUM_NESTING + 1)).unwrap_err();
    assert_eq!(error.to_string(), "column 65: found \"(\" 65 levels deep, expected at most 64");
    assert!(parse(&format!("{}true", "not ".repeat(MAXIMUM_NESTING))).is_ok());
    assert!(parse(&vec!["not true"; MAXIMUM_NESTING + 1].join(" and ")).is_ok());
    assert!(parse(&format!("{}true", "not ".repeat(MAXIMUM_NESTING + 1))).is_err());

    let error = parse(r#"IsMatch(name, "(\\w{100}){100}")"#).unwrap_err();
    assert!(error.message.contains("exceeds size limit"), "{error}");
}

#[test]
fn a_message_stays_one_short_line() {
    for (text, found) in [
        (format!("name == '{}'", "a\n".repeat(100)), format!("found '{}a..., expected", "a ".repeat(23))),
        (format!("kind == {}", "7".repeat(100)), format!("found \"{}...\", expected", "7".repeat(48))),
        (format!("kind == {}", "A".repeat(100)), format!("found \"{}...\", expected", "A".repeat(48))),
        (format!("{}()", "A".repeat(100)), format!("found the function \"{}...\"", "A".repeat(48))),
        ("a.".repeat(100) + "a", format!("found the path \"{}...\", expected", "a.".repeat(24))),
        ("name == \"\\\u{7}\"".to_owned(), "found the escape \"\\ \", which".to_owned()),
    ] {
        let error = Condition::parse(&text, &mut PathTable::default()).expect_err(&text);
        assert!(error.message.starts_with(&found), "{error} does not start with {found}");
        assert!(!error.message.contains(char::is_control), "{error}");
    }
}
