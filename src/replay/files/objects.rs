//! Finds where JSON objects end, without decoding them.
//!
//! Knows brackets and quotes, and no keys. Whether an object is JSON is for its decoder to say, so this only has
//! to be right about objects that are, and to come to an end with all others. Invariant: every byte is looked at
//! once; what is kept is one object.

use super::content::describe;
use super::input::Input;
use super::{Place, Problem};

/// How far the objects of a file have been read.
#[derive(Debug, Default)]
pub(super) struct Objects {
    /// Line breaks before the next byte.
    lines: u64,
}

impl Objects {
    /// The next object and the line on which it begins.
    pub(super) fn next(
        &mut self,
        input: &mut Input,
        limit: usize,
    ) -> Result<Option<(Place, Vec<u8>)>, Problem> {
        if !self.find_start(input)? {
            return Ok(None);
        }
        let place = self.place();
        let mut scanner = Scanner::default();
        let mut object = Vec::new();
        loop {
            let chunk = input.chunk()?;
            if chunk.is_empty() {
                return Err(Problem::CutOff { place, part: "a JSON object".to_owned() });
            }
            let scanned = scanner.scan(chunk);
            let taken = &chunk[..scanned.length];
            if taken.len() > limit - object.len() {
                return Err(Problem::TooLarge { place, limit });
            }
            object.extend_from_slice(taken);
            self.lines += line_breaks(taken);
            input.consume(scanned.length);
            match scanned.stop {
                None => {}
                Some(Stop::End) => return Ok(Some((place, object))),
                Some(Stop::LineBreak) => return Err(Problem::BrokenText { line: self.lines + 1 }),
            }
        }
    }

    fn place(&self) -> Place {
        Place::Line(self.lines + 1)
    }

    /// Skips white space. False at the end of the file.
    fn find_start(&mut self, input: &mut Input) -> Result<bool, Problem> {
        loop {
            let chunk = input.chunk()?;
            let rest = chunk.trim_ascii_start();
            let skipped = chunk.len() - rest.len();
            let (is_over, next) = (chunk.is_empty(), rest.first().copied());
            self.lines += line_breaks(&chunk[..skipped]);
            match next {
                None if is_over => return Ok(false),
                None | Some(b'{') => {}
                Some(_) => return Err(Problem::Unknown { place: self.place(), found: describe(rest) }),
            }
            input.consume(skipped);
            if next.is_some() {
                return Ok(true);
            }
        }
    }
}

fn line_breaks(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64
}

/// Where reading is inside an object.
#[derive(Debug, Default)]
struct Scanner {
    /// Brackets that are open.
    depth: u64,
    state: State,
}

#[derive(Debug, Default, Clone, Copy)]
enum State {
    #[default]
    Plain,
    Text,
    /// Behind a backslash in a text.
    Escape,
}

/// How much of a chunk belongs to the object, and why no more.
struct Scanned {
    length: usize,
    stop: Option<Stop>,
}

enum Stop {
    /// The object is complete.
    End,
    /// A line break, where none is allowed.
    LineBreak,
}

impl Scanner {
    fn scan(&mut self, chunk: &[u8]) -> Scanned {
        for (index, &byte) in chunk.iter().enumerate() {
            match (self.state, byte) {
                (State::Plain, b'"') => self.state = State::Text,
                (State::Plain, b'{' | b'[') => self.depth += 1,
                (State::Plain, b'}' | b']') => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Scanned { length: index + 1, stop: Some(Stop::End) };
                    }
                }
                (State::Text, b'"') => self.state = State::Plain,
                (State::Text, b'\\') => self.state = State::Escape,
                (State::Text | State::Escape, b'\n') => {
                    return Scanned { length: index, stop: Some(Stop::LineBreak) };
                }
                (State::Escape, _) => self.state = State::Text,
                _ => {}
            }
        }
        Scanned { length: chunk.len(), stop: None }
    }
}
