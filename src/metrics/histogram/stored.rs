//! Histograms as they are stored: beside the layout that most histograms of a flow share.

use std::sync::Arc;

use super::{Bounds, Histogram, Kept, Layout, Native, NativeLayout};
use crate::domain::stored::{Damaged, Decoder, Encoder, Stored, stored_fields};

stored_fields!(Kept { trace, nanoseconds, at });
stored_fields!(Native { schema, limit, zero, buckets });
stored_fields!(NativeLayout { schema, limit });
stored_fields!(Layout { bounds, shows_classic, native });

impl Stored for Bounds {
    fn write(&self, to: &mut Encoder<'_>) {
        self.seconds.write(to);
    }
    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        Arc::<[f64]>::read(from).map(|seconds| Bounds::from_seconds(&seconds))
    }
}

impl Histogram {
    /// Writes it; where its bounds are those of `layout`, without them.
    pub(in crate::metrics) fn store(&self, layout: &Layout, to: &mut Encoder<'_>) {
        (self.bounds != layout.bounds).then(|| self.bounds.clone()).write(to);
        self.counts.write(to);
        self.nanoseconds.write(to);
        self.native.write(to);
        self.exemplars.write(to);
    }

    /// Reads it again.
    pub(in crate::metrics) fn restore(layout: &Layout, from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        let bounds = Option::read(from)?.unwrap_or_else(|| layout.bounds.clone());
        let counts: Box<[u64]> = Stored::read(from)?;
        if counts.len() != bounds.seconds.len() + 1 {
            return Err(Damaged);
        }
        Ok(Histogram {
            bounds,
            shows_classic: layout.shows_classic,
            counts,
            nanoseconds: Stored::read(from)?,
            native: Stored::read(from)?,
            exemplars: Stored::read(from)?,
        })
    }
}
