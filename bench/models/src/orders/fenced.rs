//! The product's text over loom's atomics.

pub(crate) mod sync {
    pub(crate) use loom::sync::RwLock;
    pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
}

#[allow(dead_code)]
#[path = "../../../../crates/larder-embedded/src/control/board.rs"]
pub(crate) mod board;
#[allow(dead_code)]
#[path = "../../../../crates/larder-core/src/outbox/gate.rs"]
pub(crate) mod gate;
#[path = "../../../../crates/larder-core/src/sweeps.rs"]
pub(crate) mod sweeps;
