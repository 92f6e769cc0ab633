//! How many distinct things there were, roughly, in constant room.
//!
//! A HyperLogLog (Flajolet et al., 2007) of 1024 registers: a standard error of 3.25 %. For small numbers it counts
//! empty registers instead.

/// The registers.
#[derive(Debug)]
pub(super) struct Distinct([u8; REGISTERS]);

const REGISTERS: usize = 1024;

impl Default for Distinct {
    fn default() -> Self {
        Distinct([0; REGISTERS])
    }
}

impl Distinct {
    /// Takes in the hash of one of them; all 64 bits of it must be good.
    pub(super) fn add(&mut self, hash: u64) {
        let register = hash as usize % REGISTERS;
        let rank = (hash >> 10).trailing_zeros().min(54) as u8 + 1;
        self.0[register] = self.0[register].max(rank);
    }

    /// How many distinct ones there were.
    pub(super) fn estimate(&self) -> u64 {
        let registers = REGISTERS as f64;
        let sum: f64 = self.0.iter().map(|&rank| 2_f64.powi(-i32::from(rank))).sum();
        let raw = 0.7213 / (1.0 + 1.079 / registers) * registers * registers / sum;
        let empty = self.0.iter().filter(|&&rank| rank == 0).count();
        let estimate = if raw <= 2.5 * registers && empty > 0 {
            registers * (registers / empty as f64).ln()
        } else {
            raw
        };
        estimate.round() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::BuildHasher;

    #[test]
    fn an_estimate_is_within_a_tenth() {
        let hasher = foldhash::quality::FixedState::default();
        for count in [1_u64, 10, 1000, 3000, 100_000, 2_000_000] {
            let mut distinct = Distinct::default();
            for thing in (0..count).chain(0..count.min(1000)) {
                distinct.add(hasher.hash_one(thing));
            }
            let estimate = distinct.estimate() as f64;
            assert!((estimate / count as f64 - 1.0).abs() < 0.1, "{count}: {estimate}");
        }
    }
}
