//! The words on which marks are written, and the bell: the protocol of `marks` by itself. It knows neither files nor the kernel, so
//! that `bench/models` can run this very text under loom, over words of its own.

use larder_core::Proof;
use larder_core::mutants::{Guard, is_off};

use super::sync::{AtomicU32, AtomicU64, Ordering, fence};

/// A mark is a transaction's number, shifted by so much, and how often the place was changed since without a commit.
pub(crate) const SHIFT: u32 = 16;
/// A mark that is never stored.
const NEVER: u64 = u64::MAX;

/// What a reader saw of a place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    place: u32,
    mark: u64,
    epoch: u64,
}

impl Seen {
    /// The proof of what was read in the snapshot that this transaction made; none where a change was under way.
    #[inline]
    pub(crate) fn proof(self, life: u64, snapshot: u64) -> Option<Proof> {
        let is_in = |mark: u64| mark >> SHIFT <= snapshot || is_off(Guard::MarksAreCompared);
        let is_settled = is_in(self.mark) && is_in(self.epoch) && life != 0;
        is_settled.then_some(Proof {
            place: self.place,
            source: life as u32,
            count: self.mark,
            epoch: self.epoch,
        })
    }
}

/// What a transaction changes.
#[derive(Default)]
pub(crate) struct Changes {
    places: Vec<u32>,
    is_all: bool,
    is_written: bool,
}

/// When, in the course of a transaction, something was read in a place.
#[derive(Clone, Copy)]
pub(crate) struct Moment {
    place: u32,
    changes: usize,
}

impl Changes {
    pub(crate) fn clear(&mut self) {
        self.places.clear();
        (self.is_all, self.is_written) = (false, false);
    }

    /// Notes that a place is changed; `is_written`: LMDB's tables too, not only what readers may still hold.
    pub(crate) fn change(&mut self, place: u32, is_written: bool) {
        self.places.push(place);
        self.is_written |= is_written;
    }

    /// Notes that LMDB's tables are changed, in whatever place: so the transaction counts.
    pub(crate) fn write(&mut self) {
        self.is_written = true;
    }

    /// Notes that all places are.
    pub(crate) fn change_all(&mut self, is_written: bool) {
        self.is_all = true;
        self.is_written |= is_written;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty() && !self.is_all
    }

    /// The mark of a place that had this one, once a transaction changes it.
    fn mark(&self, old: u64, transaction: u64) -> u64 {
        if self.is_written {
            return transaction << SHIFT;
        }
        // Nothing that comes from shared memory is counted on but what can stand there.
        let old = Some(old).filter(|old| old >> SHIFT <= transaction);
        let last = transaction.saturating_sub(1) << SHIFT;
        // Once the counts are used up it stays at the mark of the transaction, which nobody has a proof for before that commits:
        // to begin anew would give out a mark again that somebody may still have.
        (old.unwrap_or_default().max(last) + 1).min(transaction << SHIFT)
    }

    /// Now.
    pub(crate) fn moment(&self, place: u32) -> Moment {
        Moment {
            place,
            changes: self.places.len(),
        }
    }
}

/// The words, wherever they lie.
#[derive(Clone, Copy)]
pub(crate) struct Board<'a> {
    /// 0: this board is no more.
    pub(crate) life: &'a AtomicU64,
    /// The mark of all places.
    pub(crate) epoch: &'a AtomicU64,
    /// A power of two of them.
    pub(crate) marks: &'a [AtomicU64],
}

impl<'a> Board<'a> {
    /// Ends all proofs, and begins anew. Only for who has the board alone.
    pub(crate) fn begin_life(self, life: u64) {
        self.life.store(life, Ordering::Release);
        self.epoch.store(0, Ordering::Relaxed);
        for mark in self.marks {
            mark.store(0, Ordering::Relaxed);
        }
    }

    /// The length of the table is a power of two, whatever a proof says.
    #[inline]
    pub(crate) fn mark(self, place: u32) -> &'a AtomicU64 {
        &self.marks[place as usize & (self.marks.len() - 1)]
    }

    /// Looks at a place, before or behind the beginning of the snapshot that it is for.
    #[inline]
    pub(crate) fn see(self, place: u32) -> Seen {
        Seen {
            place,
            epoch: self.epoch.load(Ordering::Acquire),
            mark: self.mark(place).load(Ordering::Acquire),
        }
    }

    /// Whether nothing of a proof's place was changed since.
    #[inline]
    pub(crate) fn holds(self, life: u64, proof: &Proof) -> bool {
        life != 0
            && proof.source == life as u32
            && self.life.load(Ordering::Acquire) == life
            && self.epoch.load(Ordering::Acquire) == proof.epoch
            && self.mark(proof.place).load(Ordering::Acquire) == proof.count
    }

    /// Says what a transaction changes; before it commits.
    pub(crate) fn announce(self, changes: &Changes, transaction: u64) {
        if is_off(Guard::ChangesEndProofs) {
            return;
        }
        let change = |word: &AtomicU64| {
            let mark = changes.mark(word.load(Ordering::Relaxed), transaction);
            word.store(mark, Ordering::Relaxed);
        };
        for place in &changes.places {
            change(self.mark(*place));
        }
        if changes.is_all {
            change(self.epoch);
        }
        // Before the commit, whatever that is made of.
        fence(Ordering::SeqCst);
    }

    /// The proof of what a transaction read that has announced its changes, once it has committed. What it changed itself
    /// later than at that moment ends the proof.
    pub(crate) fn proof_at(
        self,
        moment: Moment,
        (life, transaction): (u64, u64),
        changes: &Changes,
    ) -> Option<Proof> {
        let mut seen = self.see(moment.place);
        let after = changes.places.get(moment.changes..).unwrap_or_default();
        if changes.is_all || after.contains(&moment.place) {
            seen.mark = NEVER;
            return seen.proof(life, NEVER);
        }
        // A transaction that writes nothing doesn't count: its number is that of the next one.
        let snapshot = transaction.saturating_sub(u64::from(!changes.is_written));
        seen.proof(life, snapshot)
    }
}

/// What those wait on who wait for a change: odd while somebody listens. Any number may stand there; it is only compared.
#[derive(Clone, Copy)]
pub(crate) struct Bell<'a>(pub(crate) &'a AtomicU32);

impl Bell<'_> {
    /// Says that something was changed; answers whether somebody is to be woken.
    pub(crate) fn ring(self) -> bool {
        fence(Ordering::SeqCst);
        let rung = self
            .0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |bell| {
                (bell % 2 == 1).then(|| bell.wrapping_add(1))
            });
        rung.is_ok()
    }

    /// Listens from now on; what is looked at next is looked at after that.
    pub(crate) fn listen(self) -> u32 {
        let bell = self.0.fetch_or(1, Ordering::SeqCst) | 1;
        fence(Ordering::SeqCst);
        bell
    }
}
