//! Larder's decisions: pure functions of measured traffic. Time is a parameter.
//!
//! - [`decide`]: whether an endpoint in mode `auto` is cached;
//! - [`collapse`]: the route template that a path seems to belong to.

mod collapse;
mod rule;

pub use collapse::collapse;
pub use rule::{Decision, MIN_SAMPLES, OFF_BELOW_MS, ON_FROM_MS, decide};
