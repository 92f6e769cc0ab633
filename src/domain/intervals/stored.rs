//! Intervals as they are stored.

use super::Intervals;
use crate::domain::stored::{Damaged, Decoder, Encoder, Stored};

impl Stored for Intervals {
    fn write(&self, to: &mut Encoder<'_>) {
        to.all(self.0.iter());
    }
    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        Vec::read(from).map(|intervals| Intervals(intervals.into()))
    }
}
