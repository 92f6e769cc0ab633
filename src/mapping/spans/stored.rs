//! What a request with spans held, as it is stored.

use super::MappedSpans;
use crate::domain::stored::stored_fields;

stored_fields!(MappedSpans { events, received, rejected, sampled, overlong_keys });
