//! The binary as a user runs it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bad_input;
mod doctor;
mod entries;
mod explained;
mod faults;
mod framed;
mod history;
mod instances;
mod invalidated;
mod keys;
mod openapi;
mod orderly_end;
mod policies;
mod postgres;
mod replay;
mod running;
mod sample_case;
mod shown_safely;
mod simulate;
mod users;
