//! Stubs as they are stored.

use super::{Own, Stub};
use crate::domain::stored::stored_fields;

stored_fields!(Own { stages, counts, tails });
stored_fields!(Stub { outline, summary, waiting, events, exact, coarsened, own });
