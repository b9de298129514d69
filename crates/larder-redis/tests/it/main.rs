//! What the Redis store promises, each promise in a module named after it. Against real servers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod contract;
