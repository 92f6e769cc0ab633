//! Candidates for labels as they are stored.

use super::{Candidate, Candidates};
use crate::domain::stored::{Damaged, Decoder, Encoder, Stored, stored_fields};

impl Stored for Candidates {
    fn write(&self, to: &mut Encoder<'_>) {
        self.0.write(to);
    }
    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        Stored::read(from).map(Candidates)
    }
}

stored_fields!(Candidate { value, first, last, root });
