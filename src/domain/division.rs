//! Which spans of one trace belong to which value of a business key, where it carries several.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::event::{Event, Flags};
use super::ids::{Key, SpanId};

/// The spans of a trace, divided among the values that they carry.
#[derive(Debug, Default)]
pub(super) struct Division {
    homes: HashMap<SpanId, Key>,
    shares: HashMap<Key, BTreeSet<u32>>,
}

impl Division {
    /// Divides `events`; `values` says which span carries which value, as the key of that value's instance.
    pub(super) fn of(events: &[Event], values: &[(SpanId, Key)]) -> Self {
        let spans: Vec<(SpanId, SpanId)> = events.iter().map(|event| (event.span, event.parent)).collect();
        let homes = divide(&spans, values);
        let mut by_span: HashMap<SpanId, Vec<u32>> = HashMap::new();
        let mut by_parent: HashMap<SpanId, Vec<u32>> = HashMap::new();
        for (place, (span, parent)) in (0..).zip(&spans) {
            by_span.entry(*span).or_default().push(place);
            by_parent.entry(*parent).or_default().push(place);
        }
        let mut shares: HashMap<Key, BTreeSet<u32>> = HashMap::new();
        for (span, home) in &homes {
            let share = shares.entry(home.clone()).or_default();
            let own = &by_span[span];
            share.extend(own);
            share.extend(by_parent.get(span).into_iter().flatten());
            let mut waiting: Vec<u32> = own.clone();
            while let Some(place) = waiting.pop() {
                let parents = by_span.get(&spans[place as usize].1).into_iter().flatten();
                waiting.extend(parents.filter(|parent| share.insert(**parent)));
            }
        }
        // What belongs to nobody yet may turn out to belong to any: whose parent is missing holds them all.
        let adrift = |place: &u32| {
            let event = &events[*place as usize];
            event.parent.is_some() && !by_span.contains_key(&event.parent) && !homes.contains_key(&event.span)
        };
        let is_local = |place: &u32| events[*place as usize].flags.has(Flags::PARENT_IS_LOCAL);
        let (local, remote): (Vec<u32>, Vec<u32>) =
            (0..).take(events.len()).filter(adrift).partition(|place| is_local(place));
        let first = |places: Vec<u32>| places.into_iter().min_by_key(|place| &events[*place as usize]);
        let holding: Vec<u32> = [first(local), first(remote)].into_iter().flatten().collect();
        shares.values_mut().for_each(|share| share.extend(&holding));
        Division { homes, shares }
    }

    /// The key of the value that a span belongs to; none if it belongs to none.
    pub(super) fn home(&self, span: SpanId) -> Option<&Key> {
        self.homes.get(&span)
    }

    /// The places of the events that have to do with a value: those that belong to it, what connects them with the
    /// root of the trace, and who took up their work.
    pub(super) fn share(&self, value: &Key) -> impl Iterator<Item = usize> {
        self.shares.get(value).into_iter().flatten().map(|place| *place as usize)
    }
}

/// Which value each span of a divided trace belongs to: its own, or that of its nearest ancestor that has one.
/// `spans` are (span, parent), `values` (span, value's key). A span that is not in the result belongs to none.
fn divide(spans: &[(SpanId, SpanId)], values: &[(SpanId, Key)]) -> HashMap<SpanId, Key> {
    let own: BTreeMap<SpanId, &Key> = {
        let mut sorted: Vec<_> = values.iter().collect();
        sorted.sort();
        // Of several reports of one span with different values the least counts, whichever came first.
        sorted.into_iter().rev().map(|(span, value)| (*span, value)).collect()
    };
    // Of spans that share an id the least parent counts, whichever came first.
    let mut by_content = spans.to_vec();
    by_content.sort_unstable_by(|a, b| b.cmp(a));
    let parents: HashMap<SpanId, SpanId> = by_content.into_iter().collect();
    let mut divided: HashMap<SpanId, Option<&Key>> = HashMap::new();
    for &(span, _) in spans {
        let mut way = Vec::new();
        let mut at = Some(span);
        let value = loop {
            let Some(current) = at else { break None };
            if let Some(known) = divided.get(&current) {
                break *known;
            }
            // Known from here on, so that a circle ends.
            divided.insert(current, own.get(&current).copied());
            if own.contains_key(&current) {
                break own.get(&current).copied();
            }
            way.push(current);
            at = parents.get(&current).copied().filter(|parent| parents.contains_key(parent));
        };
        divided.extend(way.into_iter().map(|passed| (passed, value)));
    }
    divided.into_iter().filter_map(|(span, value)| Some((span, value?.clone()))).collect()
}
