//! The history of the flows as it is stored: the numbers by which what is open names them.

use super::{Compiled, FlowError, History, compile_numbered};
use crate::domain::ids::FlowId;
use crate::domain::stored::stored_fields;
use crate::mapping::flows::config::{Defaults, FlowConfig};

/// The numbers of one config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbers {
    /// How often the config had been reloaded.
    pub generation: u32,
    /// Of each flow in file order its id and that of its first version; the built-in one comes last, if it is on.
    pub flows: Vec<(FlowId, FlowId)>,
}

stored_fields!(Numbers { generation, flows });

impl History {
    /// The numbers of all configs that are in force for some instance, the one in force for new ones last.
    pub fn numbers(&self) -> Vec<Numbers> {
        let home = |id: &FlowId| {
            let known = self.versions.iter().find(|version| version.flow.id == *id);
            known.map_or(*id, |version| version.flow.home)
        };
        let numbers = self.generations.iter().map(|config| Numbers {
            generation: config.number,
            flows: config.flows.iter().map(|id| (*id, home(id))).collect(),
        });
        numbers.collect()
    }
}

/// Turns what a config says into the rules that it was turned into when it had these numbers; `history` are the configs
/// before it.
pub fn compile_again(
    history: History,
    numbers: &Numbers,
    configs: &[FlowConfig],
    defaults: &Defaults,
    ignore: &[String],
    trace_flow: bool,
) -> Result<Compiled, FlowError> {
    let number = |history: &History, name: &str, place: usize, _: Option<&FlowConfig>| {
        let known = numbers.flows.get(place).copied();
        let (id, home) = known.unwrap_or((FlowId::NONE, FlowId::NONE));
        let versions = history.versions.iter().map(|version| &version.flow);
        let known = versions.filter(|flow| *flow.name == *name).find(|flow| flow.id == id);
        known.cloned().ok_or((id, home))
    };
    compile_numbered(history, configs, defaults, ignore, trace_flow, numbers.generation, number)
}
