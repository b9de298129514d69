//! What the embedded store guarantees: a module for each guarantee.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// LMDB without Larder is opened too, to show what it does.
#![allow(unsafe_code)]

mod another;
mod beside;
mod bounded;
mod clears;
mod clocks;
mod closing;
mod coherence;
mod contract;
mod damage;
mod eviction;
mod exchanged;
mod full_disk;
mod hostile_control;
mod kills;
mod namespaces;
mod power_cut;
mod sharing;
mod stopped_reader;
mod stopped_writer;
mod support;
mod trusted_folder;
