//! Lists of which nearly all are short, as long as a trace has spans, and so need no allocation.

use smallvec::SmallVec;

/// What there is one of for each event of an instance.
pub(super) type Few<T> = SmallVec<[T; 16]>;
