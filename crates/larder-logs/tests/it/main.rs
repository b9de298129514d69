//! What holds of every log, whatever is in it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod corpus;
mod hostile;
#[path = "../../../../fuzz/log_checks.rs"]
mod log_checks;
