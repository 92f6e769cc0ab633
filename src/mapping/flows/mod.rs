//! What the config says about flows, and how it becomes rules.
//!
//! [`compile`] is the only way from one to the other: it either returns rules that cannot fail at run time, or an
//! error that names the flow, the key and the place in the expression.

mod compile;
mod config;

pub use compile::{Compiled, FlowError, History, Numbers, compile, compile_after, compile_again};
pub use config::{
    AtName, BoundaryConfig, Buckets, Defaults, FlowConfig, LabelConfig, MAX_BUCKETS, MIN_SAMPLING_RATIO,
    MeasureName, OnIncompleteName, OneOrMany, OutcomeName, PickName, Preset, SloConfig, check_buckets,
};

/// The name of the flow that takes every trace no other flow takes.
pub const TRACE_FLOW: &str = "trace";
