//! The metrics of a flow as they are stored.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use super::{FlowMetrics, Gauges, Recorded, SloResult};
use crate::domain::flow::Flow;
use crate::domain::stored::{Damaged, Decoder, Encoder, Stored, stored_choice};
use crate::metrics::histogram::{Histogram, Layout};
use crate::metrics::series::{SeriesLimits, SeriesMap};

stored_choice!(SloResult { Good = 0, Bad = 1 });

impl Stored for Gauges {
    fn write(&self, to: &mut Encoder<'_>) {
        self.open.load(Relaxed).write(to);
        self.overdue.load(Relaxed).write(to);
        self.last_closed.load(Relaxed).write(to);
    }
    fn read(from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        Ok(Gauges {
            open: AtomicI64::new(Stored::read(from)?),
            overdue: AtomicI64::new(Stored::read(from)?),
            last_closed: AtomicU64::new(Stored::read(from)?),
        })
    }
}

impl FlowMetrics {
    /// Writes down what was recorded; the gauges are stored by whoever knows all of them.
    pub(in crate::metrics) fn store(&self, to: &mut Encoder<'_>) {
        self.recorded().store(to);
    }

    /// The metrics of `flow` with what was recorded before; `shares`: whether with each stage's share as a distribution.
    pub(in crate::metrics) fn restore(
        flow: Arc<Flow>,
        gauges: Arc<Gauges>,
        limits: &SeriesLimits,
        shares: bool,
        from: &mut Decoder<'_>,
    ) -> Result<Self, Damaged> {
        let mut recorded = Recorded::restore(limits, from)?;
        if shares != recorded.path_share.is_some() {
            recorded.path_share = shares.then(|| SeriesMap::new(limits, recorded.layout.lines()));
        }
        Ok(FlowMetrics { flow, gauges, recorded: Arc::new(Mutex::new(recorded)) })
    }

    /// Whether what both have recorded is of the same kind.
    pub(in crate::metrics) fn is_like(&self, other: &FlowMetrics) -> bool {
        // One after the other: they may be the same.
        let layout = self.recorded().layout.clone();
        layout == other.recorded().layout
    }
}

impl Recorded {
    fn store(&self, to: &mut Encoder<'_>) {
        let Recorded {
            layout,
            latency,
            closed,
            path,
            path_share,
            skew,
            transition,
            stage,
            offset,
            missing,
            slo,
            own,
            last,
        } = self;
        layout.write(to);
        let histogram = |histogram: &Histogram, to: &mut Encoder<'_>| histogram.store(layout, to);
        latency.store(to, histogram);
        closed.store(to, Stored::write);
        path.store(to, Stored::write);
        path_share.is_some().write(to);
        path_share.iter().for_each(|shares| shares.store(to, histogram));
        skew.store(to, histogram);
        transition.store(to, histogram);
        stage.store(to, histogram);
        offset.store(to, histogram);
        missing.store(to, Stored::write);
        slo.store(to, Stored::write);
        own.store(to, histogram);
        last.store(to, Stored::write);
    }

    fn restore(limits: &SeriesLimits, from: &mut Decoder<'_>) -> Result<Self, Damaged> {
        let layout = Layout::read(from)?;
        let lines = layout.lines();
        let histogram = |from: &mut Decoder<'_>| Histogram::restore(&layout, from);
        let latency = SeriesMap::restore(limits, lines, from, histogram)?;
        let closed = SeriesMap::restore(limits, 1, from, Stored::read)?;
        let path = SeriesMap::restore(limits, 1, from, Stored::read)?;
        let has_shares = bool::read(from)?;
        let shares = has_shares.then(|| SeriesMap::restore(limits, lines, from, histogram));
        Ok(Recorded {
            latency,
            closed,
            path,
            path_share: shares.transpose()?,
            skew: SeriesMap::restore(limits, lines, from, histogram)?,
            transition: SeriesMap::restore(limits, lines, from, histogram)?,
            stage: SeriesMap::restore(limits, lines, from, histogram)?,
            offset: SeriesMap::restore(limits, lines, from, histogram)?,
            missing: SeriesMap::restore(limits, 1, from, Stored::read)?,
            slo: SeriesMap::restore(limits, 1, from, Stored::read)?,
            own: SeriesMap::restore(limits, lines, from, histogram)?,
            last: SeriesMap::restore(limits, 1, from, Stored::read)?,
            layout,
        })
    }
}
