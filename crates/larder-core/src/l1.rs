//! The L1: values that this process read, kept for as long as they are known to be what the store has.
//!
//! Every hit asks the store whether the proofs hold that the value was read with; nothing is pushed in here, and nothing is
//! taken out but to make room. So there is no order of events in which a value stays that should have gone.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use larder_model::Key;
use quick_cache::Weighter;
use quick_cache::sync::Cache as QuickCache;

use crate::form::Readable;
use crate::mutants::{Guard, is_off};
use crate::proof::Proofs;
use crate::raw::Raw;
use crate::store::Store;

/// What an entry costs beside its key and value, in bytes: 300 for its place in the table and the counts of its key and its bytes, and
/// what the allocator and the table lose once as many were dropped as are kept, 20 to 170 with values of 2 bytes to 10 KB.
const OVERHEAD: u64 = 480;
/// Once the L1 is full, only one of so many values that are new to it is kept: where more is read than it holds, keeping and
/// dropping would cost more than it saves; what is read often is kept soon all the same.
const NEWCOMERS: u32 = 8;
/// After so many values that were kept it is looked whether the L1 is full.
const LOOK_EVERY: u32 = 256;
/// What an entry is expected to weigh: how the table is divided follows from it.
const EXPECTED_BYTES: u64 = 2_048;
/// After this time a value is read from the store again, which so learns that it is still used.
const RESIDENCE: Duration = Duration::from_secs(10);

/// A value that was read. It lies in the table itself, and a hit copies it: so the counts to touch are those of the bytes, and
/// of the decoded value and of proofs that lie apart where there are such; all else that is looked at lies together, in as few
/// bytes as it takes.
#[derive(Clone)]
pub(crate) struct Resident {
    pub(crate) raw: Raw,
    /// The decoded value, of the type that was asked for when it was kept; `None` where the bytes are as good.
    pub(crate) decoded: Option<Arc<dyn Any + Send + Sync>>,
    /// How much that takes, as a multiple of its JSON, about.
    decoded_ratio: u8,
    /// Until when it is fresh, in ns by the coarse clock.
    fresh_until: u64,
    /// Until when it is used without being read again, in ns by the coarse clock.
    leaves_at: u64,
    /// How long its load took, in µs; zero if that is not known.
    load_cost: u32,
    proofs: Proofs,
}

impl Resident {
    pub(crate) fn new<M: Readable>(
        value: &M::Value,
        raw: Raw,
        (read_at, left): (Duration, Duration),
        load_cost: Duration,
        proofs: Proofs,
    ) -> Self {
        let fresh_until = read_at.saturating_add(left);
        Self {
            raw: Raw {
                is_foreign: raw.is_foreign && !M::IS_CHECKED,
                // Memory of its own: those that were read may be a part of a buffer of any size, which would be kept as long as they
                // are, and counts for nothing.
                bytes: Bytes::copy_from_slice(&raw.bytes),
            },
            decoded: M::decoded(value),
            decoded_ratio: M::DECODED,
            fresh_until: nanos(fresh_until),
            leaves_at: nanos(fresh_until.min(read_at + RESIDENCE)),
            load_cost: u32::try_from(load_cost.as_micros()).unwrap_or(u32::MAX),
            proofs,
        }
    }

    /// How long it is fresh yet, if it can be used now.
    #[inline]
    pub(crate) fn left(&self, now: Duration, store: &dyn Store) -> Option<Duration> {
        let is_proven = || self.proofs.show(|proofs| store.hold(proofs));
        let now = nanos(now);
        let holds = now < self.leaves_at && (is_off(Guard::NearNeedsProof) || is_proven());
        holds.then(|| Duration::from_nanos(self.fresh_until - now))
    }

    /// How long its load took; zero if that is not known.
    #[inline]
    pub(crate) fn load_cost(&self) -> Duration {
        Duration::from_micros(self.load_cost.into())
    }

    /// Whether it depends on versions, and so ends with them.
    #[inline]
    pub(crate) fn is_stamped(&self) -> bool {
        self.proofs.has_versions()
    }
}

#[inline]
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Values of this process, bounded in bytes.
pub(crate) struct L1 {
    entries: QuickCache<Key, Resident, ByBytes>,
    /// What a shard of the table has room for, in bytes.
    longest: u64,
    is_full: AtomicBool,
    /// Values that asked to be kept.
    asked: AtomicU32,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<Key, Resident> for ByBytes {
    fn weight(&self, key: &Key, kept: &Resident) -> u64 {
        let value = kept.raw.bytes.len() as u64;
        let beside = key.as_str().len() + kept.proofs.bytes_beside();
        beside as u64 + value + u64::from(kept.decoded_ratio) * value + OVERHEAD
    }
}

impl L1 {
    pub(crate) fn new(max_bytes: u64) -> Self {
        let expected = usize::try_from(max_bytes / EXPECTED_BYTES).unwrap_or(usize::MAX);
        let entries = QuickCache::with_weighter(expected, max_bytes, ByBytes);
        Self {
            longest: entries.shard_capacity(),
            entries,
            is_full: AtomicBool::new(false),
            asked: AtomicU32::new(0),
        }
    }

    #[inline]
    pub(crate) fn get(&self, key: &Key) -> Option<Resident> {
        self.entries.get(key)
    }

    /// Whether a value of so many bytes that was just read is to be kept.
    pub(crate) fn wants(&self, key: &Key, bytes: usize) -> bool {
        // None of the table's shards takes it.
        if bytes as u64 > self.longest {
            return false;
        }
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        if asked.is_multiple_of(LOOK_EVERY) {
            let is_full = self.entries.weight() > self.entries.capacity() / 8 * 7;
            self.is_full.store(is_full, Ordering::Relaxed);
        }
        !self.is_full.load(Ordering::Relaxed)
            || asked.is_multiple_of(NEWCOMERS)
            || self.entries.contains_key(key)
    }

    pub(crate) fn keep(&self, key: &Key, kept: Resident) {
        self.entries.insert(key.clone(), kept);
    }

    pub(crate) fn forget(&self, key: &Key) {
        self.entries.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::form::Undecoded;
    use crate::proof::Proof;

    #[test]
    fn what_is_kept_keeps_no_buffer_that_it_was_read_into() {
        let l1 = L1::new(64 << 20);
        let key = Key::new("svc", "/a").unwrap();
        let proof = Proof {
            place: 0,
            source: 0,
            count: 0,
            epoch: 0,
        };
        let times = (Duration::ZERO, Duration::from_secs(1));
        for length in [2, 100_000] {
            let buffer = Bytes::from(vec![b'1'; 1 << 20]);
            let raw = Raw {
                bytes: buffer.slice(1..=length),
                is_foreign: true,
            };
            let proofs = Proofs::new(proof, &[]);
            let kept = Resident::new::<Undecoded>(&raw.clone(), raw, times, Duration::ZERO, proofs);
            l1.keep(&key, kept);
            assert!(buffer.try_into_mut().is_ok());
            assert_eq!(l1.get(&key).unwrap().raw.bytes.len(), length);
        }
    }

    /// As docs/benchmarks.md has it.
    #[test]
    fn an_entry_is_small() {
        assert!(size_of::<Resident>() <= 160);
    }

    #[test]
    fn what_there_is_no_room_for_is_not_wanted() {
        let (l1, key) = (L1::new(1 << 20), Key::new("svc", "/a").unwrap());
        assert!(l1.wants(&key, 1_000) && !l1.wants(&key, 1 << 20));
    }
}
