//! Open instances as they are stored: with all that decides about them, and without what follows from that.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::{Body, Extra, Instance, Joints, Rules};
use crate::domain::completion::{self, Clocks};
use crate::domain::flow::Flow;
use crate::domain::ids::FlowId;
use crate::domain::stored::{Damaged, Decoder, Encoder, Stored};
use crate::domain::time::Arrival;

impl Stored for Joints {
    fn write(&self, to: &mut Encoder<'_>) {
        let Joints { all, distinct, observed, observed_flow, is_contested, claim: _, division: _ } = self;
        all.write(to);
        distinct.write(to);
        observed.write(to);
        observed_flow.write(to);
        is_contested.write(to);
    }
    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        Ok(Joints {
            all: Stored::read(from)?,
            distinct: Stored::read(from)?,
            observed: Stored::read(from)?,
            observed_flow: Stored::read(from)?,
            is_contested: Stored::read(from)?,
            claim: OnceLock::new(),
            division: OnceLock::new(),
        })
    }
}

impl Stored for Body {
    fn write(&self, to: &mut Encoder<'_>) {
        match self {
            Body::Detailed { events } => {
                false.write(to);
                events.write(to);
            }
            Body::Stub(stub) => {
                true.write(to);
                stub.write(to);
            }
        }
    }
    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        if bool::read(from)? {
            return Stored::read(from).map(Body::Stub);
        }
        Ok(Body::Detailed { events: Stored::read(from)? })
    }
}

impl Instance {
    /// Makes it older by `by`, and has it looked at in time. Returns when, if that is sooner than was planned.
    pub fn grow_older(&mut self, by: Duration, now: Arrival) -> Option<Arrival> {
        self.first = self.first.minus(by);
        let too_old = completion::age_limit(&self.flow, &self.clocks()).max(now);
        self.due = self.due.min(too_old);
        let wake = self.overdue_at().map_or(self.due, |at| at.max(now).min(self.due));
        if wake >= self.wake {
            return None;
        }
        self.planned = self.planned.max(wake);
        self.wake = wake;
        Some(wake)
    }

    /// Writes it down.
    pub fn store(&self, rules: &impl Rules, to: &mut Encoder<'_>) {
        self.flow.id.write(to);
        // One that no flow has taken yet keeps to the defaults under which it was opened.
        let is_unmatched = self.flow.id == rules.unmatched().id;
        is_unmatched.then_some(self.flow.timers).write(to);
        self.matched.write(to);
        self.generation.write(to);
        self.pinned.write(to);
        self.flow_is_stale.write(to);
        self.clocks().write(to);
        self.extra.as_ref().and_then(|extra| extra.time_to_live).write(to);
        self.spans.write(to);
        self.body.write(to);
        self.joints.write(to);
        self.lens().write(to);
        self.overdue.write(to);
        self.has_news.write(to);
        self.due.write(to);
        self.planned.write(to);
        self.wake.write(to);
        self.counted_events.write(to);
        self.counted_as_stub.write(to);
    }

    /// Reads it again; `rules` know its flow.
    pub fn restore(rules: &impl Rules, from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        let known = rules.flow(Stored::read(from)?);
        let flow = match Option::read(from)? {
            Some(timers) if timers != known.timers => Arc::new(Flow { timers, ..Flow::clone(&known) }),
            _ => known,
        };
        let (matched, generation) = (Stored::read(from)?, Stored::read(from)?);
        let (pinned, flow_is_stale) = (Stored::read(from)?, Stored::read(from)?);
        let Clocks { first, last, life_span } = Stored::read(from)?;
        let time_to_live: Option<Duration> = Stored::read(from)?;
        let is_pushed = life_span.is_some() || time_to_live.is_some();
        let mut instance = Instance {
            flow,
            matched,
            generation,
            pinned,
            flow_is_stale,
            first,
            last,
            extra: is_pushed.then(|| Box::new(Extra { life_span, time_to_live, index: None, is_cut: false })),
            spans: Stored::read(from)?,
            body: Stored::read(from)?,
            joints: Stored::read(from)?,
            lens: Option::read(from)?.unwrap_or(FlowId::NONE),
            overdue: Stored::read(from)?,
            has_news: Stored::read(from)?,
            changes: 0,
            weight: 0,
            due: Stored::read(from)?,
            planned: Stored::read(from)?,
            wake: Stored::read(from)?,
            counted_events: Stored::read(from)?,
            counted_as_stub: Stored::read(from)?,
        };
        instance.note_cut(rules);
        instance.weigh();
        Ok(instance)
    }
}
