//! Leases of the store in the process.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::Duration;

use larder_model::Key;
use tokio::sync::Notify;

use super::sync::{AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering};
use crate::lease::{Acquired, Lease, Released};
use crate::proof::Proof;
use crate::random;
use crate::store::Stored;

/// How long it is known that a load ended with nothing that is stored.
const UNCACHED_FOR: Duration = Duration::from_millis(200);
/// With more than this, those that are over are looked for.
const MANY: usize = 10_000;

/// Who may fill what.
pub(super) struct Leases {
    held: Mutex<HashMap<Key, Held>>,
    /// How many there are: nobody looks for one where there are none.
    count: AtomicUsize,
    /// Told at each end of a lease.
    ended: Notify,
    /// How many leases ended.
    ends: AtomicU64,
}

struct Held {
    /// Of the load; `None` once that ended with nothing that is stored.
    token: Option<u128>,
    /// By the store's clock.
    until: Duration,
}

impl Leases {
    pub(super) fn new() -> Self {
        Self {
            held: Mutex::default(),
            count: AtomicUsize::new(0),
            ended: Notify::new(),
            ends: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Held>> {
        // The map is whole between any two statements.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Grants a lease, unless another load has it.
    pub(super) fn acquire(
        &self,
        key: &Key,
        (now, time): (Duration, Duration),
        found: impl FnOnce() -> Option<Stored>,
    ) -> Acquired {
        let mut held = self.lock();
        if held.len() >= MANY {
            held.retain(|_, lease| lease.until > now);
        }
        if let Some(lease) = held.get(key).filter(|lease| lease.until > now) {
            let left = lease.until - now;
            let proof = self.proof();
            let is_uncached = lease.token.is_none();
            drop(held);
            let found = found();
            return match is_uncached {
                true => Acquired::Uncached { found },
                false => Acquired::Held {
                    left,
                    proof: Some(proof),
                    found,
                },
            };
        }
        let lease = Lease {
            key: key.clone(),
            token: random::u128(),
            incarnation: 0,
            expected: None,
        };
        let new = Held {
            token: Some(lease.token),
            until: now + time,
        };
        held.insert(key.clone(), new);
        self.count.store(held.len(), Ordering::SeqCst);
        drop(held);
        Acquired::Granted {
            lease,
            found: found(),
        }
    }

    pub(super) fn extend(&self, lease: &Lease, (now, time): (Duration, Duration)) -> bool {
        let mut held = self.lock();
        let own = held
            .get_mut(&lease.key)
            .filter(|held| held.token == Some(lease.token) && held.until > now);
        match own {
            Some(held) => {
                held.until = held.until.max(now + time);
                true
            }
            None => false,
        }
    }

    /// Ends a lease if it still holds, and says whether it did.
    pub(super) fn end(&self, lease: &Lease, now: Duration, released: Option<Released>) -> bool {
        self.end_with(lease, now, released, || ())
    }

    /// [`Leases::end`], once what it was held for is done: nobody is granted the next one in between.
    pub(super) fn end_with(
        &self,
        lease: &Lease,
        now: Duration,
        released: Option<Released>,
        done: impl FnOnce(),
    ) -> bool {
        let mut held = self.lock();
        let is_own = held
            .get(&lease.key)
            .is_some_and(|held| held.token == Some(lease.token) && held.until > now);
        if !is_own {
            return false;
        }
        done();
        if released == Some(Released::Uncached) {
            let until = now + UNCACHED_FOR;
            held.insert(lease.key.clone(), Held { token: None, until });
        } else {
            held.remove(&lease.key);
        }
        self.note_end(held);
        true
    }

    /// Ends the lease of a key, whoever has it.
    pub(super) fn end_of(&self, key: &Key) {
        if self.count.load(Ordering::SeqCst) > 0 {
            let mut held = self.lock();
            if held.remove(key).is_some() {
                self.note_end(held);
            }
        }
    }

    pub(super) fn end_matching(&self, is_meant: impl Fn(&Key) -> bool) {
        if self.count.load(Ordering::SeqCst) > 0 {
            let mut held = self.lock();
            held.retain(|key, _| !is_meant(key));
            self.note_end(held);
        }
    }

    /// How long the lease of a key holds yet.
    pub(super) fn left(&self, key: &Key, now: Duration) -> Option<Duration> {
        let held = self.lock();
        let lease = held.get(key).filter(|lease| lease.token.is_some())?;
        lease.until.checked_sub(now).filter(|left| !left.is_zero())
    }

    fn note_end(&self, held: MutexGuard<'_, HashMap<Key, Held>>) {
        self.count.store(held.len(), Ordering::SeqCst);
        self.ends.fetch_add(1, Ordering::SeqCst);
        drop(held);
        self.ended.notify_waiters();
    }

    fn proof(&self) -> Proof {
        Proof {
            place: 0,
            source: 0,
            count: self.ends.load(Ordering::SeqCst),
            epoch: 0,
        }
    }

    pub(super) fn holds(&self, proof: &Proof) -> bool {
        *proof == self.proof()
    }

    /// Waits for the end of any lease.
    pub(super) async fn changed(&self, proof: Proof, most: Duration) {
        let mut ended = std::pin::pin!(self.ended.notified());
        ended.as_mut().enable();
        if self.holds(&proof) {
            let _ = tokio::time::timeout(most, ended).await;
        }
    }
}
