//! By how many something that is counted of each flow became more or fewer.

use smallvec::SmallVec;

use crate::domain::ids::FlowId;

/// What a batch of events or a sweep changed. What comes for a few flows in turn is added up at once.
#[derive(Debug, Default)]
pub struct Changes(SmallVec<[(FlowId, i64); 4]>);

impl Changes {
    /// Among how many of the flows that came last one is looked for.
    const LOOK_BACK: usize = 8;

    /// So many more of a flow, or fewer.
    pub fn add(&mut self, flow: FlowId, by: i64) {
        if by == 0 {
            return;
        }
        let mut last = self.0.iter_mut().rev().take(Self::LOOK_BACK);
        match last.find(|(known, _)| *known == flow) {
            Some((_, sum)) => *sum += by,
            None => self.0.push((flow, by)),
        }
    }

    /// One thing less of one flow, one more of another.
    pub(super) fn shift(&mut self, from: FlowId, to: FlowId) {
        self.add(from, -1);
        self.add(to, 1);
    }

    /// What changed; a flow may come more than once.
    pub fn each(&self) -> impl Iterator<Item = (FlowId, i64)> {
        self.0.iter().copied().filter(|(_, by)| *by != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_is_in_a_sum() {
        for flows in [1, 3, 100] {
            let mut changes = Changes::default();
            for step in 0..300 {
                changes.add(FlowId::at(step % flows), 2);
                changes.shift(FlowId::at(step % flows), FlowId::NONE);
            }
            let sum = |wanted: FlowId| -> i64 {
                changes.each().filter(|(flow, _)| *flow == wanted).map(|(_, by)| by).sum()
            };
            assert!((0..flows).all(|flow| sum(FlowId::at(flow)) == i64::from(300 / flows)));
            assert_eq!(sum(FlowId::NONE), 300);
            assert!(flows > 3 || changes.0.len() == flows as usize + 1);
        }
    }
}
