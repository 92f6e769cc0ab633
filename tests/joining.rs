//! The invariant of the search for groups, on random claims: whoever of a group is asked, it is the same group.

#![allow(clippy::unwrap_used, reason = "a test that meets None has failed")]

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use latency_aggregator::domain::ids::{FlowId, Key, TraceId};
use latency_aggregator::domain::joining::{Claim, Group, Standing, Traces, claim_of, group_of, value_key};
use proptest::prelude::*;

/// No group of these is that large.
const LIMIT: usize = 100;

/// Traces that claim what they are told to.
#[derive(Debug, Clone)]
struct Fake(BTreeMap<Key, Standing>);

impl Traces for Fake {
    fn standing(&self, key: &Key) -> Standing {
        self.0.get(key).cloned().unwrap_or(Standing::Unknown)
    }
    fn claimants(&self, key: &Key) -> Vec<Key> {
        let claims = self.0.iter().filter_map(|(k, s)| match s {
            Standing::Open(c) => Some((k, c)),
            _ => None,
        });
        claims.filter(|(_, c)| c.targets().any(|t| t == key)).map(|(k, _)| k.clone()).collect()
    }
}

fn trace(n: u8) -> Key {
    Key::Trace(TraceId([n; 16]))
}
fn value(n: u8) -> Key {
    value_key(FlowId::at(0), &n.to_string().into())
}

fn name(key: &Key) -> String {
    match key {
        Key::Trace(trace) | Key::Also { trace, .. } => format!("trace {}", trace.0[0]),
        Key::Named { id, .. } => format!("value {id}"),
    }
}

/// A group in one order.
fn in_order(mut group: Group) -> Group {
    group.neighbours.sort();
    group
}

fn world() -> impl Strategy<Value = Fake> {
    let claim = (
        proptest::collection::btree_set(1..4_u8, 0..3),
        proptest::collection::btree_set(1..9_u8, 0..3),
        any::<bool>(),
        proptest::bool::weighted(0.1),
    );
    let traces = proptest::collection::btree_map(
        1..9_u8,
        prop_oneof![9 => claim.prop_map(Some), 1 => Just(None)],
        1..9,
    );
    let pushes = proptest::collection::btree_map(1..4_u8, any::<bool>(), 0..2);
    (traces, pushes).prop_map(|(traces, pushes)| {
        let mut map = BTreeMap::new();
        for (n, claim) in traces {
            let standing = match claim {
                None => Standing::Closed,
                Some((values, links, is_matched, is_contested)) => Standing::Open(Arc::new(Claim {
                    values: values.into_iter().map(value).collect::<BTreeSet<_>>().into_iter().collect(),
                    links: links.into_iter().filter(|l| *l != n).map(trace).collect(),
                    matched: is_matched.then_some(FlowId::at(0)),
                    is_contested,
                })),
            };
            map.insert(trace(n), standing);
        }
        for (n, open) in pushes {
            map.insert(
                value(n),
                if open {
                    Standing::Open(Arc::new(Claim { matched: Some(FlowId::at(0)), ..Claim::default() }))
                } else {
                    Standing::Closed
                },
            );
        }
        Fake(map)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5000, ..ProptestConfig::default() })]
    #[test]
    fn a_group_is_the_same_whoever_is_asked(fake in world()) {
        let mut home: BTreeMap<Key, Key> = BTreeMap::new();
        for key in fake.0.keys() {
            let Some(claim) = claim_of(key, &fake, LIMIT) else { continue };
            if claim.is_split() { continue }
            let group = in_order(group_of(key, &fake, LIMIT));
            prop_assert!(group.members.contains(key), "{} is no member of its own group", name(key));
            for member in &group.members {
                prop_assert_eq!(&in_order(group_of(member, &fake, LIMIT)), &group, "{}", name(member));
                let known = home.insert(member.clone(), group.key.clone());
                prop_assert!(known.is_none_or(|known| known == group.key), "{} has two homes", name(member));
            }
            for part in &group.parts {
                prop_assert!(claim_of(part, &fake, LIMIT).unwrap().is_split());
            }
            for tail in &group.tails {
                prop_assert!(!group.members.contains(tail));
            }
        }
    }
}

/// Counts the questions.
struct Counting {
    traces: Fake,
    /// Who names whom, so that asking costs the test nothing.
    claimants: BTreeMap<Key, Vec<Key>>,
    questions: Cell<usize>,
}

impl Traces for Counting {
    fn standing(&self, key: &Key) -> Standing {
        self.questions.set(self.questions.get() + 1);
        self.traces.standing(key)
    }
    fn claimants(&self, key: &Key) -> Vec<Key> {
        self.questions.set(self.questions.get() + 1);
        self.claimants.get(key).cloned().unwrap_or_default()
    }
}

/// Traces 0 to `count`, with the claims that `claim` gives them.
fn counting(count: u32, claim: impl Fn(u32) -> Claim) -> Counting {
    let key = |n: u32| Key::Trace(TraceId(u128::from(n).to_be_bytes()));
    let mut claimants: BTreeMap<Key, Vec<Key>> = BTreeMap::new();
    let mut traces = BTreeMap::new();
    for n in 0..count {
        let claim = claim(n);
        for target in claim.targets() {
            claimants.entry(target.clone()).or_default().push(key(n));
        }
        traces.insert(key(n), Standing::Open(Arc::new(claim)));
    }
    Counting { traces: Fake(traces), claimants, questions: Cell::new(0) }
}

#[test]
fn finding_a_group_asks_about_no_more_traces_than_a_group_may_have() {
    let key = |n: u32| Key::Trace(TraceId(u128::from(n).to_be_bytes()));
    let linked = |to: Option<u32>| Claim { links: to.map(key).into_iter().collect(), ..Claim::default() };
    // A chain of 20,000; a trace that 90 others go on from, and so does each of these; a value of 90 traces, each with
    // a crowd of its own.
    let chain = counting(20_000, |n| linked(n.checked_sub(1)));
    let crowd = counting(8_000, |n| linked((n > 0).then_some(n / 90)));
    let values = counting(8_000, |n| match n {
        0..90 => Claim { values: vec![value(1)], matched: Some(FlowId::at(0)), ..Claim::default() },
        _ => linked(Some(n % 90)),
    });
    for (what, traces) in [("chain", chain), ("crowd", crowd), ("values", values)] {
        for start in [0, 50, 7_000] {
            traces.questions.set(0);
            let group = group_of(&key(start), &traces, LIMIT);
            assert!(group.is_cut && group.members.len() <= LIMIT, "{what}");
            // Each is asked what it claims and who claims it; and so are those around them.
            assert!(traces.questions.get() < 200 * LIMIT, "{what}: {} questions", traces.questions.get());
        }
    }
}
