//! Which entries are known to live no longer than they may.
//!
//! A read is one `GET`. Whether the entry has an end, and one that is near enough, is asked (`PTTL`) only where it is not
//! known yet: after this process wrote the entry, or asked once. What another program then does to the life of the
//! same entry is noticed when the life that was known is over.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use larder_model::Key;
use twox_hash::XxHash3_64;

/// 2 MiB in all.
const PLACES: usize = 1 << 18;

/// The lives that are known: a fixed number of places, the newest wins.
pub(crate) struct Lives {
    /// A tag of the key's hash above, the life's end in seconds since `began` below; 0: nothing.
    places: Box<[AtomicU64]>,
    seed: u64,
    began: Instant,
}

impl Lives {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            places: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
            seed,
            began: Instant::now(),
        }
    }

    fn place(&self, key: &Key) -> (&AtomicU64, u64) {
        let hash = XxHash3_64::oneshot_with_seed(self.seed, key.as_str().as_bytes());
        (&self.places[hash as usize % PLACES], hash >> 32)
    }

    /// In whole seconds, and never 0.
    fn now(&self) -> u64 {
        self.began.elapsed().as_secs() + 1
    }

    /// Notes how long an entry lives, at the most.
    pub(crate) fn note(&self, key: &Key, life: Duration) {
        let (place, tag) = self.place(key);
        let end = (self.now() + life.as_secs()).min(u64::from(u32::MAX));
        place.store(tag << 32 | end, Ordering::Relaxed);
    }

    /// Whether an entry is known to live, and no longer than this.
    pub(crate) fn is_short(&self, key: &Key, longest: Duration) -> bool {
        let (place, tag) = self.place(key);
        let noted = place.load(Ordering::Relaxed);
        let (now, end) = (self.now(), noted & u64::from(u32::MAX));
        noted >> 32 == tag && end > now && end - now <= longest.as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_noted_is_known_and_only_if_it_is_short_enough() {
        let lives = Lives::new(7);
        let (one, other) = (
            Key::new("svc", "/1").unwrap(),
            Key::new("svc", "/2").unwrap(),
        );
        let seconds = Duration::from_secs;
        assert!(!lives.is_short(&one, seconds(300)));
        lives.note(&one, seconds(300));
        assert!(lives.is_short(&one, seconds(300)));
        assert!(!lives.is_short(&one, seconds(60)));
        assert!(!lives.is_short(&other, seconds(300)));
        lives.note(&one, seconds(0));
        assert!(!lives.is_short(&one, seconds(300)), "over");
    }
}
