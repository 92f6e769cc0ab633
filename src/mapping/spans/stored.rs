//! What a request with spans held, as it is stored.

use super::MappedSpans;
use crate::domain::stored::{stored_choice, stored_fields};
use crate::mapping::admission::Rejection;

stored_choice!(Rejection {
    TraceId = 0,
    SpanId = 1,
    ParentSpanId = 2,
    TooFarAhead = 3,
    TooFarBehind = 4,
    Push = 5,
});
stored_fields!(MappedSpans { events, received, rejected, sampled, overlong_keys });
