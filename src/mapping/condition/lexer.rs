//! Owns the cutting of an expression into tokens and the decoding of its literals.
//!
//! It does not know which token may follow which: text that is no token becomes one that says why, so that the parser
//! reports the first mistake and not the first bad character. Invariant: every call moves on, until [`Kind::End`].

use super::evaluate::Comparison;
use super::message::{expectation, found_text, shown};

/// A piece of the expression.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token<'t> {
    /// Bytes before it in the expression.
    pub(super) offset: usize,
    /// It as written.
    pub(super) source: &'t str,
    pub(super) kind: Kind,
}

/// What a token is, with the decoded value of a literal.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// A keyword, the name of an enum or function, or a part of a path.
    Word,
    Str(String),
    Bytes(Vec<u8>),
    Int(i64),
    Double(f64),
    Comparison(Comparison),
    LeftParenthesis,
    RightParenthesis,
    LeftBracket,
    RightBracket,
    Dot,
    Comma,
    /// A symbol of another language, or none at all, with a hint at what to write instead.
    Foreign(Option<&'static str>),
    /// A literal that breaks its own rules, with the place of the mistake.
    Malformed {
        offset: usize,
        message: String,
    },
    End,
}

const EQUAL_HINT: Option<&str> = Some("did you mean \"==\"?");
const AND_HINT: Option<&str> = Some("did you mean \"and\"?");
const OR_HINT: Option<&str> = Some("did you mean \"or\"?");
const NOT_HINT: Option<&str> = Some("did you mean \"not\"?");
const MATCH_HINT: Option<&str> = Some("did you mean IsMatch(path, \"regex\")?");
const QUOTES_HINT: Option<&str> = Some("strings need double quotes");
const ARITHMETIC_HINT: Option<&str> = Some("arithmetic is not supported");

/// Every symbol; one that begins with another stands before it.
const SYMBOLS: [(&str, Kind); 26] = [
    ("===", Kind::Foreign(EQUAL_HINT)),
    ("==", Kind::Comparison(Comparison::Equal)),
    ("!=", Kind::Comparison(Comparison::NotEqual)),
    ("=~", Kind::Foreign(MATCH_HINT)),
    ("!~", Kind::Foreign(Some("did you mean not IsMatch(path, \"regex\")?"))),
    ("<>", Kind::Foreign(Some("did you mean \"!=\"?"))),
    ("<=", Kind::Comparison(Comparison::LessOrEqual)),
    (">=", Kind::Comparison(Comparison::GreaterOrEqual)),
    ("<", Kind::Comparison(Comparison::Less)),
    (">", Kind::Comparison(Comparison::Greater)),
    ("=", Kind::Foreign(EQUAL_HINT)),
    ("!", Kind::Foreign(NOT_HINT)),
    ("&&", Kind::Foreign(AND_HINT)),
    ("&", Kind::Foreign(AND_HINT)),
    ("||", Kind::Foreign(OR_HINT)),
    ("|", Kind::Foreign(OR_HINT)),
    ("(", Kind::LeftParenthesis),
    (")", Kind::RightParenthesis),
    ("[", Kind::LeftBracket),
    ("]", Kind::RightBracket),
    (".", Kind::Dot),
    (",", Kind::Comma),
    ("+", Kind::Foreign(ARITHMETIC_HINT)),
    ("-", Kind::Foreign(ARITHMETIC_HINT)),
    ("*", Kind::Foreign(ARITHMETIC_HINT)),
    ("/", Kind::Foreign(ARITHMETIC_HINT)),
];

/// A place in an expression from which the next token is read.
#[derive(Debug, Clone)]
pub(super) struct Lexer<'t> {
    text: &'t str,
    position: usize,
}

impl<'t> Lexer<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, position: 0 }
    }

    /// The next token; [`Kind::End`] again and again once the text is used up.
    pub(super) fn next_token(&mut self) -> Token<'t> {
        let rest = &self.text[self.position..];
        let offset = self.text.len() - rest.trim_start().len();
        let rest = &self.text[offset..];
        let (kind, length) = self.read(rest, offset);
        self.position = offset + length;
        Token { offset, source: &self.text[offset..self.position], kind }
    }

    /// The token that `rest` begins with and its length in bytes; `offset` is where `rest` begins.
    fn read(&self, rest: &str, offset: usize) -> (Kind, usize) {
        let Some(first) = rest.chars().next() else {
            return (Kind::End, 0);
        };
        if is_word(first) && !first.is_ascii_digit() {
            return (Kind::Word, length_of(rest, is_word));
        }
        if begins_number(rest) {
            return number(rest, offset);
        }
        if first == '"' {
            return string(rest, offset);
        }
        if first == '\'' {
            // The whole of it is what was found: `'GET'` explains itself better than `'`.
            let length = rest[1..].find('\'').map_or(rest.len(), |closing| closing + 2);
            return (Kind::Foreign(QUOTES_HINT), length);
        }
        match SYMBOLS.iter().find(|(symbol, _)| rest.starts_with(symbol)) {
            Some((symbol, kind)) => (kind.clone(), symbol.len()),
            None => (Kind::Foreign(None), first.len_utf8()),
        }
    }
}

/// Letters of other alphabets are no word to the language, but reported whole they make the better message.
fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn length_of(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|character| !belongs(character)).unwrap_or(text.len())
}

/// Signs belong to the number, as there is no arithmetic, and the digit before the point may be missing.
fn begins_number(rest: &str) -> bool {
    let unsigned = rest.strip_prefix(['+', '-']).unwrap_or(rest);
    let digits = unsigned.strip_prefix('.').unwrap_or(unsigned);
    digits.starts_with(|character: char| character.is_ascii_digit())
}

/// The number or the byte string (`0x...`) that `rest` begins with, and its length in bytes.
fn number(rest: &str, offset: usize) -> (Kind, usize) {
    let unsigned = rest.strip_prefix(['+', '-']).unwrap_or(rest);
    let sign_length = rest.len() - unsigned.len();
    let mut end = length_of(unsigned, |character| is_word(character) || character == '.');
    let exponent_is_signed = unsigned[..end].ends_with(['e', 'E']);
    if exponent_is_signed && let Some(exponent) = unsigned[end..].strip_prefix(['+', '-']) {
        end += 1 + length_of(exponent, is_word);
    }
    let length = sign_length + end;
    let source = &rest[..length];
    let kind = decode_number(source).unwrap_or_else(|expected| {
        let message = expectation(&found_text(source), &expected, None);
        Kind::Malformed { offset, message }
    });
    (kind, length)
}

/// The decoded number, or what was expected instead of it.
fn decode_number(source: &str) -> Result<Kind, String> {
    if let Some(digits) = source.strip_prefix("0x") {
        let bytes = decode_hexadecimal(digits).map(Kind::Bytes);
        return bytes.ok_or_else(|| "bytes as 0x followed by pairs of hexadecimal digits".to_owned());
    }
    let unsigned = source.strip_prefix(['+', '-']).unwrap_or(source);
    if unsigned.chars().all(|character| character.is_ascii_digit()) {
        // OTTL would read it as octal, everybody else as decimal.
        if unsigned.len() > 1 && unsigned.starts_with('0') {
            return Err("a number without leading zeros".to_owned());
        }
        let number = source.parse().map(Kind::Int);
        return number.map_err(|_| format!("an integer from {} to {}", i64::MIN, i64::MAX));
    }
    // Rust reads more as a float than OTTL does.
    let fraction = unsigned.split_once('.').map_or("", |(_, fraction)| fraction);
    let has_fraction = fraction.starts_with(|character: char| character.is_ascii_digit());
    match source.parse::<f64>() {
        Ok(number) if has_fraction && number.is_finite() => Ok(Kind::Double(number)),
        Ok(_) if has_fraction => Err("a number within the range of a 64 bit float".to_owned()),
        _ => Err("a number such as 10, -2.5 or 1.0e6".to_owned()),
    }
}

fn decode_hexadecimal(digits: &str) -> Option<Vec<u8>> {
    let nibbles: Vec<u8> = digits
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|value| u8::try_from(value).ok()))
        .collect::<Option<_>>()?;
    let pairs = nibbles.chunks_exact(2);
    let is_whole = !nibbles.is_empty() && pairs.remainder().is_empty();
    is_whole.then(|| pairs.map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// The string literal that `rest` begins with, and its length in bytes with the quotes.
fn string(rest: &str, offset: usize) -> (Kind, usize) {
    let Some(length) = string_length(rest) else {
        let message = "found a string without an end, expected a closing '\"' on the same line".to_owned();
        return (Kind::Malformed { offset, message }, rest.len());
    };
    let content = &rest[1..length - 1];
    let kind = match unescape(content) {
        Ok(decoded) => Kind::Str(decoded),
        Err((position, message)) => Kind::Malformed { offset: offset + 1 + position, message },
    };
    (kind, length)
}

fn string_length(rest: &str) -> Option<usize> {
    let mut is_escaped = false;
    for (position, character) in rest.char_indices().skip(1) {
        match character {
            '\n' => return None,
            '"' if !is_escaped => return Some(position + 1),
            _ => is_escaped = character == '\\' && !is_escaped,
        }
    }
    None
}

/// Resolves the escapes of a string literal, which in OTTL are those of Go; an error has its position in `content`.
fn unescape(content: &str) -> Result<String, (usize, String)> {
    // Escapes may write the bytes of a character one by one, hence bytes until the end.
    let mut bytes = Vec::with_capacity(content.len());
    let mut position = 0;
    while let Some(length) = content[position..].find('\\') {
        bytes.extend_from_slice(&content.as_bytes()[position..position + length]);
        position += length;
        let escape = &content[position + 1..];
        let consumed = decode_escape(escape, &mut bytes).ok_or_else(|| (position, unknown_escape(escape)))?;
        position += 1 + consumed;
    }
    bytes.extend_from_slice(&content.as_bytes()[position..]);
    String::from_utf8(bytes).map_err(|_| (0, "found a string whose escapes are not valid UTF-8".to_owned()))
}

/// Appends what the escape after a backslash stands for; its length in bytes, or none if there is no such escape.
fn decode_escape(escape: &str, bytes: &mut Vec<u8>) -> Option<usize> {
    let simple = match escape.chars().next()? {
        'a' => 0x07,
        'b' => 0x08,
        'f' => 0x0c,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 0x0b,
        '\\' => b'\\',
        '"' => b'"',
        'x' => {
            return decode_digits(escape, 1, 2, 16).and_then(|code| push_byte(code, bytes)).map(|()| 3);
        }
        'u' => {
            return decode_digits(escape, 1, 4, 16).and_then(|code| push_character(code, bytes)).map(|()| 5);
        }
        'U' => {
            return decode_digits(escape, 1, 8, 16).and_then(|code| push_character(code, bytes)).map(|()| 9);
        }
        '0'..='7' => {
            return decode_digits(escape, 0, 3, 8).and_then(|code| push_byte(code, bytes)).map(|()| 3);
        }
        _ => return None,
    };
    bytes.push(simple);
    Some(1)
}

fn decode_digits(escape: &str, start: usize, count: usize, radix: u32) -> Option<u32> {
    let digits = escape.get(start..start + count)?;
    // `from_str_radix` would take a sign as well.
    digits.chars().try_fold(0_u32, |code, digit| code.checked_mul(radix)?.checked_add(digit.to_digit(radix)?))
}

fn push_byte(code: u32, bytes: &mut Vec<u8>) -> Option<()> {
    bytes.push(u8::try_from(code).ok()?);
    Some(())
}

fn push_character(code: u32, bytes: &mut Vec<u8>) -> Option<()> {
    bytes.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut [0; 4]).as_bytes());
    Some(())
}

fn unknown_escape(escape: &str) -> String {
    let letter: String = escape.chars().take(1).collect();
    let letter = shown(&letter);
    format!(
        "found the escape \"\\{letter}\", which is unknown or incomplete (a backslash itself is written \"\\\\\")"
    )
}
