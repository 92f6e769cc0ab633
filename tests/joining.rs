//! The invariant of the search for groups, on random claims: whoever of a group is asked, it is the same group.

#![allow(clippy::unwrap_used, reason = "a test that meets None has failed")]

use std::collections::{BTreeMap, BTreeSet};

use latency_aggregator::domain::ids::{FlowId, Key, TraceId};
use latency_aggregator::domain::joining::{Claim, Standing, Traces, claim_of, group_of, value_key};
use proptest::prelude::*;

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

/// One line for people.
fn show(fake: &Fake) -> String {
    let name = |key: &Key| match key {
        Key::Trace(t) => format!("t{}", t.0[0]),
        Key::Named { id, .. } => format!("v{id}"),
        Key::Also { .. } => unreachable!(),
    };
    fake.0
        .iter()
        .map(|(k, s)| match s {
            Standing::Open(c) => format!(
                "{}(m={:?},c={},values={:?},links={:?})",
                name(k),
                c.matched,
                c.is_contested,
                c.values.iter().map(name).collect::<Vec<_>>(),
                c.links.iter().map(name).collect::<Vec<_>>()
            ),
            other => format!("{}({other:?})", name(k)),
        })
        .collect::<Vec<_>>()
        .join(" ")
}
fn keys(keys: &[Key]) -> Vec<String> {
    keys.iter()
        .map(|k| match k {
            Key::Trace(t) => format!("t{}", t.0[0]),
            Key::Named { id, .. } => format!("v{id}"),
            Key::Also { .. } => unreachable!(),
        })
        .collect()
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
                Some((values, links, is_matched, is_contested)) => Standing::Open(Claim {
                    values: values.into_iter().map(value).collect::<BTreeSet<_>>().into_iter().collect(),
                    links: links.into_iter().filter(|l| *l != n).map(trace).collect(),
                    matched: is_matched.then_some(FlowId(0)),
                    is_contested,
                }),
            };
            map.insert(trace(n), standing);
        }
        for (n, open) in pushes {
            map.insert(
                value(n),
                if open {
                    Standing::Open(Claim { matched: Some(FlowId(0)), ..Claim::default() })
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
            let Some(claim) = claim_of(key, &fake, 100) else { continue };
            if claim.is_split() { continue }
            let group = group_of(key, &fake, 100);
            prop_assert!(group.members.contains(key), "{:?} is no member of its own {:?} {}", key, group, show(&fake));
            for member in &group.members {
                let theirs = group_of(member, &fake, 100);
                let line = |g: &latency_aggregator::domain::joining::Group| format!("key {:?} members {:?} parts {:?} tails {:?} neighbours {:?} awaits {} missed {} late {}", keys(&[g.key.clone()]), keys(&g.members), keys(&g.parts), keys(&g.tails), { let mut n = keys(&g.neighbours); n.sort(); n }, g.awaits_link, g.missed_link, g.is_late);
                prop_assert_eq!(line(&theirs), line(&group), "{}", show(&fake));
                let known = home.insert(member.clone(), group.key.clone());
                prop_assert!(known.is_none_or(|known| known == group.key));
            }
            for part in &group.parts { prop_assert!(claim_of(part, &fake, 100).unwrap().is_split()); }
            for tail in &group.tails { prop_assert!(!group.members.contains(tail)); }
        }
    }
}
