//! Loads under way: one per key, and the right of each to fill.

use std::any::Any;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use larder_model::Key;
use tokio::sync::Notify;

use super::sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering};
use crate::mutants::{Guard, is_off};

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
        shared: Shared,
    },
    /// With nothing: another process loads it, or there was no need to. Only of loads in the background.
    Nothing,
    /// With the loader's own error.
    Error(Arc<dyn Any + Send + Sync>),
    /// With a panic.
    Panicked(Arc<str>),
    /// Not within its time.
    TimedOut,
    /// With a value that can't be written as JSON, which was asked for.
    NotJson(Arc<str>),
    /// Not at all: the runtime that it ran on ended.
    Abandoned,
}

/// How long what others do may go unnoticed: as long as a silent link is relied on. The load itself may take longer, and so may this
/// process have been stopped meanwhile.
const UNASKED: Duration = Duration::from_secs(2);

/// Who may have a load's value besides the one who began it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shared {
    /// All who joined it: nothing invalidated it until nobody could join it any more.
    All,
    /// Those who joined it not long after its loader was called: the store, which would know what invalidated it, can't be asked.
    Recent,
    /// Those who asked before its loader was called: no invalidation that they must heed came before that.
    Early,
}

/// A load under way.
pub(crate) struct Flight {
    landing: OnceLock<Landing>,
    /// When what it lands with began to be made: the loader was called, or the store was asked.
    began: Mutex<Option<Instant>>,
    landed: Notify,
    right: FillRight,
    /// How long the loader took, in microseconds and one more; 0 when it is not known, or was reported.
    load_micros: AtomicU64,
}

impl Flight {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            landing: OnceLock::new(),
            began: Mutex::new(None),
            landed: Notify::new(),
            right: FillRight::new(),
            load_micros: AtomicU64::new(0),
        })
    }

    pub(crate) fn took(&self, load: Duration) {
        let micros = u64::try_from(load.as_micros()).unwrap_or(u64::MAX);
        self.load_micros
            .store(micros.saturating_add(1), Ordering::Relaxed);
    }

    /// How long the loader took, for the first who asks: one load is reported once.
    pub(crate) fn report_load(&self) -> Option<Duration> {
        let micros = self.load_micros.swap(0, Ordering::Relaxed);
        micros.checked_sub(1).map(Duration::from_micros)
    }

    /// Notes when what it lands with begins to be made. The last word counts.
    pub(crate) fn begin(&self, at: Instant) {
        *lock(&self.began) = Some(at);
    }

    /// Whether one who joined at an instant may have its value.
    pub(crate) fn is_for(&self, shared: Shared, joined_at: Instant) -> bool {
        let late = match shared {
            _ if is_off(Guard::JoinersShareWhatIsFilled) => return true,
            Shared::All => return true,
            Shared::Recent => UNASKED,
            Shared::Early => Duration::ZERO,
        };
        lock(&self.began).is_some_and(|began| joined_at <= began + late)
    }

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

type Shard = HashMap<Key, Arc<Flight>>;

/// The loads under way in this process, by key.
pub(crate) struct Flights {
    shards: Box<[Mutex<Shard>]>,
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

    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
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
        let flight = Flight::new();
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
        let mut shard = self.shard(key);
        if let Some(flight) = shard.remove(key) {
            // Before anybody can see that it is off the list: a load that has closed itself knows then whether it may fill, and
            // gives its lease back if not.
            flight.right.end();
            self.under_way.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// [`Flights::end`] for every load of a key that is meant.
    pub(crate) fn end_matching(&self, is_meant: impl Fn(&Key) -> bool) {
        for shard in &self.shards {
            lock(shard).retain(|key, flight| {
                let is_meant = is_meant(key);
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
