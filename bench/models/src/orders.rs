//! The small protocols of atomics, in every order that their memory orderings allow, under loom.
//!
//! What runs here is the product's own text: [`fenced`] includes its files with loom's atomics where the product has those of `std`,
//! [`relaxed`] the same ones with all orderings and fences taken away. Loom takes `SeqCst` of a load or a store for no more than
//! `AcqRel`, so where that passes here the fences are enough.
//!
//! | protocol | file |
//! | --- | --- |
//! | marks: a proof ends before anybody can know of the change | `larder-embedded/src/control/board.rs` `Board` |
//! | the bell: who waits for the end of a proof is woken | `board.rs` `Bell`; the kernel's futex is a comparison here |
//! | sweeps: a plain entry that was invalidated is not shown | `larder-core/src/sweeps.rs` |
//! | the gate of what is pending: open only once the proofs of it have ended | `larder-core/src/outbox/gate.rs` |
//!
//! LMDB's commit is one word here, stored without any ordering of its own: what comes before it is `announce`'s affair.

mod fenced;
mod relaxed;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs something in every order, of which threads are taken off the processor three times at the most.
fn in_every_order(run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(run);
}

fn breaks(run: impl Fn() + Sync + Send + 'static) -> bool {
    catch_unwind(AssertUnwindSafe(|| in_every_order(run))).is_err()
}

/// The scenarios, over the text that a module includes.
macro_rules! scenarios {
    ($of:ident) => {
        pub(super) mod $of {
            use std::sync::Arc;

            use larder_model::{Key, Pattern};
            use loom::sync::atomic::{AtomicU64 as Plain, Ordering};
            use loom::thread;

            use super::super::$of::board::{Bell, Board, Changes};
            use super::super::$of::gate::Gate;
            use super::super::$of::sweeps::Sweeps;
            use super::super::$of::sync::{AtomicU32, AtomicU64};

            const LIFE: u64 = 7;
            const BEFORE: u64 = 5;
            const AFTER: u64 = 6;

            struct Words {
                life: AtomicU64,
                epoch: AtomicU64,
                marks: [AtomicU64; 1],
                bell: AtomicU32,
                committed: Plain,
                /// Whether the writer's caller has been answered, and has passed that on.
                told: Plain,
            }

            impl Words {
                fn new() -> Arc<Self> {
                    Arc::new(Self {
                        life: AtomicU64::new(LIFE),
                        epoch: AtomicU64::new(0),
                        marks: [AtomicU64::new(0)],
                        bell: AtomicU32::new(0),
                        committed: Plain::new(BEFORE),
                        told: Plain::new(0),
                    })
                }

                fn board(&self) -> Board<'_> {
                    Board {
                        life: &self.life,
                        epoch: &self.epoch,
                        marks: &self.marks,
                    }
                }

                /// What a writer does: `is_all` as a clear, else a delete; the marks come late in a protocol that is wrong.
                fn write(&self, is_all: bool, is_late: bool) -> bool {
                    let mut changes = Changes::default();
                    match is_all {
                        true => changes.change_all(true),
                        false => changes.change(0, true),
                    }
                    if !is_late {
                        self.board().announce(&changes, AFTER);
                    }
                    self.committed.store(AFTER, Ordering::Relaxed);
                    if is_late {
                        self.board().announce(&changes, AFTER);
                    }
                    let is_woken = Bell(&self.bell).ring();
                    self.told.store(1, Ordering::Release);
                    is_woken
                }
            }

            /// A reader keeps what it read for as long as its proof holds, and looks at the store again.
            pub(crate) fn marks(is_all: bool, is_late: bool) {
                let words = Words::new();
                let writer = {
                    let words = Arc::clone(&words);
                    thread::spawn(move || words.write(is_all, is_late))
                };
                let seen = words.board().see(0);
                let snapshot = words.committed.load(Ordering::Acquire);
                let proof = seen.proof(LIFE, snapshot);
                let has_changed = words.committed.load(Ordering::Acquire) == AFTER
                    || words.told.load(Ordering::Acquire) == 1;
                if let Some(proof) = proof
                    && snapshot == BEFORE
                    && has_changed
                {
                    assert!(!words.board().holds(LIFE, &proof), "an old value is served");
                }
                writer.join().unwrap();
            }

            /// One who waits for the end of a proof.
            pub(crate) fn bell() {
                let words = Words::new();
                let proof = words.board().see(0).proof(LIFE, BEFORE).unwrap();
                let listener = {
                    let words = Arc::clone(&words);
                    thread::spawn(move || {
                        let heard = Bell(&words.bell).listen();
                        words.board().holds(LIFE, &proof).then_some(heard)
                    })
                };
                let is_woken = words.write(false, false);
                if let Some(heard) = listener.join().unwrap() {
                    // As the kernel compares it: he sleeps on, or was told, or is woken.
                    let bell = words.bell.load(super::super::$of::sync::Ordering::SeqCst);
                    assert!(bell != heard && is_woken, "nobody wakes him");
                }
            }

            /// An invalidation returns while its sweep runs; a lookup begins after that.
            pub(crate) fn sweeps() {
                let (sweeps, entry, returned) = (Sweeps::default(), Plain::new(1), Plain::new(0));
                let all = Arc::new((sweeps, entry, returned));
                let sweeper = {
                    let all = Arc::clone(&all);
                    thread::spawn(move || {
                        let (sweeps, entry, returned) = &*all;
                        let sweep = sweeps.begin(&Pattern::parse("cache:svc:*").unwrap());
                        returned.store(1, Ordering::Release);
                        entry.store(0, Ordering::Release);
                        sweeps.end(sweep);
                    })
                };
                let (sweeps, entry, returned) = &*all;
                if returned.load(Ordering::Acquire) == 1 {
                    let asked = sweeps.swept();
                    let is_there = entry.load(Ordering::Acquire) == 1;
                    let key = Key::new("svc", "/a").unwrap();
                    let is_shown = !sweeps.hides_read(&key, asked);
                    assert!(!is_there || !is_shown, "a swept entry is shown");
                }
                sweeper.join().unwrap();
            }

            /// Something is pending; it is applied, which ends a proof, and forgotten, while a lookup looks into its L1.
            pub(crate) fn gate() {
                let (gate, mark) = (Gate::default(), Plain::new(0));
                gate.set(1);
                let all = Arc::new((gate, mark));
                let driver = {
                    let all = Arc::clone(&all);
                    thread::spawn(move || {
                        let (gate, mark) = &*all;
                        mark.store(1, Ordering::Release);
                        gate.set(0);
                    })
                };
                let (gate, mark) = &*all;
                if gate.is_open() {
                    let is_proven = mark.load(Ordering::Acquire) == 0;
                    assert!(!is_proven, "what was pending is served");
                }
                driver.join().unwrap();
            }
        }
    };
}

mod over {
    scenarios!(fenced);
    scenarios!(relaxed);
}

use over::fenced as with_orderings;
use over::relaxed as without;

#[test]
fn no_proof_holds_once_anybody_can_know_of_the_change() {
    for is_all in [false, true] {
        in_every_order(move || with_orderings::marks(is_all, false));
        assert!(
            breaks(move || without::marks(is_all, false)),
            "no ordering is needed"
        );
        assert!(
            breaks(move || with_orderings::marks(is_all, true)),
            "marks may come late"
        );
    }
}

#[test]
fn who_waits_for_the_end_of_a_proof_is_woken() {
    in_every_order(with_orderings::bell);
    assert!(breaks(without::bell), "no ordering is needed");
}

#[test]
fn what_is_swept_is_not_shown() {
    in_every_order(with_orderings::sweeps);
    assert!(breaks(without::sweeps), "no ordering is needed");
    let is_found = breaks(|| {
        crate::mutants::without(
            crate::mutants::Guard::SweptReadsHide,
            with_orderings::sweeps,
        );
    });
    assert!(
        is_found,
        "what was asked for before a sweep's end need not be hidden"
    );
}

#[test]
fn the_gate_opens_only_behind_what_was_applied() {
    in_every_order(with_orderings::gate);
    assert!(breaks(without::gate), "no ordering is needed");
}
