//! Counters that two processors can count in at once without passing a cache line to and fro.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

const STRIPES: usize = 16;

/// What is counted of a cache in this process.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Count {
    Hits,
    Misses,
    Bypasses,
    Loads,
    LoadErrors,
    Joined,
    Undecodable,
    TooLarge,
    Refused,
    StoreErrors,
}

const COUNTS: usize = Count::StoreErrors as usize + 1;

/// What happened in a cache since it was made, in this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lookups answered from the cache.
    pub hits: u64,
    /// Lookups that the cache could not answer.
    pub misses: u64,
    /// Lookups for which the cache was not asked.
    pub bypasses: u64,
    /// Loads that began.
    pub loads: u64,
    /// Loads that failed, panicked or took too long.
    pub load_errors: u64,
    /// Lookups that waited for a load that was already under way.
    pub joined: u64,
    /// Entries that did not decode.
    pub undecodable: u64,
    /// Values that were too large to be stored.
    pub too_large: u64,
    /// Fills refused because of a `delete`, a `clear` or a `set` during the load.
    pub refused: u64,
    /// Operations that the store did not do.
    pub store_errors: u64,
}

/// Its own cache lines for each stripe.
#[repr(align(128))]
#[derive(Default)]
struct Stripe([AtomicU64; COUNTS]);

#[derive(Default)]
pub(crate) struct Counters {
    stripes: [Stripe; STRIPES],
}

impl Counters {
    pub(crate) fn add(&self, count: Count) {
        self.stripes[stripe()].0[count as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> Counts {
        let sum = |count: Count| {
            self.stripes
                .iter()
                .map(|stripe| stripe.0[count as usize].load(Ordering::Relaxed))
                .sum()
        };
        Counts {
            hits: sum(Count::Hits),
            misses: sum(Count::Misses),
            bypasses: sum(Count::Bypasses),
            loads: sum(Count::Loads),
            load_errors: sum(Count::LoadErrors),
            joined: sum(Count::Joined),
            undecodable: sum(Count::Undecodable),
            too_large: sum(Count::TooLarge),
            refused: sum(Count::Refused),
            store_errors: sum(Count::StoreErrors),
        }
    }
}

/// This thread's stripe: threads take them in turn.
fn stripe() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static MINE: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    MINE.with(|mine| {
        if mine.get() == usize::MAX {
            mine.set(NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES);
        }
        mine.get()
    })
}
