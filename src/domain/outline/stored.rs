//! Outlines as they are stored: without their index, which is found again when it is needed.

use super::{Handover, Node, Outline, Signals};
use crate::domain::stored::{Damaged, Decoder, Encoder, Stored, stored_fields};

stored_fields!(Node { span, parent, start, end, origin, member, stage, kind, flags, counts });
stored_fields!(Handover { to, from });
stored_fields!(Signals {
    start,
    ends,
    ends_in_error,
    finals,
    push_error,
    error_if,
    has_error_if,
    pushes,
    spans,
});

impl Stored for Outline {
    fn write(&self, to: &mut Encoder<'_>) {
        let Outline { nodes, index: _, has_root, stages, handovers, signals, overflowed } = self;
        nodes.write(to);
        has_root.write(to);
        stages.write(to);
        handovers.write(to);
        signals.write(to);
        overflowed.write(to);
    }
    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        Ok(Outline {
            nodes: Stored::read(from)?,
            index: None,
            has_root: Stored::read(from)?,
            stages: Stored::read(from)?,
            handovers: Stored::read(from)?,
            signals: Stored::read(from)?,
            overflowed: Stored::read(from)?,
        })
    }
}
