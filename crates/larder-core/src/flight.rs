//! Loads under way: one per key, and the right of each to fill.

use std::any::Any;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use larder_model::{Key, Pattern};
use tokio::sync::Notify;

/// A load's right to fill: it holds until a `delete`, a `clear` or a `set` of its key ends it, and never again.
#[derive(Debug, Clone)]
pub struct FillRight(Arc<AtomicBool>);

impl FillRight {
    /// A right that holds.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    /// Whether it still holds.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// Ends it.
    pub fn end(&self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Default for FillRight {
    fn default() -> Self {
        Self::new()
    }
}

/// How a load ended, for all who waited for it. Values and errors keep their own types behind `Any`.
#[derive(Clone)]
pub(crate) enum Landing {
    /// With a value, and its JSON if it could be written as such.
    Value {
        value: Arc<dyn Any + Send + Sync>,
        json: Option<Bytes>,
    },
    /// With the loader's own error.
    Error(Arc<dyn Any + Send + Sync>),
    /// With a panic.
    Panicked(Arc<str>),
    /// Not within its time.
    TimedOut,
    /// Not at all: the runtime that it ran on ended.
    Abandoned,
}

/// A load under way.
pub(crate) struct Flight {
    landing: OnceLock<Landing>,
    landed: Notify,
    right: FillRight,
}

impl Flight {
    pub(crate) fn right(&self) -> &FillRight {
        &self.right
    }

    pub(crate) fn land(&self, landing: Landing) {
        // Only the load itself, or its end, lands it: whoever comes first.
        let _ = self.landing.set(landing);
        self.landed.notify_waiters();
    }

    pub(crate) async fn wait(&self) -> Landing {
        loop {
            let mut landed = std::pin::pin!(self.landed.notified());
            landed.as_mut().enable();
            if let Some(landing) = self.landing.get() {
                return landing.clone();
            }
            landed.await;
        }
    }
}

/// What a caller is to a load.
pub(crate) enum Boarding {
    /// The one who has to load.
    Pilot(Arc<Flight>),
    /// One of those who wait.
    Passenger(Arc<Flight>),
    /// There are too many loads under way to keep track of: load, alone.
    Full,
}

/// The loads under way in this process, by key.
pub(crate) struct Flights {
    shards: Box<[Mutex<HashMap<Key, Arc<Flight>>>]>,
    /// Seeded per process: whoever chooses keys can't choose shards.
    hasher: RandomState,
    under_way: AtomicUsize,
}

const SHARDS: usize = 64;
/// More keys than this are not loaded once, but by each caller.
const MAX_UNDER_WAY: usize = 100_000;

impl Flights {
    pub(crate) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            under_way: AtomicUsize::new(0),
        }
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, HashMap<Key, Arc<Flight>>> {
        let index = self.hasher.hash_one(key) as usize % SHARDS;
        lock(&self.shards[index])
    }

    /// Joins the load of a key that is under way, or begins one.
    pub(crate) fn board(&self, key: &Key) -> Boarding {
        let mut shard = self.shard(key);
        if let Some(flight) = shard.get(key) {
            return Boarding::Passenger(Arc::clone(flight));
        }
        if self.under_way.load(Ordering::Relaxed) >= MAX_UNDER_WAY {
            return Boarding::Full;
        }
        let flight = Arc::new(Flight {
            landing: OnceLock::new(),
            landed: Notify::new(),
            right: FillRight::new(),
        });
        shard.insert(key.clone(), Arc::clone(&flight));
        self.under_way.fetch_add(1, Ordering::Relaxed);
        Boarding::Pilot(flight)
    }

    /// Takes a load off the list, if it is still on it. Whoever comes later begins a new one.
    pub(crate) fn remove(&self, key: &Key, flight: &Arc<Flight>) {
        let mut shard = self.shard(key);
        if shard
            .get(key)
            .is_some_and(|current| Arc::ptr_eq(current, flight))
        {
            shard.remove(key);
            self.under_way.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Ends a load's right to fill; whoever comes later begins a new one.
    pub(crate) fn end(&self, key: &Key) {
        let removed = self.shard(key).remove(key);
        if let Some(flight) = removed {
            flight.right.end();
            self.under_way.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// [`Flights::end`] for every load that a pattern means.
    pub(crate) fn end_matching(&self, pattern: &Pattern) {
        for shard in &self.shards {
            lock(shard).retain(|key, flight| {
                let is_meant = pattern.matches(key.as_str());
                if is_meant {
                    flight.right.end();
                    self.under_way.fetch_sub(1, Ordering::Relaxed);
                }
                !is_meant
            });
        }
    }
}

/// A map of loads is whole between any two statements, so a panic elsewhere leaves nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
