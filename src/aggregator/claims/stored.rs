//! Claims as they are stored.

use super::Claims;
use crate::aggregator::stored::{restore_map, store_map};
use crate::domain::stored::{Damaged, Decoder, Encoder};

impl Claims {
    pub(in crate::aggregator) fn store(&self, to: &mut Encoder<'_>) {
        store_map(&self.by_target, to);
        store_map(&self.by_claimant, to);
    }

    pub(in crate::aggregator) fn restore(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        Ok(Claims { by_target: restore_map(from)?, by_claimant: restore_map(from)? })
    }
}
