//! Candidates for labels as they are stored.

use super::{Candidate, Candidates};
use crate::domain::stored::{Damaged, Decoder, Encoder, Stored, stored_fields};

impl Stored for Candidates {
    fn write(&self, to: &mut Encoder<'_>) {
        to.number(self.0.len() as u128);
        for (name, candidates) in &self.0 {
            name.write(to);
            to.all(candidates.iter());
        }
    }
    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        let all: Vec<(_, Vec<Candidate>)> = Stored::read(from)?;
        Ok(Candidates(all.into_iter().map(|(name, candidates)| (name, candidates.into())).collect()))
    }
}

stored_fields!(Candidate { value, first, last, root });
