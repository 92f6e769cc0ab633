//! The events of a request in the order in which they came. Those of one instance that stand side by side are one run, so
//! that an instance is looked up once for all of them.

mod stored;

use super::event::{Event, Incoming};
use super::ids::Key;
use super::joining::Joint;

pub use stored::KnownFacts;

/// Events and where they belong.
#[derive(Debug, Default)]
pub struct Batch {
    runs: Vec<Run>,
    events: Events,
}

/// Events of one instance that stand side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What their instance is found by.
    pub key: Key,
    /// The place of the first one.
    pub first: usize,
    /// How many there are.
    pub length: usize,
}

/// The events of a batch by their places; each can be taken once.
#[derive(Debug, Default)]
pub struct Events {
    events: Vec<Option<Event>>,
    /// What events say about where their trace belongs, by their places. Few say anything.
    joints: Vec<(usize, Box<[Joint]>)>,
}

impl Batch {
    /// Makes room for so many events.
    pub fn reserve(&mut self, events: usize) {
        self.events.events.reserve(events);
    }

    /// Adds an event to the instance found by `key`; `joints` are what it says about where its trace belongs.
    pub fn push(&mut self, key: Key, event: Event, joints: Box<[Joint]>) {
        let place = self.events.events.len();
        self.events.events.push(Some(event));
        if !joints.is_empty() {
            self.events.joints.push((place, joints));
        }
        match self.runs.last_mut().filter(|run| run.key == key) {
            Some(run) => run.length += 1,
            None => self.runs.push(Run { key, first: place, length: 1 }),
        }
    }

    /// How many events there are.
    pub fn len(&self) -> usize {
        self.events.events.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.events.events.is_empty()
    }

    /// The runs in the order in which they came, and the events.
    pub fn into_parts(self) -> (Vec<Run>, Events) {
        (self.runs, self.events)
    }

    /// The events one by one.
    pub fn into_incoming(mut self) -> impl Iterator<Item = Incoming> {
        self.runs.into_iter().flat_map(move |run| {
            let incoming = |place| {
                let (event, joints) = self.events.take(place)?;
                Some(Incoming { key: run.key.clone(), event, joints: joints.into() })
            };
            (run.first..run.first + run.length).filter_map(incoming).collect::<Vec<_>>()
        })
    }
}

impl FromIterator<Incoming> for Batch {
    fn from_iter<I: IntoIterator<Item = Incoming>>(incoming: I) -> Self {
        let mut batch = Batch::default();
        for Incoming { key, event, joints } in incoming {
            batch.push(key, event, joints);
        }
        batch
    }
}

impl Events {
    /// Takes the event at a place, and what it says about where its trace belongs; `None` if it has been taken.
    pub fn take(&mut self, place: usize) -> Option<(Event, &[Joint])> {
        let event = self.events[place].take()?;
        let joints = self.joints.binary_search_by_key(&place, |(place, _)| *place);
        Some((event, joints.map_or(&[], |found| &self.joints[found].1)))
    }
}
