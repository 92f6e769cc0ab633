//! A config as it is stored: the texts that it was read from, with the values of environment variables in them, and what
//! flags and variables set.

use std::path::Path;
use std::sync::Mutex;

use super::{ConfigError, Loaded, Source, load_source};
use crate::config::Override;
use crate::domain::stored::{Damaged, Decoder, Encoder, from_bytes, to_bytes};

impl Loaded {
    /// What [`load_stored`](crate::config::load_stored) reads.
    pub fn to_bytes(&self) -> Vec<u8> {
        let text = |text: &str, to: &mut Encoder<'_>| {
            to.number(text.len() as u128);
            to.raw(text.as_bytes());
        };
        to_bytes(|to| {
            to.number(1 + self.included.len() as u128);
            for source in [&self.main].into_iter().chain(&self.included) {
                text(&source.name, to);
                text(&source.text, to);
            }
            to.number(self.overrides.len() as u128);
            for setting in &self.overrides {
                text(&setting.path, to);
                text(&setting.value, to);
                text(&setting.origin, to);
            }
        })
    }

    /// This config with the flows, and what they are read by, of `other`.
    #[must_use]
    pub fn with_flows_of(&self, other: Loaded) -> Loaded {
        let mut config = self.config.clone();
        config.defaults = other.config.defaults.clone();
        config.ignore.clone_from(&other.config.ignore);
        config.trace_flow = other.config.trace_flow;
        Loaded { config, ..other }
    }
}

fn text(from: &mut Decoder<'_>) -> Result<String, Damaged> {
    let length = from.number()?;
    String::from_utf8(from.raw(length)?.to_vec()).map_err(|_| Damaged)
}

/// The config that was written by [`Loaded::to_bytes`].
pub(in crate::config) fn load_stored(bytes: &[u8]) -> Result<Loaded, ConfigError> {
    let damaged = |_: Damaged| ConfigError::File {
        file: "the config in the store".to_owned(),
        problem: "it makes no sense".to_owned(),
    };
    let (mut sources, overrides) = from_bytes(bytes, |from| {
        let mut sources = Vec::new();
        for _ in 0..from.count()? {
            sources.push(Source { name: text(from)?, text: text(from)? });
        }
        let mut overrides = Vec::new();
        for _ in 0..from.count()? {
            overrides.push(Override { path: text(from)?, value: text(from)?, origin: text(from)? });
        }
        Ok((sources.into_iter(), overrides))
    })
    .map_err(damaged)?;
    let main = sources.next().ok_or(Damaged).map_err(damaged)?;
    // All of them for the first pattern: they are in the right order.
    let included = Mutex::new(sources);
    load_source(main, &overrides, Path::new(""), |_, _| {
        let mut included = included.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(included.by_ref().collect())
    })
}
