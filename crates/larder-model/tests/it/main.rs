//! What holds of every key, pattern, endpoint and duration, whatever is put in.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod corpus;
mod endpoints;
#[path = "../../../../fuzz/checks.rs"]
mod fuzz_checks;
mod keys;
mod patterns;
mod secrets;
