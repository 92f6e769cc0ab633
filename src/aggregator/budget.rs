//! How much may be kept, and what happens when that becomes too much.
//!
//! Pure: it is told what is kept and what time it is. Invariant: between taking requests again and refusing them lies a
//! tenth of the budget, so that nothing swings to and fro from one request to the next.

use std::time::Duration;

use crate::domain::time::Arrival;

/// What may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Bytes of all that is kept of open and closed instances.
    pub bytes: u64,
    /// Open instances.
    pub instances: u64,
}

/// What is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Used {
    /// Bytes, as [`Budget::bytes`].
    pub bytes: u64,
    /// Open instances.
    pub instances: u64,
}

impl Used {
    /// Adds an instance of so many bytes.
    pub(super) fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.instances += 1;
    }
}

/// What is done about how much is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// Nothing: there is room.
    #[default]
    None,
    /// Requests are to be sent again later.
    Refusing,
    /// The same, and what costs most for least is ended early.
    Evicting,
}

/// From this part of the budget on requests are refused, until it is this part again.
const REFUSE_PERCENT: u64 = 80;
const RESUME_PERCENT: u64 = 70;

/// For how long requests are refused before room is made: what only waits for something that may never come must not
/// keep out everything else.
const PATIENCE: Duration = Duration::from_secs(30);

impl Budget {
    /// What is to be done from `now` on, where `current` has been done since `since`.
    pub(super) fn next(&self, current: Pressure, since: Arrival, used: Used, now: Arrival) -> Pressure {
        let reaches = |percent: u64| {
            let is_over =
                |used: u64, budget: u64| u128::from(used) * 100 >= u128::from(budget) * u128::from(percent);
            is_over(used.bytes, self.bytes) || is_over(used.instances, self.instances)
        };
        match current {
            Pressure::Evicting if reaches(RESUME_PERCENT) => Pressure::Evicting,
            _ if reaches(100) => Pressure::Evicting,
            Pressure::Refusing if reaches(RESUME_PERCENT) && now.since(since) >= PATIENCE => {
                Pressure::Evicting
            }
            Pressure::Refusing if reaches(RESUME_PERCENT) => Pressure::Refusing,
            _ if reaches(REFUSE_PERCENT) => Pressure::Refusing,
            _ => Pressure::None,
        }
    }

    /// By how much more is kept than when requests are taken again.
    pub(super) fn excess(&self, used: Used) -> Used {
        let excess = |used: u64, budget: u64| {
            let most = (u128::from(budget) * u128::from(RESUME_PERCENT)).saturating_sub(1) / 100;
            used.saturating_sub(u64::try_from(most).expect("less than the budget"))
        };
        Used { bytes: excess(used.bytes, self.bytes), instances: excess(used.instances, self.instances) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Budget = Budget { bytes: 1000, instances: 100 };

    fn at(seconds: u64) -> Arrival {
        Arrival::since_origin(Duration::from_secs(seconds))
    }

    #[test]
    fn requests_are_refused_from_four_fifths_on_until_there_is_room_again() {
        let bytes = |bytes| Used { bytes, instances: 0 };
        let instances = |instances| Used { bytes: 0, instances };
        for (current, seconds, used, expected) in [
            (Pressure::None, 0, bytes(799), Pressure::None),
            (Pressure::None, 0, bytes(800), Pressure::Refusing),
            (Pressure::None, 0, instances(79), Pressure::None),
            (Pressure::None, 0, instances(80), Pressure::Refusing),
            (Pressure::Refusing, 1, bytes(700), Pressure::Refusing),
            (Pressure::Refusing, 1, bytes(699), Pressure::None),
            (Pressure::Refusing, 30, bytes(700), Pressure::Evicting),
            (Pressure::Refusing, 30, bytes(699), Pressure::None),
            (Pressure::None, 0, bytes(1000), Pressure::Evicting),
            (Pressure::Refusing, 1, instances(100), Pressure::Evicting),
            (Pressure::Evicting, 1, bytes(700), Pressure::Evicting),
            (Pressure::Evicting, 1, bytes(699), Pressure::None),
        ] {
            assert_eq!(
                BUDGET.next(current, at(0), used, at(seconds)),
                expected,
                "{current:?} {seconds} {used:?}"
            );
        }
        assert_eq!(BUDGET.excess(bytes(1000)), bytes(301));
        assert_eq!(BUDGET.excess(instances(71)), instances(2));
        assert_eq!(BUDGET.excess(instances(69)), instances(0));
        let whole = Budget { bytes: u64::MAX, instances: 1 };
        assert_eq!(whole.next(Pressure::None, at(0), bytes(u64::MAX), at(0)), Pressure::Evicting);
    }
}
