//! The programs behind `pgherd`: the agent, the embedded store and the demo.

pub mod cli;
pub mod store;
