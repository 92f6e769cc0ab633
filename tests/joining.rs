//! The invariant of the search for groups, on random claims: whoever of a group is asked, it is the same group.

#![allow(clippy::unwrap_used, reason = "a test that meets None has failed")]

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
    value_key(FlowId(0), &n.to_string().into())
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
                    matched: is_matched.then_some(FlowId(0)),
                    is_contested,
                })),
            };
            map.insert(trace(n), standing);
        }
        for (n, open) in pushes {
            map.insert(
                value(n),
                if open {
                    Standing::Open(Arc::new(Claim { matched: Some(FlowId(0)), ..Claim::default() }))
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
