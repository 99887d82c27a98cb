//! Configurations as people have them, good and broken, and configurations made by us.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod broken;
mod generated;
#[path = "../support/ground.rs"]
mod ground;
mod real;
mod stage;
mod variables;
