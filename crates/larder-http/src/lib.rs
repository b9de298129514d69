//! Larder for axum: an accept loop with limits.

mod problem;
pub mod serve;

pub use problem::Problem;
pub use serve::{Limits, serve};
