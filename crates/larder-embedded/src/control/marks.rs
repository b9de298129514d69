//! Marks: by which transaction what stands in a place was changed last. They are what proofs are made of.
//!
//! Keys fall into places by a hash that only the folder knows. A writer stores its transaction's number as the mark of each
//! place that it changes, *before* it commits. A reader notes the mark beside its snapshot, and has a proof only if the mark's
//! transaction is in the snapshot; that holds for as long as the mark is the same. So
//!
//! - once a change has committed, and before anybody can be told so, no proof holds for what was there before it;
//! - a proof that began while the change was under way never holds: either the mark is newer than the snapshot, or older
//!   than the change;
//! - a writer that died before its commit leaves a mark of a transaction that never was: nobody gets a proof in its places
//!   until the next transaction, which has the same number, commits. One that died behind it leaves all in order. There
//!   is nothing to repair.
//!
//! A delete of what is not there ends proofs too: who read it before it was evicted may have it yet. LMDB counts no transaction that
//! changes nothing, so such a one counts on the mark that is there, below the number that the next transaction will have.
//!
//! It is a sequence lock whose odd numbers are the marks that are newer than the snapshot, and whose even ones are LMDB's to make:
//! so the commit and the end of the change are one step. Only who holds LMDB's lock of writers stores marks.
//!
//! An entry that is evicted or expires keeps its mark: a proof may outlive it. So a clear, which can't name the entries that were
//! evicted, changes all places, by a mark of their own (the epoch).

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use larder_core::Proof;
use rustix::thread::futex;
use rustix::time::Timespec;
use twox_hash::XxHash3_64;

use super::board::{Bell, Board, Changes, Moment, Seen};
use super::{Control, Word};
use crate::shared_memory::SharedMemory;

/// A power of two: 512 KiB. With 10,000 changes a second a place that nobody meant is changed every 6.5 s.
pub(crate) const MARKS: usize = 1 << 16;

impl Control {
    pub(crate) fn life(&self) -> u64 {
        self.word(Word::Life).load(Ordering::Acquire)
    }

    #[inline]
    fn board(&self) -> Board<'_> {
        Board {
            life: self.word(Word::Life),
            epoch: self.word(Word::Epoch),
            marks: &self.memory.words()[Word::Marks as usize..][..MARKS],
        }
    }

    /// Ends all proofs, and begins anew. Only for who has the folder alone.
    pub(crate) fn begin_life(&self, life: u64) {
        self.board().begin_life(life);
    }

    /// Ends all proofs for ever, in all processes that have this block: nobody new finds it.
    pub(crate) fn retire(&self) {
        self.word(Word::Life).store(0, Ordering::Release);
    }

    /// The place of a key. Nobody outside can choose keys that share one: the seed is the folder's own.
    #[inline]
    pub(crate) fn place_of(&self, key: &[u8]) -> u32 {
        XxHash3_64::oneshot_with_seed(self.load(Word::Seed), key) as u32 & (MARKS as u32 - 1)
    }

    /// The place of a key that is about to be read. The processor fetches its mark while the entry is looked up.
    #[inline]
    pub(crate) fn place_to_read(&self, key: &[u8]) -> u32 {
        let place = self.place_of(key);
        SharedMemory::prefetch(self.board().mark(place));
        place
    }

    /// [`Board::see`].
    #[inline]
    pub(crate) fn see(&self, place: u32) -> Seen {
        self.board().see(place)
    }

    /// [`Board::holds`].
    #[inline]
    pub(crate) fn holds(&self, life: u64, proof: &Proof) -> bool {
        self.board().holds(life, proof)
    }

    /// [`Board::announce`].
    pub(crate) fn announce(&self, changes: &Changes, transaction: u64) {
        self.board().announce(changes, transaction);
    }

    /// [`Board::proof_at`].
    pub(crate) fn proof_at(
        &self,
        moment: Moment,
        at: (u64, u64),
        changes: &Changes,
    ) -> Option<Proof> {
        self.board().proof_at(moment, at, changes)
    }

    fn bell(&self) -> &AtomicU32 {
        SharedMemory::half(self.word(Word::Bell))
    }

    /// Says to all who listen, in all processes, that something was changed.
    pub(crate) fn ring(&self) {
        if Bell(self.bell()).ring() {
            // Who is not woken looks by itself before long.
            let _ = futex::wake(self.bell(), futex::Flags::empty(), i32::MAX as u32);
        }
    }

    /// [`Bell::listen`].
    pub(crate) fn listen(&self) -> u32 {
        Bell(self.bell()).listen()
    }

    /// Waits until it rings after [`Control::listen`], but no longer than that.
    pub(crate) fn wait_for_bell(&self, heard: u32, most: Duration) {
        let most = Timespec {
            tv_sec: i64::try_from(most.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: most.subsec_nanos().into(),
        };
        // It rang, the time is over, or a signal came: who waits looks in any case.
        let _ = futex::wait(self.bell(), futex::Flags::empty(), heard, Some(&most));
    }
}

#[cfg(test)]
mod tests {
    use super::super::board::SHIFT;
    use super::*;

    /// What a guard of the protocol is, when it is left out: the model must find each.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Without {
        Nothing,
        /// Marks are stored before the commit.
        EarlyMarks,
        /// A mark that is newer than the snapshot gives no proof.
        Comparison,
        /// What is deleted is marked, be it there or not.
        MarksOfAbsent,
        /// A clear's last transaction ends all proofs, not only its first.
        LastEpoch,
        /// What is evicted counts as written, also where nothing else is.
        EvictionsAreWrites,
    }

    /// What a writer does in one transaction to the one key that there is.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Write {
        Set,
        Delete,
        /// As the hand does: no proof ends.
        Evict,
        /// The hand does, to make room for something else, in the transaction that then deletes.
        EvictAndDelete,
        /// The first of two transactions of a clear, which meets other keys.
        ClearOthers,
        /// The last.
        ClearRest,
    }

    const LIFE: u64 = 7;
    /// The transaction that stored what is there at first.
    const FIRST: u64 = 5;

    /// LMDB, as far as it matters: one writer at a time, and a snapshot that has all that committed.
    struct Model {
        control: Control,
        place: u32,
        committed: u64,
        /// The transaction that stored it.
        value: Option<u64>,
        /// What was stored by an earlier transaction was deleted, and that was reported.
        least: u64,
        is_locked: bool,
        without: Without,
    }

    impl Model {
        fn announce(&self, write: Write, is_written: bool, transaction: u64) {
            let mut changes = Changes::default();
            match (write, self.without) {
                (Write::Evict, _) | (Write::ClearRest, Without::LastEpoch) => {}
                (Write::Delete, Without::MarksOfAbsent) if !is_written => {}
                (Write::EvictAndDelete, _) => {
                    changes.change(self.place, false);
                    if is_written && self.without != Without::EvictionsAreWrites {
                        changes.write();
                    }
                }
                (Write::Set | Write::Delete, _) => changes.change(self.place, is_written),
                (Write::ClearOthers | Write::ClearRest, _) => changes.change_all(is_written),
            }
            self.control.announce(&changes, transaction);
        }

        fn commit(&mut self, write: Write, is_written: bool) {
            self.committed += u64::from(is_written);
            match write {
                Write::Set => self.value = Some(self.committed),
                Write::ClearOthers => {}
                Write::Delete | Write::Evict | Write::EvictAndDelete | Write::ClearRest => {
                    self.value = None;
                }
            }
        }

        /// Whether who kept a value with a proof would serve an old one.
        fn is_wrong(&self, kept: Option<(u64, Proof)>, is_over: bool) -> bool {
            kept.is_some_and(|(value, proof)| {
                let is_old =
                    value < self.least || (is_over && self.value.is_some_and(|now| now != value));
                is_old && self.control.holds(LIFE, &proof)
            })
        }
    }

    /// A writer with what it has to do. Between any two steps others take theirs, and behind any it may die.
    struct Writer {
        script: Vec<Write>,
        step: u8,
        is_written: bool,
        steps: usize,
        dies_after: Option<usize>,
    }

    impl Writer {
        fn can_step(&self, model: &Model) -> bool {
            !self.script.is_empty() && (self.step > 0 || !model.is_locked)
        }

        fn step(&mut self, model: &mut Model) {
            let write = self.script[0];
            let is_early = model.without != Without::EarlyMarks;
            match self.step {
                0 => {
                    model.is_locked = true;
                    let is_there = model.value.is_some();
                    self.is_written = is_there || matches!(write, Write::Set | Write::ClearOthers);
                    if is_early {
                        model.announce(write, self.is_written, model.committed + 1);
                    }
                }
                1 => {
                    model.commit(write, self.is_written);
                    model.is_locked = false;
                }
                _ => {
                    if !is_early {
                        model.announce(write, self.is_written, model.committed);
                    }
                    if matches!(
                        write,
                        Write::Delete | Write::EvictAndDelete | Write::ClearRest
                    ) {
                        model.least = model.committed;
                    }
                    self.script.remove(0);
                }
            }
            self.step = (self.step + 1) % 3;
            self.steps += 1;
            if self.dies_after == Some(self.steps) {
                // The lock is robust; what was done is not undone.
                model.is_locked &= self.step != 1;
                self.script.clear();
            }
        }
    }

    /// A reader: looks and begins its snapshot, in any order, and keeps what it found.
    #[derive(Default)]
    struct Reader {
        looks_late: bool,
        step: u8,
        seen: Option<Seen>,
        snapshot: Option<(u64, Option<u64>)>,
        kept: Option<(u64, Proof)>,
    }

    impl Reader {
        fn step(&mut self, model: &Model) {
            if (self.step == 0) != self.looks_late {
                self.seen = Some(model.control.see(model.place));
            } else {
                self.snapshot = Some((model.committed, model.value));
            }
            self.step += 1;
            if let (Some(seen), Some((snapshot, value))) = (self.seen, self.snapshot) {
                let snapshot = match model.without {
                    Without::Comparison => u64::MAX,
                    _ => snapshot,
                };
                self.kept = value.zip(seen.proof(LIFE, snapshot));
            }
        }
    }

    /// One after the other, all orders in which actors can take their steps.
    #[derive(Default)]
    struct Orders {
        /// Which of those that could took a step, and how many could.
        choices: Vec<(usize, usize)>,
        depth: usize,
    }

    impl Orders {
        fn choose(&mut self, able: &[usize]) -> usize {
            if self.depth == self.choices.len() {
                self.choices.push((0, able.len()));
            }
            self.depth += 1;
            able[self.choices[self.depth - 1].0]
        }

        /// `false` when there is no other.
        fn next(&mut self) -> bool {
            self.depth = 0;
            while self
                .choices
                .pop_if(|(chosen, of)| *chosen + 1 == *of)
                .is_some()
            {}
            let last = self.choices.last_mut();
            last.map(|(chosen, _)| *chosen += 1).is_some()
        }
    }

    fn control() -> Control {
        let file = tempfile::tempfile().unwrap();
        file.set_len(Control::file_bytes(1 << 20)).unwrap();
        let control = Control::map(&file).unwrap();
        control.initialise(1 << 20, 5);
        control.begin_life(LIFE);
        control
    }

    /// Runs all orders of the steps of two writers, of which the first may die, and a reader. Answers how many there are, and
    /// whether an old value would be served in one.
    fn explore(
        model: &mut Model,
        scripts: [&[Write]; 2],
        (dies_after, looks_late): (Option<usize>, bool),
    ) -> (u64, bool) {
        let mut orders = Orders::default();
        let (mut count, mut is_wrong) = (0, false);
        loop {
            model.control.store(Word::Epoch, 0);
            model
                .control
                .board()
                .mark(model.place)
                .store(0, Ordering::Relaxed);
            (model.committed, model.value) = (FIRST, Some(FIRST));
            (model.least, model.is_locked) = (0, false);
            let mut writers = [0, 1].map(|writer| Writer {
                script: scripts[writer].to_vec(),
                step: 0,
                is_written: false,
                steps: 0,
                dies_after: dies_after.filter(|_| writer == 0),
            });
            let mut reader = Reader {
                looks_late,
                ..Reader::default()
            };
            loop {
                let mut able = Vec::with_capacity(3);
                able.extend((reader.step < 2).then_some(2));
                able.extend((0..2).filter(|writer| writers[*writer].can_step(model)));
                if able.is_empty() {
                    break;
                }
                match orders.choose(&able) {
                    2 => reader.step(model),
                    writer => writers[writer].step(model),
                }
                is_wrong |= model.is_wrong(reader.kept, false);
            }
            is_wrong |= model.is_wrong(reader.kept, true);
            // Nothing is left in the way of proofs, unless a writer died.
            if dies_after.is_none() && model.without == Without::Nothing {
                let seen = model.control.see(model.place);
                assert!(seen.proof(LIFE, model.committed).is_some());
            }
            count += 1;
            if !orders.next() {
                return (count, is_wrong);
            }
        }
    }

    fn is_wrong(without: Without) -> bool {
        use Write::{ClearOthers, ClearRest, Delete, Evict, EvictAndDelete, Set};
        let plots: [[&[Write]; 2]; 9] = [
            [&[Delete], &[Set, Delete]],
            [&[Set, Delete], &[Delete]],
            [&[Set], &[Set]],
            [&[Evict], &[Delete]],
            [&[Delete], &[Evict, Set]],
            [&[EvictAndDelete], &[Set, Delete]],
            [&[Evict, Set], &[EvictAndDelete]],
            [&[Evict], &[ClearOthers, ClearRest]],
            [&[ClearOthers, ClearRest], &[Evict, Set]],
        ];
        let control = control();
        let mut model = Model {
            place: control.place_of(b"cache:svc:/a"),
            control,
            committed: 0,
            value: None,
            least: 0,
            is_locked: false,
            without,
        };
        let (mut all, mut found) = (0, false);
        for plot in plots {
            for dies_after in [None, Some(1), Some(2), Some(3), Some(4)] {
                for looks_late in [false, true] {
                    let (count, is_wrong) = explore(&mut model, plot, (dies_after, looks_late));
                    all += count;
                    found |= is_wrong;
                }
            }
        }
        assert!(all > 1_000, "{all}");
        found
    }

    #[test]
    fn no_proof_holds_for_what_was_changed_in_any_order_of_steps() {
        assert!(!is_wrong(Without::Nothing));
    }

    #[test]
    fn each_guard_is_needed() {
        for without in [
            Without::EarlyMarks,
            Without::Comparison,
            Without::MarksOfAbsent,
            Without::LastEpoch,
            Without::EvictionsAreWrites,
        ] {
            assert!(is_wrong(without), "{without:?} is not needed");
        }
    }

    #[test]
    fn no_mark_that_somebody_may_have_a_proof_for_comes_again() {
        let control = control();
        let place = control.place_of(b"cache:svc:/a");
        let mut changes = Changes::default();
        changes.change(place, false);
        let (transaction, snapshot) = (FIRST + 1, FIRST);
        let mut given = std::collections::HashSet::new();
        // More deletes of what is not there than there are counts, and nobody commits anything.
        for round in 0..3 << SHIFT {
            control.announce(&changes, transaction);
            if let Some(proof) = control.see(place).proof(LIFE, snapshot) {
                assert!(given.insert(proof.count), "round {round}");
            }
        }
        assert!(given.len() > 60_000);
        // The next one that does ends that.
        let before = control.see(place).proof(LIFE, transaction).unwrap();
        control.announce(&changes, transaction + 1);
        assert!(!control.holds(LIFE, &before) && !given.contains(&before.count));
    }

    #[test]
    fn a_place_is_the_folders_own_and_a_proof_may_say_anything() {
        let (one, other) = (control(), control());
        other.store(Word::Seed, 6);
        let keys = (0..64).map(|key: u32| key.to_le_bytes());
        assert!(
            keys.filter(|key| one.place_of(key) == other.place_of(key))
                .count()
                < 3
        );
        let proof = Proof {
            place: u32::MAX,
            source: LIFE as u32,
            count: 0,
            epoch: 0,
        };
        assert!(one.holds(LIFE, &proof));
        one.retire();
        assert!(!one.holds(LIFE, &proof) && !one.holds(0, &proof));
    }
}
