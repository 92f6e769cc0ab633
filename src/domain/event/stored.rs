//! Events as they are stored. The identity of an event is found again from what it is.

use std::time::Duration;

use super::{Event, Facts, Flags, Kind, Matches, PushFacts, View};
use crate::domain::footprint::Held;
use crate::domain::stored::{Damaged, Decoder, Encoder, Stored, stored_choice, stored_fields};
use crate::domain::time::EventTime;

impl Stored for Flags {
    fn write(&self, to: &mut Encoder<'_>) {
        to.raw(&[self.0]);
    }
    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        from.raw(1).map(|bytes| Flags(bytes[0]))
    }
}

impl Stored for Held {
    fn write(&self, _: &mut Encoder<'_>) {}
    fn read(_: &mut Decoder<'_>) -> Result<Self, Damaged> {
        Ok(Held::default())
    }
}

stored_choice!(Kind { Internal = 0, Server = 1, Client = 2, Producer = 3, Consumer = 4, Push = 5 });

impl Stored for Event {
    fn write(&self, to: &mut Encoder<'_>) {
        let Event { end, start, span, parent, kind, flags, facts, member } = self;
        end.write(to);
        // Most are short.
        to.number(end.nanoseconds_since(*start).into());
        span.write(to);
        parent.write(to);
        kind.write(to);
        flags.write(to);
        facts.write(to);
        member.write(to);
    }
    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        let end = EventTime::read(from)?;
        let start = end.minus(Duration::from_nanos(from.number()?));
        Ok(Event {
            end,
            start,
            span: Stored::read(from)?,
            parent: Stored::read(from)?,
            kind: Stored::read(from)?,
            flags: Stored::read(from)?,
            facts: Stored::read(from)?,
            member: Stored::read(from)?,
        })
    }
}

stored_fields!(Matches { first, also });
stored_fields!(View { stage, start, ends, error, labels });
stored_fields!(PushFacts { flow, home, view, earlier, labels, life_span, time_to_live });
stored_fields!(Facts { service, origin, name, threshold, matches, matched_before, views, push, held });
