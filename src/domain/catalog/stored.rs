//! The flows that no config can bring back: those that pushes created, and versions that only what is open names.

use std::sync::{Arc, PoisonError};

use super::{Catalog, Pushed};
use crate::domain::flow::Flow;
use crate::domain::stored::{Damaged, Decoder, Encoder, Stored};

impl Catalog {
    /// The catalog of a config that has been reloaded this often, with the versions of flows before it that go on serving.
    #[must_use]
    pub fn reloaded(self, earlier: Vec<Arc<Flow>>, generation: u32) -> Self {
        Catalog { earlier, generation, ..self }
    }

    /// Writes these flows down.
    pub fn store(&self, to: &mut Encoder<'_>) {
        let versions = self.versions.read().unwrap_or_else(PoisonError::into_inner);
        to.number(versions.len() as u128);
        versions.iter().for_each(|flow| flow.as_ref().write(to));
        let pushed = self.pushed.read().unwrap_or_else(PoisonError::into_inner);
        to.number(pushed.flows.len() as u128);
        pushed.flows.iter().for_each(|flow| flow.as_ref().write(to));
    }

    /// Reads them again into a catalog whose config is the one under which they were written.
    pub fn restore(&self, from: &mut Decoder<'_>) -> Result<(), Damaged> {
        let stored: Vec<Flow> = Stored::read(from)?;
        let known = |flow: &Flow| self.fixed.iter().chain(&self.earlier).find(|known| known.id == flow.id);
        let restored = stored.into_iter().map(|flow| known(&flow).map_or_else(|| Arc::new(flow), Arc::clone));
        *self.versions.write().unwrap_or_else(PoisonError::into_inner) = restored.collect();
        let flows: Vec<Arc<Flow>> = Vec::<Flow>::read(from)?.into_iter().map(Arc::new).collect();
        let by_name = flows.iter().map(|flow| (Arc::clone(&flow.name), flow.id)).collect();
        *self.pushed.write().unwrap_or_else(PoisonError::into_inner) = Pushed { flows, by_name };
        Ok(())
    }
}
