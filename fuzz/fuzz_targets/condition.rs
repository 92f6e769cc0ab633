//! Conditions: an error has a place in the text; what can be parsed can be evaluated, and means the same in
//! parentheses and the contrary behind `not`.

#![no_main]

use latency_aggregator::mapping::condition::{
    Condition, ExpressionError, MAXIMUM_EXPRESSION_BYTES, MAXIMUM_NESTING, Path, PathTable, Slots, Value,
    ValueExpression, text_of,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut table = PathTable::default();
    match Condition::parse(text, &mut table) {
        Ok(condition) => {
            let holds = holds(&condition, &table);
            check_negation(text, holds);
        }
        Err(error) => {
            assert!(table.paths().is_empty(), "a refused condition leaves the table as it was");
            check_error(&error, text);
        }
    }
    let mut table = PathTable::default();
    match ValueExpression::parse(text, &mut table) {
        Ok(expression) => check_value(&expression, &table),
        Err(error) => check_error(&error, text),
    }
});

/// Values of all types, by the path's place and text, so that equal texts read equal spans.
fn values(table: &PathTable) -> Vec<Option<Value<'static>>> {
    let value = |path: &Path| match path.to_string().bytes().map(usize::from).sum::<usize>() % 9 {
        0 => None,
        1 => Some(Value::Str("gateway")),
        2 => Some(Value::Bool(true)),
        3 => Some(Value::Int(2)),
        4 => Some(Value::Double(0.5)),
        5 => Some(Value::Double(f64::NAN)),
        6 => Some(Value::Bytes(b"\x00\xff")),
        7 => Some(Value::Str("")),
        _ => Some(Value::Other),
    };
    table.paths().iter().map(value).collect()
}

fn holds(condition: &Condition, table: &PathTable) -> bool {
    condition.holds(&Slots { values: &values(table), is_root_span: true, lasting: None })
}

fn check_negation(text: &str, expected: bool) {
    let negated = format!("not ({text}) and (true)");
    let mut table = PathTable::default();
    match Condition::parse(&negated, &mut table) {
        Ok(condition) => assert_ne!(holds(&condition, &table), expected, "{negated}"),
        // The bounds are all that it may have met.
        Err(error) => assert!(
            negated.len() > MAXIMUM_EXPRESSION_BYTES || text.matches('(').count() >= MAXIMUM_NESTING - 1,
            "{negated}: {error}"
        ),
    }
}

/// A value is a literal, or a path that reads the same when it is printed.
fn check_value(expression: &ValueExpression, table: &PathTable) {
    let values = values(table);
    let value = expression.value(&Slots { values: &values, is_root_span: false, lasting: None });
    drop(value.map(text_of));
    if let Some(slot) = expression.slot() {
        let printed = table.paths()[slot.index()].to_string();
        let mut again = PathTable::default();
        ValueExpression::parse(&printed, &mut again).unwrap_or_else(|error| panic!("{printed}: {error}"));
        assert_eq!(again.paths(), table.paths());
    }
}

fn check_error(error: &ExpressionError, text: &str) {
    let before = text.get(..error.offset).expect("the offset is a character boundary of the text");
    let line_start = before.rfind('\n').map_or(0, |line_break| line_break + 1);
    assert_eq!(error.line, before.matches('\n').count() + 1);
    assert_eq!(error.column, before[line_start..].chars().count() + 1);
    assert!(!error.message.is_empty());
}
