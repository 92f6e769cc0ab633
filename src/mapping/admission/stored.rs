//! Why something was refused, as it is stored.

use super::Rejection;
use crate::domain::stored::stored_choice;

stored_choice!(Rejection {
    TraceId = 0,
    SpanId = 1,
    ParentSpanId = 2,
    TooFarAhead = 3,
    TooFarBehind = 4,
    Push = 5,
});
