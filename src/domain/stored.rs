//! How what the program knows is written down, and read again as it was.
//!
//! Knows no files: an [`Encoder`] hands out pieces, a [`Decoder`] asks for them. What many values share (facts, texts) is
//! written once and meant by a number from then on, so that it is shared again when it is read. Invariant: what is read is
//! equal to what was written, in every respect that decides about anything.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::completion::Clocks;
use super::event::Facts;
use super::flow::{
    At, Boundary, EndAlternative, Flow, Keys, LabelRule, Labels, Measure, OnIncomplete, Origin, Pick,
    Sampling, Slo, Timers,
};
use super::ids::{FlowId, Key, SpanId, TraceId};
use super::joining::Joint;
use super::result::{Outcome, PathKind, Reason};
use super::summary::{Counts, StageSummary, Summary};
use super::time::{Arrival, EventTime, Now};
use super::tombstone::Tombstone;

/// A value that can be written down.
pub trait Stored: Sized {
    /// Writes it.
    fn write(&self, to: &mut Encoder<'_>);
    /// Reads it again.
    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged>;
}

/// What was read is nothing that was ever written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damaged;

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what is stored makes no sense")
    }
}

impl std::error::Error for Damaged {}

/// From this size on a piece is handed out.
const PIECE_BYTES: usize = 1 << 20;

/// Writes values one after the other.
pub struct Encoder<'s> {
    bytes: Vec<u8>,
    hand_out: Box<dyn FnMut(Vec<u8>) + 's>,
    /// By where they are in memory; they are kept, so that nothing else can be there meanwhile.
    texts: Places<(usize, usize)>,
    kept_texts: Vec<Arc<str>>,
    facts: Places<usize>,
    kept_facts: Vec<Arc<Facts>>,
}

/// Numbers by places in memory, which nobody can choose: they need no strong hash.
type Places<K> = HashMap<K, u64, BuildHasherDefault<PlaceHasher>>;

#[derive(Debug, Default)]
struct PlaceHasher(u64);

impl Hasher for PlaceHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_usize(usize::from(*byte)));
    }
    fn write_usize(&mut self, number: usize) {
        // What is allocated is aligned; the upper bits choose the place in the table as well.
        let mixed = (self.0 ^ number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

impl fmt::Debug for Encoder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

impl<'s> Encoder<'s> {
    /// Hands what is written to `hand_out`, piece by piece.
    pub fn new(hand_out: impl FnMut(Vec<u8>) + 's) -> Self {
        let (texts, kept_texts, facts, kept_facts) = Default::default();
        Encoder { bytes: Vec::new(), hand_out: Box::new(hand_out), texts, kept_texts, facts, kept_facts }
    }

    /// To be called where a piece may end: the reader must call [`Decoder::pause`] at the same place.
    pub fn pause(&mut self) {
        if self.bytes.len() >= PIECE_BYTES {
            let room = Vec::with_capacity(PIECE_BYTES + PIECE_BYTES / 8);
            (self.hand_out)(std::mem::replace(&mut self.bytes, room));
        }
    }

    /// Makes room for so many bytes.
    pub fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve(bytes);
    }

    /// What was written, where nothing has been handed out yet.
    pub fn into_bytes(mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// Hands out the rest.
    pub fn finish(mut self) {
        if !self.bytes.is_empty() {
            (self.hand_out)(std::mem::take(&mut self.bytes));
        }
    }

    /// Writes bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Writes a number in as few bytes as it needs.
    pub fn number(&mut self, mut number: u128) {
        while number >= 0x80 {
            self.bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }

    /// Writes how many there are, and all of them.
    pub fn all<'v, T: Stored + 'v>(&mut self, values: impl ExactSizeIterator<Item = &'v T>) {
        self.number(values.len() as u128);
        values.for_each(|value| value.write(self));
    }

    /// The same for many: a piece may end between any two.
    pub fn many<'v, T: Stored + 'v>(&mut self, values: impl ExactSizeIterator<Item = &'v T>) {
        self.number(values.len() as u128);
        for value in values {
            self.pause();
            value.write(self);
        }
    }
}

/// Reads values one after the other.
pub struct Decoder<'s> {
    bytes: Vec<u8>,
    at: usize,
    next: Box<dyn FnMut() -> Option<Vec<u8>> + 's>,
    texts: Vec<Arc<str>>,
    /// Texts by what they say: two that were kept apart may have become one.
    known: std::collections::HashSet<Arc<str>>,
    facts: Vec<Arc<Facts>>,
}

impl fmt::Debug for Decoder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").field("at", &self.at).finish_non_exhaustive()
    }
}

impl<'s> Decoder<'s> {
    /// Reads the pieces that `next` brings.
    pub fn new(mut next: impl FnMut() -> Option<Vec<u8>> + 's) -> Self {
        let bytes = next().unwrap_or_default();
        let (texts, known, facts) = Default::default();
        Decoder { bytes, at: 0, next: Box::new(next), texts, known, facts }
    }

    /// Where a piece may have ended.
    pub fn pause(&mut self) {
        if self.at >= self.bytes.len() {
            self.bytes = (self.next)().unwrap_or_default();
            self.at = 0;
        }
    }

    /// So many bytes.
    pub fn raw(&mut self, count: usize) -> Result<&[u8], Damaged> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len()).ok_or(Damaged)?;
        let bytes = &self.bytes[self.at..end];
        self.at = end;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        self.raw(N)?.try_into().map_err(|_| Damaged)
    }

    /// A number that fits.
    pub fn number<T: TryFrom<u128>>(&mut self) -> Result<T, Damaged> {
        let mut number: u128 = 0;
        for shift in (0..128).step_by(7) {
            let [byte] = self.array()?;
            number |= u128::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return T::try_from(number).map_err(|_| Damaged);
            }
        }
        Err(Damaged)
    }

    /// How many values follow, of which each takes a byte at least.
    pub fn count(&mut self) -> Result<usize, Damaged> {
        let count: usize = self.number()?;
        if count > self.bytes.len() - self.at { Err(Damaged) } else { Ok(count) }
    }

    /// What [`Encoder::many`] wrote.
    pub fn many<T: Stored>(&mut self) -> Result<Vec<T>, Damaged> {
        let count: usize = self.number()?;
        let mut values = Vec::new();
        for _ in 0..count {
            self.pause();
            values.push(T::read(self)?);
        }
        Ok(values)
    }

    /// Whether everything has been read.
    pub fn is_at_end(&mut self) -> bool {
        self.pause();
        self.bytes.is_empty()
    }
}

/// Writes the fields of a struct in the order given, and reads them in the same.
macro_rules! stored_fields {
    ($type:ty { $($field:ident),* $(,)? }) => {
        impl $crate::domain::stored::Stored for $type {
            fn write(&self, to: &mut $crate::domain::stored::Encoder<'_>) {
                $($crate::domain::stored::Stored::write(&self.$field, to);)*
            }
            fn read(
                from: &mut $crate::domain::stored::Decoder<'_>,
            ) -> Result<Self, $crate::domain::stored::Damaged> {
                Ok(Self { $($field: $crate::domain::stored::Stored::read(from)?),* })
            }
        }
    };
}
pub(crate) use stored_fields;

/// Writes which of several it is, by a number that never changes.
macro_rules! stored_choice {
    ($type:ty { $($variant:ident = $number:literal),* $(,)? }) => {
        impl $crate::domain::stored::Stored for $type {
            fn write(&self, to: &mut $crate::domain::stored::Encoder<'_>) {
                to.raw(&[match self { $(Self::$variant => $number),* }]);
            }
            fn read(
                from: &mut $crate::domain::stored::Decoder<'_>,
            ) -> Result<Self, $crate::domain::stored::Damaged> {
                match from.raw(1)? {
                    $([$number] => Ok(Self::$variant),)*
                    _ => Err($crate::domain::stored::Damaged),
                }
            }
        }
    };
}
pub(crate) use stored_choice;

macro_rules! stored_number {
    ($($type:ty),*) => {
        $(impl Stored for $type {
            fn write(&self, to: &mut Encoder<'_>) {
                to.number(*self as u128);
            }
            fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
                from.number()
            }
        })*
    };
}
stored_number!(u8, u16, u32, u64, u128, usize);

impl Stored for i32 {
    fn write(&self, to: &mut Encoder<'_>) {
        to.raw(&self.to_le_bytes());
    }
    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        from.array().map(i32::from_le_bytes)
    }
}

impl Stored for i64 {
    fn write(&self, to: &mut Encoder<'_>) {
        to.raw(&self.to_le_bytes());
    }
    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        from.array().map(i64::from_le_bytes)
    }
}

impl Stored for f64 {
    fn write(&self, to: &mut Encoder<'_>) {
        to.raw(&self.to_bits().to_le_bytes());
    }
    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        from.array().map(|bytes| f64::from_bits(u64::from_le_bytes(bytes)))
    }
}

impl Stored for bool {
    fn write(&self, to: &mut Encoder<'_>) {
        to.raw(&[u8::from(*self)]);
    }
    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        match from.raw(1)? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(Damaged),
        }
    }
}

impl Stored for () {
    fn write(&self, _: &mut Encoder<'_>) {}
    fn read(_: &mut Decoder<'_>) -> Result<Self, Damaged> {
        Ok(())
    }
}

impl<T: Stored> Stored for Option<T> {
    fn write(&self, to: &mut Encoder<'_>) {
        self.is_some().write(to);
        self.iter().for_each(|value| value.write(to));
    }
    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        if bool::read(from)? { T::read(from).map(Some) } else { Ok(None) }
    }
}

impl<T: Stored> Stored for Vec<T> {
    fn write(&self, to: &mut Encoder<'_>) {
        to.all(self.iter());
    }
    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        let count = from.count()?;
        let mut values = Vec::with_capacity(count);
        for _ in 0..count {
            values.push(T::read(from)?);
        }
        Ok(values)
    }
}

impl<T: Stored> Stored for Box<[T]> {
    fn write(&self, to: &mut Encoder<'_>) {
        to.all(self.iter());
    }
    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        Vec::read(from).map(Vec::into_boxed_slice)
    }
}

impl<T: Stored> Stored for Arc<[T]> {
    fn write(&self, to: &mut Encoder<'_>) {
        to.all(self.iter());
    }
    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        Vec::read(from).map(Arc::from)
    }
}

impl<T: Stored> Stored for Box<T> {
    fn write(&self, to: &mut Encoder<'_>) {
        (**self).write(to);
    }
    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        T::read(from).map(Box::new)
    }
}

impl<T: Stored + Ord> Stored for BTreeSet<T> {
    fn write(&self, to: &mut Encoder<'_>) {
        to.all(self.iter());
    }
    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        Vec::read(from).map(BTreeSet::from_iter)
    }
}

impl<K: Stored + Ord, V: Stored> Stored for BTreeMap<K, V> {
    fn write(&self, to: &mut Encoder<'_>) {
        to.number(self.len() as u128);
        for (key, value) in self {
            key.write(to);
            value.write(to);
        }
    }
    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        Vec::<(K, V)>::read(from).map(BTreeMap::from_iter)
    }
}

impl<A: Stored, B: Stored> Stored for (A, B) {
    fn write(&self, to: &mut Encoder<'_>) {
        self.0.write(to);
        self.1.write(to);
    }
    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        Ok((A::read(from)?, B::read(from)?))
    }
}

impl<A: Stored, B: Stored, C: Stored> Stored for (A, B, C) {
    fn write(&self, to: &mut Encoder<'_>) {
        self.0.write(to);
        self.1.write(to);
        self.2.write(to);
    }
    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        Ok((A::read(from)?, B::read(from)?, C::read(from)?))
    }
}

impl<A: Stored, B: Stored, C: Stored, D: Stored> Stored for (A, B, C, D) {
    fn write(&self, to: &mut Encoder<'_>) {
        self.0.write(to);
        self.1.write(to);
        self.2.write(to);
        self.3.write(to);
    }
    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        Ok((A::read(from)?, B::read(from)?, C::read(from)?, D::read(from)?))
    }
}

impl<T: Stored> Stored for OnceLock<T> {
    fn write(&self, to: &mut Encoder<'_>) {
        self.get().is_some().write(to);
        self.get().iter().for_each(|value| value.write(to));
    }
    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        Ok(Option::<T>::read(from)?.map(OnceLock::from).unwrap_or_default())
    }
}

impl Stored for Arc<str> {
    fn write(&self, to: &mut Encoder<'_>) {
        let place = (self.as_ptr() as usize, self.len());
        if let Some(number) = to.texts.get(&place) {
            let number = *number;
            return to.number(u128::from(number));
        }
        to.kept_texts.push(Arc::clone(self));
        to.texts.insert(place, to.kept_texts.len() as u64);
        to.number(0);
        to.number(self.len() as u128);
        to.raw(self.as_bytes());
    }
    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        if let Some(place) = from.number::<usize>()?.checked_sub(1) {
            return from.texts.get(place).map(Arc::clone).ok_or(Damaged);
        }
        let length = from.number()?;
        let text = std::str::from_utf8(from.raw(length)?).map_err(|_| Damaged)?;
        let text: Arc<str> = Arc::from(text);
        let text = from.known.get(&text).map_or(text, Arc::clone);
        from.known.insert(Arc::clone(&text));
        from.texts.push(Arc::clone(&text));
        Ok(text)
    }
}

impl Stored for Arc<Facts> {
    fn write(&self, to: &mut Encoder<'_>) {
        let place = Arc::as_ptr(self) as usize;
        if let Some(number) = to.facts.get(&place) {
            let number = *number;
            return to.number(u128::from(number));
        }
        to.kept_facts.push(Arc::clone(self));
        to.facts.insert(place, to.kept_facts.len() as u64);
        to.number(0);
        self.as_ref().write(to);
    }
    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        if let Some(place) = from.number::<usize>()?.checked_sub(1) {
            return from.facts.get(place).map(Arc::clone).ok_or(Damaged);
        }
        let facts = Facts::read(from)?.shared();
        from.facts.push(Arc::clone(&facts));
        Ok(facts)
    }
}

impl Stored for Duration {
    fn write(&self, to: &mut Encoder<'_>) {
        to.number(self.as_nanos());
    }
    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        let nanoseconds: u128 = from.number()?;
        let seconds = u64::try_from(nanoseconds / 1_000_000_000).map_err(|_| Damaged)?;
        Ok(Duration::new(seconds, (nanoseconds % 1_000_000_000) as u32))
    }
}

impl Stored for Arrival {
    fn write(&self, to: &mut Encoder<'_>) {
        to.raw(&self.nanoseconds().to_le_bytes());
    }
    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        let nanoseconds = u64::from_le_bytes(from.array()?);
        Ok(Arrival::since_origin(Duration::from_nanos(nanoseconds)))
    }
}

impl Stored for EventTime {
    fn write(&self, to: &mut Encoder<'_>) {
        to.raw(&self.unix_nanoseconds().to_le_bytes());
    }
    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        from.array().map(|bytes| EventTime::from_unix_nanoseconds(u64::from_le_bytes(bytes)))
    }
}

impl Stored for SpanId {
    fn write(&self, to: &mut Encoder<'_>) {
        to.raw(&self.0.to_le_bytes());
    }
    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        from.array().map(|bytes| SpanId(u64::from_le_bytes(bytes)))
    }
}

impl Stored for TraceId {
    fn write(&self, to: &mut Encoder<'_>) {
        to.raw(&self.0);
    }
    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        from.array().map(TraceId)
    }
}

impl Stored for Key {
    fn write(&self, to: &mut Encoder<'_>) {
        match self {
            Key::Trace(trace) => (0_u8, *trace).write(to),
            Key::Also { flow, trace } => (1_u8, *flow, *trace).write(to),
            Key::Named { flow, id } => {
                (2_u8, *flow).write(to);
                id.write(to);
            }
        }
    }
    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        Ok(match u8::read(from)? {
            0 => Key::Trace(TraceId::read(from)?),
            1 => Key::Also { flow: Stored::read(from)?, trace: Stored::read(from)? },
            2 => Key::Named { flow: Stored::read(from)?, id: Stored::read(from)? },
            _ => return Err(Damaged),
        })
    }
}

impl Stored for Joint {
    fn write(&self, to: &mut Encoder<'_>) {
        match self {
            Joint::Link { trace, span } => (0_u8, *trace, *span).write(to),
            Joint::Value { flow, rank, value } => {
                (1_u8, *flow, *rank).write(to);
                value.write(to);
            }
        }
    }
    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        Ok(match u8::read(from)? {
            0 => Joint::Link { trace: Stored::read(from)?, span: Stored::read(from)? },
            1 => Joint::Value {
                flow: Stored::read(from)?,
                rank: Stored::read(from)?,
                value: Stored::read(from)?,
            },
            _ => return Err(Damaged),
        })
    }
}

impl Stored for Sampling {
    fn write(&self, to: &mut Encoder<'_>) {
        let ratio = match self {
            Sampling::Count => None,
            Sampling::Weight { ratio } => Some(*ratio),
        };
        ratio.write(to);
    }
    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        Ok(Option::read(from)?.map_or(Sampling::Count, |ratio| Sampling::Weight { ratio }))
    }
}

impl Stored for Labels {
    fn write(&self, to: &mut Encoder<'_>) {
        match self {
            Labels::Declared(rules) => {
                true.write(to);
                rules.write(to);
            }
            Labels::Union => false.write(to),
        }
    }
    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        if bool::read(from)? { Stored::read(from).map(Labels::Declared) } else { Ok(Labels::Union) }
    }
}

stored_fields!(FlowId { place, generation });
stored_fields!(Now { arrival, wall });
stored_fields!(Clocks { first, last, life_span });
stored_fields!(Tombstone { flow, closed, lifetime, expires, extent, remember });
stored_fields!(Counts { events, ignored, foreign, skewed });
stored_fields!(StageSummary { name, intervals, spans });
stored_fields!(Summary { extent, start, end, stages, labels, counts, threshold });
stored_fields!(Timers { quiet_period, linger, max_age, parent_wait, async_wait, tombstone });
stored_fields!(Boundary { stage, conditional, at });
stored_fields!(EndAlternative { boundary, is_error });
stored_fields!(LabelRule { name, pick, default });
stored_fields!(Slo { latency, objective });
stored_fields!(Flow {
    id,
    home,
    name,
    origin,
    keys,
    also,
    timers,
    max_clock_skew,
    sampling,
    start,
    ends,
    expect,
    labels,
    measure,
    on_incomplete,
    slo,
    metric,
    help,
    stage_buckets,
    buckets,
});

stored_choice!(At { Start = 0, End = 1 });
stored_choice!(Keys { Trace = 0, ValueOrTrace = 1, Value = 2 });
stored_choice!(Origin { Configured = 0, BuiltIn = 1, Pushed = 2 });
stored_choice!(Measure { Extent = 0, Root = 1 });
stored_choice!(OnIncomplete { Inf = 0, Elapsed = 1, Drop = 2 });
stored_choice!(Pick { First = 0, Last = 1, Root = 2, Max = 3, Min = 4, Join = 5 });
stored_choice!(PathKind { Work = 0, Wait = 1, Unknown = 2 });
stored_choice!(Outcome {
    Ok = 0,
    Error = 1,
    Incomplete = 2,
    Truncated = 3,
    Orphan = 4,
    Evicted = 5,
    Shared = 6,
});
stored_choice!(Reason {
    End = 0,
    Expect = 1,
    Final = 2,
    Root = 3,
    Quiet = 4,
    MaxAge = 5,
    Capacity = 6,
    Shutdown = 7,
    Failure = 8,
});

/// What was written, in one piece.
pub fn to_bytes(write: impl FnOnce(&mut Encoder<'_>)) -> Vec<u8> {
    let mut encoder = Encoder::new(|_| {});
    write(&mut encoder);
    encoder.into_bytes()
}

/// Reads what [`to_bytes`] wrote.
pub fn from_bytes<T>(
    bytes: &[u8],
    read: impl FnOnce(&mut Decoder<'_>) -> Result<T, Damaged>,
) -> Result<T, Damaged> {
    let mut bytes = Some(bytes.to_vec());
    read(&mut Decoder::new(move || bytes.take()))
}
