//! Which open traces are one instance: by links between them, and by values of business keys that they share.
//!
//! Knows neither events nor locks; it asks for one trace's [`Claim`] at a time. Invariant: a group has the same
//! members whichever of them is asked about, so that no trace is a member of two groups, and nothing depends on which
//! trace came first. (Beyond the cap on a group's size the order may matter.)

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::ids::{FlowId, Key, SpanId, TraceId};

/// What a span says about where its trace belongs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Joint {
    /// It took up work that a span of another trace had handed over.
    Link {
        /// That trace.
        trace: TraceId,
        /// That span.
        span: SpanId,
    },
    /// It carries a value of a flow's business key.
    Value {
        /// The flow.
        flow: FlowId,
        /// Which of the flow's keys: a value of an earlier one makes those of later ones unimportant.
        rank: u8,
        /// The value.
        value: Arc<str>,
    },
}

impl Joint {
    /// What it names, as seen from the instance found by `own`.
    pub fn target(&self, own: &Key) -> Key {
        match self {
            Joint::Link { trace, .. } => own.beside(*trace),
            Joint::Value { flow, value, .. } => value_key(*flow, value),
        }
    }
}

/// Where an open trace says that it belongs. Sorted, without repetition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claim {
    /// The instances of its business key's values.
    pub values: Vec<Key>,
    /// The traces that it is linked to.
    pub links: Vec<Key>,
    /// The configured flow that takes it for what it holds itself.
    pub matched: Option<FlowId>,
    /// Traces with different values are connected with it, so that it belongs to none of them, even if only one of
    /// these is left.
    pub is_contested: bool,
}

impl Claim {
    /// What the trace `own` claims by its joints; `matched` is the configured flow that its own events match.
    pub fn of<'j>(
        own: &Key,
        matched: Option<FlowId>,
        joints: impl Iterator<Item = &'j Joint> + Clone,
    ) -> Self {
        let values = chosen_values(matched, joints.clone()).map(|(flow, _, value)| value_key(flow, value));
        let values: BTreeSet<Key> = values.collect();
        let links = joints.filter(|joint| matches!(joint, Joint::Link { .. }));
        let links: BTreeSet<Key> = links.map(|joint| joint.target(own)).filter(|to| to != own).collect();
        let (values, links) = (values.into_iter().collect(), links.into_iter().collect());
        Claim { values, links, matched, is_contested: false }
    }

    /// Whether its spans are divided among several values.
    pub fn is_split(&self) -> bool {
        self.values.len() > 1
    }

    /// Whether `value` is one of its values.
    fn has_value(&self, value: &Key) -> bool {
        self.values.binary_search(value).is_ok()
    }

    /// Whether it took up work of several traces, and so is a tail that they share.
    pub fn is_batch(&self) -> bool {
        self.values.is_empty() && self.links.len() > 1
    }

    /// The one trace that it goes on with.
    fn follows(&self) -> Option<&Key> {
        match self.links.as_slice() {
            [target] if !self.is_split() => Some(target),
            _ => None,
        }
    }

    /// Everything that it names.
    pub fn targets(&self) -> impl Iterator<Item = &Key> {
        self.values.iter().chain(&self.links)
    }
}

/// The values that count: those of the flow that the trace matches, or else of the first flow that it has values of;
/// and of these, those of the flow's first key that has any.
pub fn chosen_values<'j>(
    matched: Option<FlowId>,
    joints: impl Iterator<Item = &'j Joint> + Clone,
) -> impl Iterator<Item = (FlowId, u8, &'j Arc<str>)> {
    let values = joints.filter_map(|joint| match joint {
        Joint::Value { flow, rank, value } => Some((*flow, *rank, value)),
        Joint::Link { .. } => None,
    });
    let of_flow = move |(flow, ..): &(FlowId, u8, _)| matched.is_none_or(|matched| matched == *flow);
    let best = values.clone().filter(of_flow).map(|(flow, rank, _)| (flow, rank)).min();
    values.filter(move |(flow, rank, _)| best == Some((*flow, *rank)))
}

/// What the instance of a business key's value is found by.
pub fn value_key(flow: FlowId, value: &Arc<str>) -> Key {
    Key::Named { flow, id: Arc::clone(value) }
}

/// Whether an instance is found by a value of this flow's key.
fn is_of(value: &Key, matched: FlowId) -> bool {
    matches!(value, Key::Named { flow, .. } if *flow == matched)
}

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It is open and claims this.
    Open(Arc<Claim>),
    /// Its instance is over.
    Closed,
    /// Nothing of it has come.
    Unknown,
}

/// Answers questions about open traces.
pub trait Traces {
    /// What is known of `key`.
    fn standing(&self, key: &Key) -> Standing;
    /// The open traces whose claims name `key`.
    fn claimants(&self, key: &Key) -> Vec<Key>;
}

/// Traces that are one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// What the instance is found by: a key's value, or the trace that all others go on from.
    pub key: Key,
    /// The open traces (and the pushes to the value) that end with it. Sorted.
    pub members: Vec<Key>,
    /// Traces with several values, some of whose spans are part of it.
    pub parts: Vec<Key>,
    /// Traces that took up its work together with that of others.
    pub tails: Vec<Key>,
    /// Open traces that are connected with a member by a link and belong elsewhere.
    pub neighbours: Vec<Key>,
    /// A member is linked to a trace of which nothing has come.
    pub awaits_link: bool,
    /// A member that has nothing else to go by is linked to a trace whose instance is over, or that is divided.
    pub missed_link: bool,
    /// The instance of its value is over: what its members hold came too late.
    pub is_late: bool,
    /// It would have more traces than it may.
    pub is_cut: bool,
}

/// How many batches may take up each other's work, one after the other, before the last stand alone.
pub const MAX_DEPTH: usize = 8;

/// How many times as many traces as a group may have are looked at to find it: those that are connected with it and
/// belong elsewhere come on top.
const BREADTH: usize = 4;

/// What an open trace claims, without the values that do not count: those whose instance no configured flow would take.
/// Else an attribute would join all the traffic that carries it, also what no flow asks for.
pub fn claim_of(key: &Key, traces: &impl Traces, limit: usize) -> Option<Arc<Claim>> {
    let mut search = Search::new(traces, limit);
    let mut claim = search.claim(key)?;
    if claim.is_split() && claim.matched.is_none() {
        Arc::make_mut(&mut claim).values.retain(|value| search.is_taken(value));
    }
    Some(claim)
}

/// The group that `start` belongs to; `limit` is the most traces of a group, its tails included.
pub fn group_of(start: &Key, traces: &impl Traces, limit: usize) -> Group {
    Search::new(traces, limit).group(start)
}

/// The groups that each of `starts` belongs to, all as of this moment.
pub fn groups_of<'k>(
    starts: impl Iterator<Item = &'k Key>,
    traces: &impl Traces,
    limit: usize,
) -> Vec<Group> {
    let mut search = Search::new(traces, limit);
    starts.map(|start| search.group(start)).collect()
}

struct Search<'t, T> {
    traces: &'t T,
    limit: usize,
    /// What the traces say.
    said: HashMap<Key, Standing>,
    /// The same without the values that do not count, where that leaves one or none: of several it is enough to know
    /// two.
    known: HashMap<Key, Standing>,
    /// Whether values count.
    taken: HashMap<Key, bool>,
    is_cut: bool,
}

/// What belongs to one home.
struct Assembled {
    members: BTreeSet<Key>,
    parts: Vec<Key>,
    neighbours: Vec<Key>,
}

/// Traces that follow each other, each with its home.
type Component = BTreeMap<Key, Key>;

impl<'t, T: Traces> Search<'t, T> {
    fn new(traces: &'t T, limit: usize) -> Self {
        let (said, known, taken) = Default::default();
        Search { traces, limit, said, known, taken, is_cut: false }
    }

    fn group(&mut self, start: &Key) -> Group {
        self.is_cut = false;
        let component = self.component(start);
        let key = component.get(start).unwrap_or(start).clone();
        let Assembled { members, parts, neighbours } = self.assemble(&key, component);
        let tails = self.tails(&members);
        let claims: Vec<Arc<Claim>> = members.iter().filter_map(|member| self.claim(member)).collect();
        let all_links = claims.iter().flat_map(|claim| &claim.links);
        let awaits_link = all_links.into_iter().any(|link| self.standing(link) == Standing::Unknown);
        let has_nothing_else = claims.iter().filter(|claim| claim.values.is_empty());
        let missed_link = has_nothing_else.flat_map(|claim| &claim.links).any(|link| self.is_missed(link));
        let named = matches!(key, Key::Named { .. });
        Group {
            awaits_link,
            missed_link,
            neighbours,
            is_late: named && self.standing(&key) == Standing::Closed,
            is_cut: self.is_cut,
            key,
            members: members.into_iter().collect(),
            parts,
            tails,
        }
    }

    fn said(&mut self, key: &Key) -> &Standing {
        self.said.entry(key.clone()).or_insert_with(|| self.traces.standing(key))
    }

    fn standing(&mut self, key: &Key) -> Standing {
        if let Some(known) = self.known.get(key) {
            return known.clone();
        }
        let mut standing = self.said(key).clone();
        // Those of a trace that a flow takes count without asking further.
        if let Standing::Open(claim) = &mut standing
            && claim.matched.is_none()
        {
            let taken: Vec<Key> =
                claim.values.iter().filter(|value| self.is_taken(value)).take(2).cloned().collect();
            if taken.len() < claim.values.len().min(2) {
                Arc::make_mut(claim).values = taken;
            }
        }
        self.known.insert(key.clone(), standing.clone());
        standing
    }

    /// Whether a value counts: a push has named it, or a configured flow takes a trace that has it, or one that belongs
    /// with such a trace and no other.
    fn is_taken(&mut self, value: &Key) -> bool {
        if let Some(known) = self.taken.get(value) {
            return *known;
        }
        let by_itself = *self.said(value) != Standing::Unknown;
        let claimants = self.traces.claimants(value);
        // Those that go by the value, not those that merely carry it.
        let mut goes_by = |key: &Key| match self.said(key) {
            Standing::Open(claim) if claim.has_value(value) => Some(claim.matched.is_some()),
            _ => None,
        };
        let claimants: Vec<(Key, bool)> =
            claimants.into_iter().filter_map(|key| goes_by(&key).map(|matched| (key, matched))).collect();
        let taken = by_itself
            || claimants.iter().any(|(_, is_matched)| *is_matched)
            || claimants.iter().any(|(claimant, _)| self.is_connected_with_match(claimant, value));
        self.taken.insert(value.clone(), taken);
        taken
    }

    /// Whether a trace with a value is connected, by links and over traces without values, with one that a configured
    /// flow takes, and with no other value.
    fn is_connected_with_match(&mut self, start: &Key, value: &Key) -> bool {
        let mut seen = BTreeSet::new();
        let mut is_matched = false;
        let mut waiting = vec![start.clone()];
        while let Some(key) = waiting.pop() {
            let Standing::Open(claim) = self.said(&key).clone() else { continue };
            if seen.len() >= self.limit || !seen.insert(key.clone()) {
                continue;
            }
            match claim.values.as_slice() {
                // Divided, it is followed by nobody and follows nobody.
                [_, _, ..] if key == *start => return false,
                [_, _, ..] => continue,
                [other] if other != value => return false,
                [_] if key != *start => continue,
                _ => {}
            }
            if claim.is_batch() || claim.is_contested {
                return false;
            }
            is_matched |= claim.matched.is_some_and(|matched| is_of(value, matched));
            waiting.extend(claim.follows().cloned());
            let mut followers = self.traces.claimants(&key);
            followers.retain(|follower| {
                matches!(self.said(follower), Standing::Open(claim) if claim.follows() == Some(&key))
            });
            waiting.extend(followers);
        }
        is_matched
    }

    fn claim(&mut self, key: &Key) -> Option<Arc<Claim>> {
        match self.standing(key) {
            Standing::Open(claim) => Some(claim),
            Standing::Closed | Standing::Unknown => None,
        }
    }

    /// Whether a link leads nowhere: to an instance that is over, or to a trace that is divided among several.
    fn is_missed(&mut self, link: &Key) -> bool {
        match self.standing(link) {
            Standing::Open(claim) => claim.is_split(),
            Standing::Closed => true,
            Standing::Unknown => false,
        }
    }

    /// The open trace that an open trace goes on with; none if that one is divided, for then it is not known with
    /// which part.
    fn followed(&mut self, key: &Key) -> Option<Key> {
        let claim = self.claim(key)?;
        let target = claim.follows()?;
        let is_split = self.claim(target)?.is_split();
        (!is_split).then(|| target.clone())
    }

    fn followers(&mut self, key: &Key) -> Vec<Key> {
        let mut followers = self.traces.claimants(key);
        followers.retain(|claimant| self.followed(claimant).as_ref() == Some(key));
        followers
    }

    /// All open traces that are connected with `start` by following each other.
    fn component(&mut self, start: &Key) -> Component {
        let mut keys = BTreeSet::new();
        let mut values = BTreeSet::new();
        let mut is_nobodys = false;
        let mut waiting = vec![start.clone()];
        while let Some(key) = waiting.pop() {
            let Some(claim) = self.claim(&key).filter(|_| !keys.contains(&key)) else { continue };
            if keys.len() >= self.limit {
                self.is_cut = true;
                break;
            }
            waiting.extend(self.followed(&key));
            waiting.extend(self.followers(&key));
            is_nobodys |= claim.is_batch() || claim.is_contested;
            if !claim.is_split() {
                values.extend(claim.values.iter().cloned());
            }
            keys.insert(key);
        }
        // None if they follow a batch, which belongs to nobody alone, or are contested.
        let only_value = if values.len() == 1 && !is_nobodys { values.pop_first() } else { None };
        self.homes(keys, only_value.as_ref())
    }

    /// What the instance of each of `keys` is found by: its own value; or the only value among the traces that it is
    /// connected with; or the first value along the links back; or the trace where they begin.
    fn homes(&mut self, keys: BTreeSet<Key>, only_value: Option<&Key>) -> Component {
        let mut homes = Component::new();
        for start in &keys {
            let mut way = Vec::new();
            let mut on_the_way = HashMap::new();
            let mut at = start.clone();
            let home = loop {
                if let Some(known) = homes.get(&at) {
                    break known.clone();
                }
                if let Some(place) = on_the_way.insert(at.clone(), way.len()) {
                    // A circle begins nowhere; any of it will do, as long as all agree.
                    break way[place..].iter().min().cloned().unwrap_or(at);
                }
                way.push(at.clone());
                let claim = self.claim(&at).unwrap_or_default();
                match (claim.values.as_slice(), only_value) {
                    ([value], _) | ([], Some(value)) => break value.clone(),
                    ([_, _, ..], _) => break at,
                    ([], None) => {}
                }
                // Beyond the limit nobody looks, so that it begins there.
                match self.followed(&at).filter(|next| keys.contains(next)) {
                    Some(next) => at = next,
                    None => break at,
                }
            };
            homes.extend(way.into_iter().map(|passed| (passed, home.clone())));
        }
        homes
    }

    /// All open traces whose home is `home`, and those that are divided and have a share in it.
    fn assemble(&mut self, home: &Key, component: Component) -> Assembled {
        let mut parts = Vec::new();
        let mut members = BTreeSet::new();
        let mut neighbours = Vec::new();
        let mut components = vec![component];
        if matches!(home, Key::Named { .. }) && self.is_taken(home) {
            members.extend(self.claim(home).is_some().then(|| home.clone()));
            let mut seen: BTreeSet<Key> = components[0].keys().cloned().collect();
            for claimant in self.traces.claimants(home) {
                // Some only carry the value, and go by another one.
                let Some(claim) = self.claim(&claimant).filter(|claim| claim.has_value(home)) else {
                    continue;
                };
                if claim.is_split() {
                    parts.push(claimant);
                } else if !seen.contains(&claimant) {
                    if seen.len() >= self.limit.saturating_mul(BREADTH) {
                        self.is_cut = true;
                        continue;
                    }
                    let component = self.component(&claimant);
                    seen.extend(component.keys().cloned());
                    components.push(component);
                }
            }
        }
        for (key, home_of_key) in components.into_iter().flatten() {
            if home_of_key != *home {
                neighbours.push(key);
            } else if members.len() < self.limit {
                members.insert(key);
            } else {
                self.is_cut |= !members.contains(&key);
            }
        }
        parts.sort();
        Assembled { members, parts, neighbours }
    }

    /// The batches that took up work of `members`, what goes on from them, and the batches that took up that.
    fn tails(&mut self, members: &BTreeSet<Key>) -> Vec<Key> {
        let mut tails: BTreeSet<Key> = BTreeSet::new();
        let mut edge: Vec<Key> = members.iter().cloned().collect();
        for depth in 0.. {
            let mut heads: Vec<Key> = edge.iter().flat_map(|key| self.traces.claimants(key)).collect();
            heads.retain(|head| {
                let is_batch = self.claim(head).is_some_and(|claim| claim.is_batch());
                is_batch && !members.contains(head) && !tails.contains(head)
            });
            heads.sort();
            heads.dedup();
            if heads.is_empty() {
                break;
            }
            if depth == MAX_DEPTH {
                self.is_cut = true;
                break;
            }
            edge.clear();
            for head in heads {
                for (key, home) in self.component(&head) {
                    if home == head && !tails.contains(&key) {
                        let has_room = members.len() + tails.len() < self.limit;
                        self.is_cut |= !has_room;
                        edge.extend(has_room.then(|| key.clone()));
                        tails.extend(has_room.then_some(key));
                    }
                }
            }
        }
        tails.into_iter().collect()
    }
}
