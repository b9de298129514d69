//! How long loads take, for entries that don't say it themselves.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use larder_model::Key;

/// Keys that share a place share a cost: it only decides how early an entry is loaded anew.
const PLACES: usize = 4_096;

/// What loads took last, in microseconds.
pub(crate) struct LoadCosts {
    places: Box<[AtomicU32]>,
    hasher: RandomState,
    /// The longest of all: nobody looks for a cost that can't matter.
    longest: AtomicU32,
}

impl LoadCosts {
    pub(crate) fn new() -> Self {
        Self {
            places: (0..PLACES).map(|_| AtomicU32::new(0)).collect(),
            hasher: RandomState::new(),
            longest: AtomicU32::new(0),
        }
    }

    fn place(&self, key: &Key) -> &AtomicU32 {
        &self.places[self.hasher.hash_one(key) as usize % PLACES]
    }

    pub(crate) fn note(&self, key: &Key, load: Duration) {
        let micros = u32::try_from(load.as_micros()).unwrap_or(u32::MAX);
        self.place(key).store(micros, Ordering::Relaxed);
        self.longest.fetch_max(micros, Ordering::Relaxed);
    }

    /// The last cost of a key, for an entry with so much of its time left: zero where it is too far from its end to matter.
    #[inline]
    pub(crate) fn of(&self, key: &Key, left: Option<Duration>) -> Duration {
        let longest = Duration::from_micros(self.longest.load(Ordering::Relaxed).into());
        match left {
            Some(left) if left < longest * super::read::EARLY => {
                Duration::from_micros(self.place(key).load(Ordering::Relaxed).into())
            }
            _ => Duration::ZERO,
        }
    }
}
