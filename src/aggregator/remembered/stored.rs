//! Remembered keys as they are stored. Their fingerprints depend on the aggregator's seed.

use super::Remembered;
use crate::aggregator::stored::{restore_map, store_map};
use crate::domain::stored::{Damaged, Decoder, Encoder, Stored};

impl Remembered {
    pub(in crate::aggregator) fn store(&self, to: &mut Encoder<'_>) {
        store_map(&self.young, to);
        store_map(&self.old, to);
        self.turned.write(to);
    }

    /// How many there may be, and for how long, is a matter of the config.
    pub(in crate::aggregator) fn restore(&mut self, from: &mut Decoder<'_>) -> Result<(), Damaged> {
        self.young = restore_map(from)?;
        self.old = restore_map(from)?;
        self.turned = Stored::read(from)?;
        Ok(())
    }
}
