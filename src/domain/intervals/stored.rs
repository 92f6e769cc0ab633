//! Intervals as they are stored.

use super::Intervals;
use crate::domain::stored::{Damaged, Decoder, Encoder, Stored};

impl Stored for Intervals {
    fn write(&self, to: &mut Encoder<'_>) {
        self.0.to_vec().write(to);
    }
    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        Vec::read(from).map(|intervals| Intervals(intervals.into()))
    }
}
