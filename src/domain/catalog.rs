//! All flows of the program, by id and by name: the configured ones, the built-in one, and those pushes created.
//!
//! Invariant: an id always means the same flow, and the number of flows that pushes create is bounded.

mod stored;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use super::flow::{Flow, Keys, Labels, Measure, OnIncomplete, Origin, Sampling, Timers};
use super::ids::FlowId;
use super::instance::Rules;
use super::names::overlap;

/// All flows of the program.
#[derive(Debug)]
pub struct Catalog {
    /// In file order; the built-in flow comes last, if it is on.
    fixed: Box<[Arc<Flow>]>,
    /// Versions of flows that this config has not, and that go on serving the instances that they have.
    earlier: Vec<Arc<Flow>>,
    /// All versions there have been, as far back as instances and tombstones may name them; the newest come last. Shared
    /// with the catalogs before and after this one: whoever still works with an older one meets newer instances, too.
    versions: Arc<RwLock<VecDeque<Arc<Flow>>>>,
    generation: u32,
    unmatched: Arc<Flow>,
    spans_may_match: bool,
    pushed: Arc<RwLock<Pushed>>,
    limits: Limits,
}

/// What bounds the flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many flows pushes may create.
    pub pushed_flows: usize,
    /// How many events one instance keeps.
    pub events_per_instance: usize,
    /// From how many events on an instance that only waits is folded.
    pub fold_from: usize,
    /// Of how many events at most the result of an instance has them, to be explained by.
    pub explained_events: usize,
}

#[derive(Debug, Default)]
struct Pushed {
    flows: Vec<Arc<Flow>>,
    by_name: HashMap<Arc<str>, FlowId>,
}

/// The place of the first flow that pushes create: behind all others, however many these become.
pub const PUSHED: u32 = 1 << 30;

/// How many versions of flows are remembered.
const MAX_VERSIONS: usize = 4096;

/// Why a push cannot create a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CannotCreate {
    /// Pushes have created as many flows as they may.
    TooMany,
    /// Its metric would get in the way of this one.
    Overlaps(Arc<str>),
}

impl Catalog {
    /// A catalog of `fixed` flows in file order; `timers` are the defaults, and `spans_may_match` says whether spans can
    /// match a configured one.
    pub fn new(fixed: Vec<Arc<Flow>>, timers: Timers, spans_may_match: bool, limits: Limits) -> Self {
        debug_assert!((0..).zip(&fixed).all(|(place, flow)| flow.id.place == place));
        let unmatched = Arc::new(plain(FlowId::NONE, Arc::from(""), Origin::BuiltIn, timers));
        let versions = Arc::new(RwLock::new(fixed.iter().map(Arc::clone).collect()));
        let (earlier, pushed) = Default::default();
        Catalog {
            fixed: fixed.into(),
            earlier,
            versions,
            generation: 0,
            unmatched,
            spans_may_match,
            pushed,
            limits,
        }
    }

    /// The catalog that takes the place of this one: with other `fixed` flows, `earlier` versions of them, and the same
    /// pushed ones.
    pub fn successor(
        &self,
        fixed: Vec<Arc<Flow>>,
        earlier: Vec<Arc<Flow>>,
        timers: Timers,
        spans_may_match: bool,
        generation: u32,
    ) -> Result<Self, (Arc<str>, Arc<str>)> {
        {
            let pushed = self.pushed.read().unwrap_or_else(PoisonError::into_inner);
            for (flow, metric) in fixed.iter().filter_map(|flow| Some((flow, flow.metric.as_ref()?))) {
                // Where pushes have created one of its name, it goes on in its place.
                let others = pushed.flows.iter().filter(|other| other.name != flow.name);
                let others = others.filter_map(|flow| flow.metric.as_ref());
                if let Some(other) = others.into_iter().find(|other| overlap(metric, other)) {
                    return Err((Arc::clone(metric), Arc::clone(other)));
                }
            }
        }
        {
            let mut versions = self.versions.write().unwrap_or_else(PoisonError::into_inner);
            let new = fixed.iter().filter(|flow| flow.id.generation == generation);
            versions.extend(new.map(Arc::clone));
            let surplus = versions.len().saturating_sub(MAX_VERSIONS.max(fixed.len()));
            versions.drain(..surplus);
        }
        let versions = Arc::clone(&self.versions);
        let pushed = Arc::clone(&self.pushed);
        let unmatched = Flow { timers, ..Flow::clone(&self.unmatched) };
        let next = Catalog::new(fixed, timers, spans_may_match, self.limits);
        Ok(Catalog { earlier, versions, generation, unmatched: Arc::new(unmatched), pushed, ..next })
    }

    /// The versions of a flow before the one in force, by the id of its first one.
    pub fn earlier(&self, home: FlowId) -> Vec<Arc<Flow>> {
        self.earlier.iter().filter(|flow| flow.home == home).map(Arc::clone).collect()
    }

    /// The timers of a trace that no flow has taken yet.
    pub fn default_timers(&self) -> &Timers {
        &self.unmatched.timers
    }

    /// The configured flows in file order, then the built-in one.
    pub fn fixed(&self) -> &[Arc<Flow>] {
        &self.fixed
    }

    /// All flows, those that pushes created last.
    pub fn all(&self) -> Vec<Arc<Flow>> {
        let pushed = self.pushed.read().unwrap_or_else(PoisonError::into_inner);
        self.fixed.iter().chain(&pushed.flows).map(Arc::clone).collect()
    }

    /// The configured flow with this name, if there is one. The built-in flow cannot be pushed to.
    pub fn configured(&self, name: &str) -> Option<&Arc<Flow>> {
        self.fixed.iter().find(|flow| flow.origin == Origin::Configured && *flow.name == *name)
    }

    /// The flow that pushes with this name belong to, created if it is new.
    pub fn pushed(&self, name: &str) -> Result<Arc<Flow>, CannotCreate> {
        if let Some(known) = self.known_push(name) {
            return Ok(known);
        }
        let mut pushed = self.pushed.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(&id) = pushed.by_name.get(name) {
            return Ok(self.nth_pushed(&pushed, id));
        }
        if pushed.flows.len() >= self.limits.pushed_flows {
            return Err(CannotCreate::TooMany);
        }
        let metrics = self.fixed.iter().chain(&pushed.flows).filter_map(|flow| flow.metric.as_ref());
        if let Some(other) = metrics.into_iter().find(|other| overlap(name, other)) {
            return Err(CannotCreate::Overlaps(Arc::clone(other)));
        }
        let id = FlowId::at(PUSHED + u32::try_from(pushed.flows.len()).unwrap_or(0));
        let name: Arc<str> = Arc::from(name);
        let metric = Some(Arc::clone(&name));
        let flow = Arc::new(Flow { metric, ..plain(id, name, Origin::Pushed, self.unmatched.timers) });
        pushed.flows.push(Arc::clone(&flow));
        pushed.by_name.insert(Arc::clone(&flow.name), id);
        Ok(flow)
    }

    /// The flow that pushes with this name created, if they have.
    pub fn known_push(&self, name: &str) -> Option<Arc<Flow>> {
        let pushed = self.pushed.read().unwrap_or_else(PoisonError::into_inner);
        pushed.by_name.get(name).map(|&id| self.nth_pushed(&pushed, id))
    }

    fn nth_pushed(&self, pushed: &Pushed, id: FlowId) -> Arc<Flow> {
        Arc::clone(&pushed.flows[(id.place - PUSHED) as usize])
    }
}

impl Rules for Catalog {
    fn flow(&self, id: FlowId) -> Arc<Flow> {
        let fixed = self.fixed.get(id.place as usize).filter(|flow| flow.id == id);
        if let Some(flow) = fixed.or_else(|| self.earlier.iter().find(|flow| flow.id == id)) {
            return Arc::clone(flow);
        }
        if id.place < PUSHED {
            let versions = self.versions.read().unwrap_or_else(PoisonError::into_inner);
            let known = versions.iter().rev().find(|flow| flow.id == id);
            return Arc::clone(known.unwrap_or(&self.unmatched));
        }
        let pushed = self.pushed.read().unwrap_or_else(PoisonError::into_inner);
        let place = id.place.checked_sub(PUSHED).map(|place| place as usize);
        Arc::clone(place.and_then(|place| pushed.flows.get(place)).unwrap_or(&self.unmatched))
    }

    fn unmatched(&self) -> &Arc<Flow> {
        &self.unmatched
    }

    fn spans_may_match(&self) -> bool {
        self.spans_may_match
    }

    fn events_per_instance(&self) -> usize {
        self.limits.events_per_instance
    }

    fn fold_from(&self) -> usize {
        self.limits.fold_from
    }

    fn explained_events(&self) -> usize {
        self.limits.explained_events
    }

    fn generation(&self) -> u32 {
        self.generation
    }
}

/// A flow that requires nothing and takes the labels that its pushes bring.
fn plain(id: FlowId, name: Arc<str>, origin: Origin, timers: Timers) -> Flow {
    Flow {
        id,
        home: id,
        name,
        origin,
        keys: Keys::Trace,
        also: false,
        timers,
        max_clock_skew: Duration::ZERO,
        sampling: Sampling::Count,
        start: None,
        ends: Vec::new(),
        expect: Vec::new(),
        labels: Labels::Union,
        measure: Measure::Extent,
        on_incomplete: OnIncomplete::Inf,
        slo: None,
        metric: None,
        help: OnceLock::new(),
        stage_buckets: Vec::new(),
        buckets: OnceLock::new(),
    }
}
