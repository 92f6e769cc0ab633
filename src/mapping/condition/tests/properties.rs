//! Properties of all expressions: printing and parsing agree with a naive evaluator, and no text can panic.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::*;

/// A condition as a tree, which the naive evaluator walks with values found by path and not by slot.
#[derive(Debug, Clone)]
enum Tree {
    Constant(bool),
    RootSpan,
    Flag(Path),
    Compare(Leaf, &'static str, Leaf),
    Match(Path, Pattern),
    Not(Box<Tree>),
    All(Vec<Tree>),
    Any(Vec<Tree>),
    Parentheses(Box<Tree>),
}

#[derive(Debug, Clone)]
enum Leaf {
    Path(Path),
    Literal(Owned),
}

#[derive(Debug, Clone, PartialEq)]
enum Owned {
    Nil,
    Str(String),
    Bool(bool),
    Int(i64),
    Double(f64),
    Bytes(Vec<u8>),
    Other,
}

/// Patterns simple enough to be decided without a regular expression.
#[derive(Debug, Clone)]
enum Pattern {
    Contains(String),
    Begins(String),
}

impl Owned {
    fn borrowed(&self) -> Option<Value<'_>> {
        match self {
            Self::Nil => None,
            Self::Str(text) => Some(Value::Str(text)),
            Self::Bool(flag) => Some(Value::Bool(*flag)),
            Self::Int(number) => Some(Value::Int(*number)),
            Self::Double(number) => Some(Value::Double(*number)),
            Self::Bytes(bytes) => Some(Value::Bytes(bytes)),
            Self::Other => Some(Value::Other),
        }
    }

    fn printed(&self) -> String {
        match self {
            Self::Nil | Self::Other => "nil".to_owned(),
            Self::Str(text) => path::quoted(text),
            Self::Bool(flag) => flag.to_string(),
            Self::Int(number) => number.to_string(),
            Self::Double(number) => format!("{number:?}"),
            Self::Bytes(bytes) => {
                bytes.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}"))
            }
        }
    }
}

impl Leaf {
    fn printed(&self) -> String {
        match self {
            Self::Path(path) => path.to_string(),
            Self::Literal(literal) => literal.printed(),
        }
    }

    fn value<'s>(&'s self, span: &'s Span) -> &'s Owned {
        match self {
            Self::Path(path) => span.value(path),
            Self::Literal(literal) => literal,
        }
    }
}

/// The attributes `a`, `b` and `c` of the resource and of the span, in this order.
#[derive(Debug, Clone)]
struct Span {
    attributes: Vec<Owned>,
    is_root: bool,
}

const KEYS: [&str; 3] = ["a", "b", "c"];

impl Span {
    fn value(&self, path: &Path) -> &Owned {
        let position = |key: &str| KEYS.iter().position(|known| *known == key).unwrap();
        match path {
            Path::ResourceAttribute(key) => &self.attributes[position(key)],
            Path::SpanAttribute(key) => &self.attributes[KEYS.len() + position(key)],
            other => panic!("{other} is not generated"),
        }
    }
}

impl Tree {
    fn printed(&self) -> String {
        let inside = |tree: &Self| match tree {
            Self::All(_) | Self::Any(_) => format!("({})", tree.printed()),
            _ => tree.printed(),
        };
        let inside_all = |tree: &Self| match tree {
            Self::Any(_) => format!("({})", tree.printed()),
            _ => tree.printed(),
        };
        match self {
            Self::Constant(flag) => flag.to_string(),
            Self::RootSpan => "IsRootSpan()".to_owned(),
            Self::Flag(path) => path.to_string(),
            Self::Compare(left, operator, right) => {
                format!("{} {operator} {}", left.printed(), right.printed())
            }
            Self::Match(path, Pattern::Contains(text)) => format!("IsMatch({path}, \"{text}\")"),
            Self::Match(path, Pattern::Begins(text)) => format!("IsMatch({path}, \"^{text}\")"),
            Self::Not(tree) => format!("not {}", inside(tree)),
            Self::All(trees) => trees.iter().map(inside_all).collect::<Vec<_>>().join(" and "),
            Self::Any(trees) => trees.iter().map(Self::printed).collect::<Vec<_>>().join(" or "),
            Self::Parentheses(tree) => format!("({})", tree.printed()),
        }
    }

    fn holds(&self, span: &Span) -> bool {
        match self {
            Self::Constant(flag) => *flag,
            Self::RootSpan => span.is_root,
            Self::Flag(path) => *span.value(path) == Owned::Bool(true),
            Self::Compare(left, operator, right) => compare(left.value(span), operator, right.value(span)),
            Self::Match(path, pattern) => {
                let text = match span.value(path) {
                    Owned::Nil | Owned::Other => return false,
                    value => text_of(value.borrowed().unwrap()).into_owned(),
                };
                match pattern {
                    Pattern::Contains(part) => text.contains(part),
                    Pattern::Begins(part) => text.starts_with(part),
                }
            }
            Self::Not(tree) => !tree.holds(span),
            Self::All(trees) => trees.iter().filter(|tree| !tree.holds(span)).count() == 0,
            Self::Any(trees) => trees.iter().filter(|tree| tree.holds(span)).count() > 0,
            Self::Parentheses(tree) => tree.holds(span),
        }
    }
}

/// The comparison rules of OTTL, once for each pair of types.
fn compare(left: &Owned, operator: &str, right: &Owned) -> bool {
    fn primitive<T: PartialOrd>(left: T, operator: &str, right: T) -> bool {
        match operator {
            "==" => left == right,
            "!=" => left != right,
            "<" => left < right,
            "<=" => left <= right,
            ">" => left > right,
            ">=" => left >= right,
            other => panic!("{other} is no operator"),
        }
    }
    match (left, right) {
        (Owned::Nil, Owned::Nil) => ["==", "<=", ">="].contains(&operator),
        (Owned::Str(left), Owned::Str(right)) => primitive(left, operator, right),
        (Owned::Bool(left), Owned::Bool(right)) => primitive(left, operator, right),
        (Owned::Int(left), Owned::Int(right)) => primitive(left, operator, right),
        (Owned::Int(left), Owned::Double(right)) => primitive(*left as f64, operator, *right),
        (Owned::Double(left), Owned::Int(right)) => primitive(*left, operator, *right as f64),
        (Owned::Double(left), Owned::Double(right)) => primitive(left, operator, right),
        (Owned::Bytes(left), Owned::Bytes(right)) => primitive(left, operator, right),
        _ => operator == "!=",
    }
}

/// Few distinct values, so that equal ones meet.
fn any_literal() -> impl Strategy<Value = Owned> {
    prop_oneof![
        Just(Owned::Nil),
        "[ab\"\\\\\n]{0,2}".prop_map(Owned::Str),
        any::<bool>().prop_map(Owned::Bool),
        (-1..=2_i64).prop_map(Owned::Int),
        (-2..=4_i32).prop_map(|halves| Owned::Double(f64::from(halves) / 2.0)),
        vec(0..=2_u8, 1..=2).prop_map(Owned::Bytes),
    ]
}

fn any_value() -> impl Strategy<Value = Owned> {
    prop_oneof![6 => any_literal(), 1 => Just(Owned::Other), 1 => Just(Owned::Double(f64::NAN))]
}

fn any_path() -> impl Strategy<Value = Path> {
    (any::<bool>(), 0..KEYS.len()).prop_map(|(is_resource, key)| {
        if is_resource {
            Path::ResourceAttribute(KEYS[key].into())
        } else {
            Path::SpanAttribute(KEYS[key].into())
        }
    })
}

fn any_leaf() -> impl Strategy<Value = Leaf> {
    prop_oneof![2 => any_path().prop_map(Leaf::Path), 1 => any_literal().prop_map(Leaf::Literal)]
}

fn any_tree() -> impl Strategy<Value = Tree> {
    let operators = vec!["==", "!=", "<", "<=", ">", ">="];
    let pattern = ("[ab01]{1,2}", any::<bool>())
        .prop_map(|(text, begins)| if begins { Pattern::Begins(text) } else { Pattern::Contains(text) });
    let leaf = prop_oneof![
        any::<bool>().prop_map(Tree::Constant),
        Just(Tree::RootSpan),
        any_path().prop_map(Tree::Flag),
        (any_path(), pattern).prop_map(|(path, pattern)| Tree::Match(path, pattern)),
        (any_leaf(), proptest::sample::select(operators), any_leaf())
            .prop_map(|(left, operator, right)| Tree::Compare(left, operator, right)),
    ];
    leaf.prop_recursive(5, 40, 4, |tree| {
        prop_oneof![
            tree.clone().prop_map(|tree| Tree::Not(Box::new(tree))),
            vec(tree.clone(), 2..4).prop_map(Tree::All),
            vec(tree.clone(), 2..4).prop_map(Tree::Any),
            tree.prop_map(|tree| Tree::Parentheses(Box::new(tree))),
        ]
    })
}

fn any_span() -> impl Strategy<Value = Span> {
    (vec(any_value(), 2 * KEYS.len()), any::<bool>())
        .prop_map(|(attributes, is_root)| Span { attributes, is_root })
}

/// Texts that look enough like expressions to reach every corner of the parser.
fn any_fragments() -> impl Strategy<Value = String> {
    let fragments = vec![
        "span",
        "resource",
        "attributes",
        ".",
        "[",
        "]",
        "\"",
        "\"x\"",
        "\\",
        "\\u12",
        "\\x",
        "'",
        "(",
        ")",
        ",",
        "==",
        "=",
        "<",
        "!",
        "&&",
        "and",
        "or",
        "not",
        "nil",
        "true",
        "SPAN_KIND_SERVER",
        "IsMatch",
        "IsRootSpan",
        "(?:",
        "name",
        "kind",
        "0x",
        "0x1",
        "1",
        "-",
        "1.5e",
        "+.5",
        "é",
        "😀",
        "\n",
        " ",
        "\u{0}",
        "IsMatch(name, \"",
    ];
    vec(proptest::sample::select(fragments), 0..24).prop_map(|parts| parts.concat())
}

/// Whatever the text, parsing returns, and an error has a position in the text.
fn parse_anything(text: &str) {
    let mut table = PathTable::default();
    let condition = Condition::parse(text, &mut table);
    let value = ValueExpression::parse(text, &mut table);
    for error in [condition.err(), value.err()].into_iter().flatten() {
        let before = text.get(..error.offset).expect("the offset is a character boundary of the text");
        assert_eq!(error.line, before.split('\n').count());
        assert_eq!(error.column, before.split('\n').next_back().unwrap().chars().count() + 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_printed_tree_parses_to_what_a_naive_evaluator_says(tree in any_tree(), spans in vec(any_span(), 1..4)) {
        let text = tree.printed();
        let mut table = PathTable::default();
        let condition = Condition::parse(&text, &mut table).unwrap_or_else(|error| panic!("{text}: {error}"));
        for span in &spans {
            let values: Vec<_> = table.paths().iter().map(|path| span.value(path).borrowed()).collect();
            let slots = Slots { values: &values, is_root_span: span.is_root, lasting: None };
            prop_assert_eq!(condition.holds(&slots), tree.holds(span), "{} for {:?}", &text, span);
        }
    }

    #[test]
    fn a_cut_or_spoiled_expression_never_panics(
        tree in any_tree(),
        cut in any::<prop::sample::Index>(),
        spoiled in any::<char>(),
    ) {
        let text: Vec<char> = tree.printed().chars().collect();
        let (before, after) = text.split_at(cut.index(text.len()));
        parse_anything(&before.iter().collect::<String>());
        parse_anything(&before.iter().chain([&spoiled]).chain(after).collect::<String>());
    }

    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        parse_anything(&text);
    }

    #[test]
    fn arbitrary_fragments_never_panic(text in any_fragments()) {
        parse_anything(&text);
    }
}
