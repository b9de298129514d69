//! Counters that cost a hit next to nothing: each thread adds to its own, without a locked instruction.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// So many threads at a time have a stripe of their own.
const OWN_STRIPES: usize = 32;
/// The stripe of all further threads.
const SHARED: usize = OWN_STRIPES;

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
    HitsNear,
    Stales,
    StaleWhileRevalidate,
    StaleIfError,
    StaleSlow,
    BackgroundLoads,
    BackgroundFull,
    Unshared,
    LeaseWaits,
    Hidden,
    Dead,
    Unsealed,
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
    /// Those hits that the L1 answered: the store was not asked.
    pub hits_near: u64,
    /// Lookups answered with a stale value; each for one of the three reasons that follow.
    pub stales: u64,
    /// It is being loaded anew.
    pub stale_while_revalidate: u64,
    /// Loading it anew failed.
    pub stale_if_error: u64,
    /// Loading it anew takes longer than the policy's `soft_load_timeout`.
    pub stale_slow: u64,
    /// Loads that began in the background.
    pub background_loads: u64,
    /// Loads that did not, since too many ran.
    pub background_full: u64,
    /// Lookups that joined a load and then could not have its value: something may have been invalidated meanwhile.
    pub unshared: u64,
    /// Waits for a load of another process.
    pub lease_waits: u64,
    /// Lookups of what an invalidation names that the store does not know of yet.
    pub hidden: u64,
    /// Entries that were dead: a version that they depend on was renewed, or their server has lost writes.
    pub dead: u64,
    /// Entries that were not sealed, or not with one of our keys, where they have to be.
    pub unsealed: u64,
    /// Operations that the store did not do.
    pub store_errors: u64,
}

/// Its own cache lines for each stripe.
#[repr(align(128))]
#[derive(Default)]
struct Stripe([AtomicU64; COUNTS]);

pub(crate) struct Counters {
    stripes: [Stripe; OWN_STRIPES + 1],
}

impl Counters {
    pub(crate) fn new() -> Self {
        Self {
            stripes: std::array::from_fn(|_| Stripe::default()),
        }
    }

    #[inline]
    pub(crate) fn add(&self, count: Count) {
        let stripe = stripe();
        let counter = &self.stripes[stripe].0[count as usize];
        if stripe == SHARED {
            counter.fetch_add(1, Ordering::Relaxed);
        } else {
            counter.store(
                counter.load(Ordering::Relaxed).wrapping_add(1),
                Ordering::Relaxed,
            );
        }
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
            hits_near: sum(Count::HitsNear),
            stales: sum(Count::Stales),
            stale_while_revalidate: sum(Count::StaleWhileRevalidate),
            stale_if_error: sum(Count::StaleIfError),
            stale_slow: sum(Count::StaleSlow),
            background_loads: sum(Count::BackgroundLoads),
            background_full: sum(Count::BackgroundFull),
            unshared: sum(Count::Unshared),
            lease_waits: sum(Count::LeaseWaits),
            hidden: sum(Count::Hidden),
            dead: sum(Count::Dead),
            unsealed: sum(Count::Unsealed),
            store_errors: sum(Count::StoreErrors),
        }
    }
}

/// The stripes that living threads own, a bit for each.
static OWNED: AtomicU64 = AtomicU64::new(0);
/// A thread that has not counted yet.
const UNKNOWN: usize = usize::MAX;

thread_local! {
    static MINE: Cell<usize> = const { Cell::new(UNKNOWN) };
    static LEASE: Lease = Lease::take();
}

/// A stripe that one thread owns until it ends.
struct Lease(usize);

impl Lease {
    fn take() -> Self {
        let mut owned = OWNED.load(Ordering::Relaxed);
        loop {
            let free = owned.trailing_ones() as usize;
            if free >= OWN_STRIPES {
                return Self(SHARED);
            }
            // The counts of the owner before are seen: it gave the stripe back with `Release`.
            match OWNED.compare_exchange_weak(
                owned,
                owned | 1 << free,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Self(free),
                Err(now) => owned = now,
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // What the thread still counts while it ends.
        MINE.set(SHARED);
        if self.0 < OWN_STRIPES {
            OWNED.fetch_and(!(1 << self.0), Ordering::Release);
        }
    }
}

/// This thread's stripe.
#[inline]
fn stripe() -> usize {
    match MINE.get() {
        UNKNOWN => first_stripe(),
        stripe => stripe,
    }
}

#[cold]
fn first_stripe() -> usize {
    let stripe = LEASE.try_with(|lease| lease.0).unwrap_or(SHARED);
    MINE.set(stripe);
    stripe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_by_more_threads_than_have_a_stripe_and_by_threads_that_follow_each_other() {
        const THREADS: u64 = 3 * OWN_STRIPES as u64;
        let counters = Counters::new();
        for _ in 0..2 {
            let all_live = std::sync::Barrier::new(THREADS as usize);
            std::thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| {
                        counters.add(Count::Hits);
                        all_live.wait();
                        for _ in 0..1_000 {
                            counters.add(Count::Hits);
                        }
                    });
                }
            });
        }
        for _ in 0..100 {
            std::thread::scope(|scope| {
                scope.spawn(|| counters.add(Count::Misses));
            });
        }
        let counts = counters.counts();
        assert_eq!(counts.hits, 2 * THREADS * 1_001);
        assert_eq!(counts.misses, 100);
    }
}
