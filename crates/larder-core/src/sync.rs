//! What the hand-made synchronisation of `flight`, `sweeps`, `in_process` and `outbox` is made of. They name it as `super::sync`:
//! `bench/models` runs their very text with what loom and shuttle have in its place.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
pub(crate) use std::sync::{Mutex, MutexGuard, RwLock};
