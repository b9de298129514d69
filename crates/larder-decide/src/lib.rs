//! Larder's decisions: pure functions of measured traffic. Time is a parameter.
//!
//! - [`KeyLog`]: which keys an instance was asked for, for its windows;
//! - [`Engine`]: one endpoint's windows in, a decision and its [`Record`] out;
//! - [`decide`]: the rule itself;
//! - [`Seen`]: each window counts once;
//! - [`simulation`]: what an engine makes of requests, in virtual time;
//! - [`collapse`]: the route template that a path seems to belong to.

mod change;
mod collapse;
mod engine;
mod figures;
mod ghost;
mod key_log;
mod latency;
mod record;
mod rule;
mod seen;
pub mod simulation;
mod tick;

pub use change::ChangeFigures;
pub use collapse::collapse;
pub use engine::{Arrived, Engine};
pub use figures::{Before, Figures, Limits, Standing, THETA};
pub use ghost::TTLS;
pub use key_log::KeyLog;
pub use latency::Bounds;
pub use record::{Flip, Record, VERSION};
pub use rule::{Code, MIN_ANSWERS, decide};
pub use seen::Seen;
