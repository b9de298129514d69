//! Models of the protocols that Larder's guarantees rest on, explored state by state; and its hand-made synchronisation, run in
//! every order that the machine allows. There is nothing here but tests: `cargo test -p larder-models`.
//!
//! - `fills`: leases, fills, joiners, tags, deletes and failovers, as a [Stateright](https://docs.rs/stateright) model;
//! - `outbox`: what the store could not be told, until it is; crashes, and who adopts what is left;
//! - `orders`: marks, the bell, sweeps and the gate of what is pending, under [loom](https://docs.rs/loom);
//! - `flights`: loads under way and the leases of the store in the process, under [shuttle](https://docs.rs/shuttle).
//!
//! A model that can't fail proves nothing: each guard of a model is a switch, the orderings of the synchronisation can be taken
//! away, and a test shows that then something breaks.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
// `orders` includes the same text twice, over two kinds of atomics.
#![cfg_attr(test, allow(clippy::duplicate_mod))]

#[cfg(test)]
mod fills;
#[cfg(test)]
mod flights;
#[cfg(test)]
mod mutants;
#[cfg(test)]
mod orders;
#[cfg(test)]
mod outbox;

/// What the included text names of its own crate.
#[cfg(test)]
mod lease {
    pub(crate) use larder_core::{Acquired, Lease, Released};
}
#[cfg(test)]
mod proof {
    pub(crate) use larder_core::Proof;
}
#[cfg(test)]
mod store {
    pub(crate) use larder_core::Stored;
}
#[cfg(test)]
mod random {
    use std::hash::{BuildHasher as _, RandomState};

    pub(crate) fn u128() -> u128 {
        let [one, other] = [0_u64, 1].map(|number| RandomState::new().hash_one(number));
        u128::from(one) << 64 | u128::from(other)
    }
}
