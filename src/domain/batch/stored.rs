//! The events of a request as they are stored, before any has been taken.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Batch, Events, Run};
use crate::domain::event::Facts;
use crate::domain::stored::{Damaged, Decoder, Encoder, Stored};

impl Stored for Batch {
    fn write(&self, to: &mut Encoder<'_>) {
        /// What an event takes at most but for its facts, nearly always.
        const EVENT_BYTES: usize = 48;
        let Events { events, joints } = &self.events;
        to.reserve(events.len() * EVENT_BYTES);
        to.number(self.runs.len() as u128);
        for Run { key, first, length } in &self.runs {
            key.write(to);
            to.number(*length as u128);
            events[*first..first + length].iter().flatten().for_each(|event| event.write(to));
        }
        joints.write(to);
    }
    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        let mut runs = Vec::new();
        let mut events = Vec::new();
        for _ in 0..from.count()? {
            let key = Stored::read(from)?;
            let (first, length) = (events.len(), from.count()?);
            for _ in 0..length {
                events.push(Some(Stored::read(from)?));
            }
            runs.push(Run { key, first, length });
        }
        Ok(Batch { runs, events: Events { events, joints: Stored::read(from)? } })
    }
}

/// Facts that have been read, so that equal ones of several requests are shared again, as they were.
#[derive(Debug, Default)]
pub struct KnownFacts(BTreeSet<Arc<Facts>>);

impl KnownFacts {
    /// With more of them it begins anew.
    const MOST: usize = 32_768;

    /// Shares the facts of a batch with those of the ones before it.
    pub fn share(&mut self, batch: &mut Batch) {
        let mut last: Option<(Arc<Facts>, Arc<Facts>)> = None;
        for event in batch.events.events.iter_mut().flatten() {
            let known = match &last {
                Some((read, known)) if Arc::ptr_eq(read, &event.facts) => Arc::clone(known),
                _ => self.known(&event.facts),
            };
            last = Some((std::mem::replace(&mut event.facts, Arc::clone(&known)), known));
        }
    }

    fn known(&mut self, facts: &Arc<Facts>) -> Arc<Facts> {
        if let Some(known) = self.0.get(facts) {
            return Arc::clone(known);
        }
        if self.0.len() >= Self::MOST {
            self.0.clear();
        }
        self.0.insert(Arc::clone(facts));
        Arc::clone(facts)
    }
}
