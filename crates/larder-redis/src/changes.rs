//! What is known to have changed: counted by place, for all servers of a store together, and by which servers that is
//! told. Proofs are judged by it alone.
//!
//! Whoever reads takes a [`Taken`] before. An invalidation counts in the task that reads the connection, before the replies
//! behind it are handed out: a reader that is told an old value behind it has a proof that holds no more.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use larder_core::Proof;
use larder_core::mutants::{Guard, is_off};
use tokio::sync::Notify;
use twox_hash::XxHash3_64;

use crate::clock;
use crate::cluster::slots::{SLOTS, slot};
use crate::lives::Lives;

/// 512 KiB in all.
const PLACES: usize = 1 << 16;
const PLACES_OF_SLOT: usize = PLACES / SLOTS as usize;
/// Those who wait for a change of any of these places are woken together.
const GROUPS: usize = 1 << 10;
/// More servers at once than this give no proofs.
const SOURCES: usize = 1 << 10;
/// A wait ends after so long in any case: nobody is woken when trust ends.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Counts of changes.
pub(crate) struct Changes {
    counts: Box<[AtomicU64]>,
    /// Whether the keys of a slot have places of their own: then all can be told to have changed.
    is_by_slot: bool,
    /// Whoever chooses keys can't choose places.
    seed: u64,
    sources: Box<[Told]>,
    free: Mutex<Vec<u32>>,
    woken: Box<[Notify]>,
    waiting: AtomicUsize,
    /// Which plain entries are of the present life of their server.
    pub(crate) lives: Lives,
}

/// By which server changes are told, and until when that is relied on.
#[derive(Default)]
#[repr(align(64))]
struct Told {
    /// 0: by none.
    epoch: AtomicU64,
    /// Over which connection.
    link: AtomicU64,
    /// By [`clock`]: while it has answered.
    trusted_until: AtomicU64,
    /// While it is known to be the one to ask.
    named_until: AtomicU64,
}

impl Told {
    /// Until when it is relied on.
    fn until(&self) -> u64 {
        let trusted = self.trusted_until.load(Ordering::Acquire);
        trusted.min(self.named_until.load(Ordering::Acquire))
    }
}

/// A proof for a read that is about to be sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    proof: Proof,
    link: u64,
}

impl Taken {
    /// The proof of what came over this connection: it is good for what the tracked one told alone.
    pub(crate) fn proof(self, link: u64) -> Option<Proof> {
        (self.link == link).then_some(self.proof)
    }
}

impl Changes {
    pub(crate) fn new(is_by_slot: bool, seed: u64, lives: Lives) -> Arc<Self> {
        Arc::new(Self {
            lives,
            counts: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
            is_by_slot,
            seed,
            sources: (0..SOURCES).map(|_| Told::default()).collect(),
            free: Mutex::new((0..SOURCES as u32).rev().collect()),
            woken: (0..GROUPS).map(|_| Notify::new()).collect(),
            waiting: AtomicUsize::new(0),
        })
    }

    /// Where changes of a key are counted. A lease has the place of its entry: who waits for one waits for both.
    fn place(&self, key: &[u8]) -> usize {
        let key = key
            .strip_prefix(b"larder:lease:{")
            .and_then(|key| key.strip_suffix(b"}"))
            .unwrap_or(key);
        let hash = XxHash3_64::oneshot_with_seed(self.seed, key) as usize;
        match self.is_by_slot {
            true => usize::from(slot(key)) * PLACES_OF_SLOT + hash % PLACES_OF_SLOT,
            false => hash % PLACES,
        }
    }

    /// A key has changed, or is about to.
    pub(crate) fn count(&self, key: &[u8]) {
        self.count_at(self.place(key));
    }

    /// All keys of a slot have.
    pub(crate) fn count_slot(&self, slot: u16) {
        let first = usize::from(slot) * PLACES_OF_SLOT;
        (first..first + PLACES_OF_SLOT).for_each(|place| self.count_at(place));
    }

    fn count_at(&self, place: usize) {
        self.counts[place].fetch_add(1, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.woken[place % GROUPS].notify_waiters();
        }
    }

    /// [`larder_core::Store::holds`].
    pub(crate) fn holds(&self, proof: &Proof) -> bool {
        self.hold(std::slice::from_ref(proof))
    }

    /// [`larder_core::Store::hold`].
    pub(crate) fn hold(&self, proofs: &[Proof]) -> bool {
        let mut until = u64::MAX;
        for proof in proofs {
            match self.unchanged(proof) {
                Some(told) => until = until.min(told.until()),
                None => return false,
            }
        }
        // Read last, and once for all: what was stopped in between believes nothing from before.
        clock::coarse() < until || is_off(Guard::TrustEnds)
    }

    /// Who tells of changes, if none of a proof's place was told since.
    #[inline]
    fn unchanged(&self, proof: &Proof) -> Option<&Told> {
        let count = self.counts.get(proof.place as usize)?;
        let told = self.sources.get(proof.source as usize)?;
        let is_same = proof.epoch != 0
            && told.epoch.load(Ordering::Acquire) == proof.epoch
            && count.load(Ordering::Acquire) == proof.count;
        is_same.then_some(told)
    }

    /// [`larder_core::Store::changed`].
    pub(crate) async fn changed(&self, proof: Proof, most: Duration) {
        let _counted = Waits::begin(&self.waiting);
        let woken = &self.woken[proof.place as usize % GROUPS];
        let mut woken = std::pin::pin!(woken.notified());
        woken.as_mut().enable();
        if self.holds(&proof) {
            let _ = tokio::time::timeout(most.min(LONGEST_WAIT), woken).await;
        }
    }

    fn wake_all(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.woken.iter().for_each(Notify::notify_waiters);
        }
    }

    /// A place for a server; `None` if there is none left.
    pub(crate) fn source(self: &Arc<Self>) -> Option<Source> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let index = free.pop()?;
        let told = &self.sources[index as usize];
        told.named_until.store(u64::MAX, Ordering::Release);
        Some(Source {
            changes: Arc::clone(self),
            index,
        })
    }
}

/// One who waits, as long as he does.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn begin(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::SeqCst);
        Self(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One server's place among those that tell of changes.
pub(crate) struct Source {
    changes: Arc<Changes>,
    index: u32,
}

impl Source {
    pub(crate) fn lives(&self) -> &Lives {
        &self.changes.lives
    }

    fn told(&self) -> &Told {
        &self.changes.sources[self.index as usize]
    }

    /// A number that no epoch had.
    fn next_epoch() -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        NEXT.fetch_add(1, Ordering::Relaxed)
    }

    /// It tells, over this connection, from now on.
    pub(crate) fn begin(&self, link: u64, trusted_until: u64) {
        let told = self.told();
        told.link.store(link, Ordering::Release);
        told.trusted_until.store(trusted_until, Ordering::Release);
        told.epoch.store(Self::next_epoch(), Ordering::Release);
        self.changes.wake_all();
    }

    /// It is relied on for longer.
    pub(crate) fn trust(&self, until: u64) {
        self.told().trusted_until.store(until, Ordering::Release);
    }

    /// Until when it is known to be the one to ask.
    pub(crate) fn name(&self, until: u64) {
        self.told().named_until.store(until, Ordering::Release);
    }

    /// Everything that it had told may have changed.
    pub(crate) fn void(&self) {
        if self.told().epoch.load(Ordering::Acquire) != 0 {
            let epoch = Self::next_epoch();
            self.told().epoch.store(epoch, Ordering::Release);
            self.changes.wake_all();
        }
    }

    /// It tells no more.
    pub(crate) fn end(&self) {
        if self.told().epoch.swap(0, Ordering::AcqRel) != 0 {
            self.changes.wake_all();
        }
    }

    pub(crate) fn count(&self, key: &[u8]) {
        self.changes.count(key);
    }

    /// To be called before a read of the key is sent; `None` if it does not tell of changes.
    pub(crate) fn take(&self, key: &[u8]) -> Option<Taken> {
        let told = self.told();
        // Before the connection: one that is newer than the epoch has ended it.
        let epoch = told.epoch.load(Ordering::Acquire);
        if epoch == 0 {
            return None;
        }
        let link = told.link.load(Ordering::Acquire);
        let place = self.changes.place(key);
        Some(Taken {
            proof: Proof {
                place: place as u32,
                source: self.index,
                count: self.changes.counts[place].load(Ordering::Acquire),
                epoch,
            },
            link,
        })
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.end();
        let free = self.changes.free.lock();
        free.unwrap_or_else(PoisonError::into_inner)
            .push(self.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn trusted() -> u64 {
        clock::after(clock::now(), 60 * SECOND)
    }

    #[test]
    fn a_proof_holds_until_something_ends_it() {
        let changes = Changes::new(false, 7, Lives::new(false));
        let source = changes.source().unwrap();
        assert!(
            source.take(b"cache:svc:/a").is_none(),
            "it tells nothing yet"
        );
        source.begin(3, trusted());
        let proof = || source.take(b"cache:svc:/a").unwrap().proof(3).unwrap();
        assert!(source.take(b"cache:svc:/a").unwrap().proof(4).is_none());
        let ends: [(&str, &dyn Fn()); 8] = [
            ("the entry", &|| changes.count(b"cache:svc:/a")),
            ("its lease", &|| {
                source.count(b"larder:lease:{cache:svc:/a}")
            }),
            ("all", &|| source.void()),
            ("the connection", &|| source.begin(3, trusted())),
            ("silence", &|| source.trust(clock::coarse())),
            ("trusted again", &|| source.trust(trusted())),
            ("others are named", &|| source.name(clock::coarse())),
            ("named again", &|| source.name(u64::MAX)),
        ];
        for (what, end) in ends {
            let proof = proof();
            let held = changes.holds(&proof);
            end();
            assert!(held != changes.holds(&proof), "{what}: {held}");
        }
        let ended = proof();
        changes.count(b"cache:svc:/a");
        let last = proof();
        assert!(changes.holds(&last) && changes.hold(&[last, last, last]));
        assert!(!changes.hold(&[last, last, ended]));
        assert!(!changes.hold(&[ended, last]));
        changes.count(b"cache:svc:/b");
        assert!(changes.holds(&last));
        drop(source);
        assert!(!changes.holds(&last));
        let next = changes.source().unwrap();
        next.begin(3, trusted());
        assert!(!changes.holds(&last), "another has its place");
    }

    #[test]
    fn the_keys_of_a_slot_change_together() {
        let changes = Changes::new(true, 7, Lives::new(false));
        let source = changes.source().unwrap();
        source.begin(3, trusted());
        let proof = |key: &str| source.take(key.as_bytes()).unwrap().proof(3).unwrap();
        let keys: Vec<String> = (0..100).map(|n| format!("cache:svc:/{n}")).collect();
        let proofs: Vec<Proof> = keys.iter().map(|key| proof(key)).collect();
        changes.count_slot(slot(keys[7].as_bytes()));
        for (key, proof) in std::iter::zip(&keys, &proofs) {
            let is_moved = slot(key.as_bytes()) == slot(keys[7].as_bytes());
            assert_eq!(changes.holds(proof), !is_moved, "{key}");
        }
    }

    #[tokio::test]
    async fn who_waits_is_woken_by_a_change_and_by_the_end() {
        let changes = Changes::new(false, 7, Lives::new(false));
        let source = changes.source().unwrap();
        source.begin(3, trusted());
        let ends: [&dyn Fn(); 2] = [&|| changes.count(b"a"), &|| source.end()];
        for end in ends {
            let proof = source.take(b"a").unwrap().proof(3).unwrap();
            let begin = std::time::Instant::now();
            let ending = async {
                tokio::task::yield_now().await;
                end();
            };
            tokio::join!(changes.changed(proof, 60 * SECOND), ending);
            assert!(!changes.holds(&proof) && begin.elapsed() < SECOND);
            // It is over already.
            changes.changed(proof, 60 * SECOND).await;
        }
    }
}
