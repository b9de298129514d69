//! What the store could not be told, until it is told: tombstones, journals, crashes, and who adopts what is left.
//!
//! One key, and two processes of one machine that share a folder of journals. Either may lose its link to the store, invalidate
//! meanwhile, load, and be killed between any two steps; it is started again, or the other one adopts its journal.
//!
//! | action | in the code |
//! | --- | --- |
//! | `Delete` | `larder-core/src/invalidate.rs` `Inner::settle`: done; or `outbox.rs` `Outbox::add`: hidden at once |
//! | `Write` | `outbox.rs` `add_items`, `outbox/journal.rs`: it stands in the journal before the caller is told `Pending` |
//! | `WriteFails` | a disk that is full: the caller is told `PendingVolatile` |
//! | `Begin`, `Apply`, `Confirm` | `outbox/apply.rs` `Outbox::apply`: taken up, done by the store, forgotten, and marked in the journal |
//! | `Kill`, `Start` | `kill -9`; `Outbox::open` adopts before the process serves, and heeds the journals of the living |
//! | `Copy`, `Remove` | `outbox/adopt.rs` `take_over`: into the own journal first, then the other one is removed; under its lock |
//! | `Load`, `Fill` | a load that does not use the store where a tombstone hides the key: `larder-core/src/hold.rs` |
//! | `Cut`, `Mend` | the link of one process |
//!
//! A lookup that can't reach the store finds nothing there, and one that a tombstone hides does not ask: `read.rs` `Inner::look`. A `set`
//! that supersedes a tombstone, and the collapse of many into one, are tested in `larder-core/src/outbox/tests.rs`.

use stateright::{Model, Property};

/// How many invalidations had been called when something was so.
type Calls = u8;

/// Steps without which a promise breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guard {
    /// What is pending is hidden from lookups (H26).
    TombstonesHide,
    /// It is in the journal before the caller is told.
    WrittenBeforeTold,
    /// A tombstone goes only when the store has confirmed.
    AppliedBeforeForgotten,
    /// What is added anew while it is applied is applied again.
    AddedAnewIsAppliedAgain,
    /// A process adopts what is left before it serves (H27).
    AdoptedBeforeServing,
    /// Who starts hides what the living have pending, which may be what it left.
    LivingAreHeeded,
    /// What is adopted is in the own journal before the other one is removed.
    CopiedBeforeRemoved,
    /// What is applied ends the lease of a load.
    ApplyEndsLease,
}

const ALL: [Guard; 8] = [
    Guard::TombstonesHide,
    Guard::WrittenBeforeTold,
    Guard::AppliedBeforeForgotten,
    Guard::AddedAnewIsAppliedAgain,
    Guard::AdoptedBeforeServing,
    Guard::LivingAreHeeded,
    Guard::CopiedBeforeRemoved,
    Guard::ApplyEndsLease,
];

struct Outbox {
    without: Option<Guard>,
    calls: Calls,
    kills: u8,
    loads: u8,
}

/// Of an invalidation that is pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Tombstone {
    /// The last call that it stands for.
    call: Calls,
    /// Whether it is being applied, as it was then; and whether the store has done that.
    under_way: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Load {
    made: Calls,
    has_lease: bool,
}

/// The journal of a dead process: of which, and the last call that it says is pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Left {
    of: usize,
    call: Calls,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Process {
    is_dead: bool,
    is_cut: bool,
    tombstone: Option<Tombstone>,
    /// A call that is in memory, and not told to its caller yet.
    untold: Option<Calls>,
    /// What its journal says is pending: the last call.
    journal: Option<Calls>,
    /// What it has locked, and takes over.
    adopting: Option<Left>,
    /// The last call that was told to be pending.
    heeds: Calls,
    /// The last one that was told to be kept, in this life or one before: to be heeded in the next, too.
    kept: Calls,
    load: Option<Load>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    calls: Calls,
    /// The last one that was told to be done: all have to heed it.
    done: Calls,
    /// The last one that the store has done.
    applied: Calls,
    /// When the load of the entry began.
    entry: Option<Calls>,
    /// Who has the lease.
    lease: Option<usize>,
    /// The last one that was told to be kept.
    owed: Calls,
    /// The journals of dead processes.
    left: Vec<Left>,
    processes: [Process; 2],
    kills: u8,
    loads: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Delete(usize),
    Write(usize),
    WriteFails(usize),
    Begin(usize),
    Apply(usize),
    Confirm(usize),
    Kill(usize),
    Start(usize),
    Copy(usize, Left),
    Remove(usize),
    Load(usize),
    Fill(usize),
    Cut(usize),
    Mend(usize),
}

impl Outbox {
    fn has(&self, guard: Guard) -> bool {
        self.without != Some(guard)
    }

    fn hides(&self, process: &Process) -> bool {
        process.tombstone.is_some() && self.has(Guard::TombstonesHide)
    }

    /// What a lookup of a process would serve.
    fn served(&self, state: &State, process: &Process) -> Option<Calls> {
        let is_asked = !process.is_dead && !process.is_cut && !self.hides(process);
        state.entry.filter(|_| is_asked)
    }

    /// The store does a delete.
    fn delete(&self, state: &mut State, call: Calls) {
        state.entry = None;
        if self.has(Guard::ApplyEndsLease) {
            state.lease = None;
        }
        state.applied = state.applied.max(call);
    }

    fn of_process(&self, state: &State, index: usize, actions: &mut Vec<Action>) {
        let own = &state.processes[index];
        if own.is_dead {
            return actions.push(Action::Start(index));
        }
        if state.kills < self.kills {
            actions.push(Action::Kill(index));
        }
        actions.push(if own.is_cut {
            Action::Mend(index)
        } else {
            Action::Cut(index)
        });
        if own.untold.is_some() {
            actions.extend([Action::Write(index), Action::WriteFails(index)]);
        } else if state.calls < self.calls {
            actions.push(Action::Delete(index));
        }
        match own.tombstone.map(|tombstone| tombstone.under_way) {
            Some(None) => actions.push(Action::Begin(index)),
            Some(Some(false)) if !own.is_cut => actions.push(Action::Apply(index)),
            Some(Some(true)) => actions.push(Action::Confirm(index)),
            _ => {}
        }
        if own.adopting.is_none() {
            let free = state.free().into_iter();
            actions.extend(free.map(|left| Action::Copy(index, left)));
        }
        if own.adopting.is_some() {
            actions.push(Action::Remove(index));
        }
        match own.load {
            Some(load) if !own.is_cut && load.has_lease => actions.push(Action::Fill(index)),
            None if state.loads < self.loads => actions.push(Action::Load(index)),
            _ => {}
        }
    }

    /// Keeps a call in memory: what is under way may have passed it.
    fn hide(&self, process: &mut Process, call: Calls) {
        let known = process.tombstone.map(|known| known.under_way);
        let under_way = known
            .flatten()
            .filter(|_| !self.has(Guard::AddedAnewIsAppliedAgain));
        process.tombstone = Some(Tombstone { call, under_way });
    }

    fn add(&self, state: &mut State, index: usize) {
        state.calls += 1;
        let call = state.calls;
        let process = &mut state.processes[index];
        // Its own loads end with what it invalidates.
        process.load = None;
        if process.is_cut {
            process.untold = Some(call);
            self.hide(process, call);
            if !self.has(Guard::WrittenBeforeTold) {
                state.tell(index, call);
            }
        } else {
            self.delete(state, call);
            state.done = call;
        }
    }

    fn adopt(&self, state: &mut State, index: usize, call: Calls) {
        let process = &mut state.processes[index];
        let call = process.tombstone.map_or(call, |own| own.call.max(call));
        self.hide(process, call);
        process.journal = Some(process.journal.map_or(call, |own| own.max(call)));
    }
}

impl State {
    /// The journals of dead processes whose locks are free.
    fn free(&self) -> Vec<Left> {
        let is_locked = |left: &Left| self.processes.iter().any(|one| one.adopting == Some(*left));
        let free = self.left.iter().copied();
        free.filter(|left| !is_locked(left)).collect()
    }

    /// What stands in the journals that others hold.
    fn of_living(&self, index: usize) -> Vec<Calls> {
        let others = self.processes.iter().enumerate();
        let others = others.filter(|(other, _)| *other != index);
        let journals = others.flat_map(|(_, other)| {
            let adopting = other.adopting.map(|left| left.call);
            other.journal.into_iter().chain(adopting)
        });
        journals.collect()
    }

    fn remove(&mut self, left: Left) {
        let place = self.left.iter().position(|one| *one == left);
        place.map(|place| self.left.remove(place));
    }

    /// A caller is told that a call is pending, and kept.
    fn tell(&mut self, index: usize, call: Calls) {
        let process = &mut self.processes[index];
        process.heeds = call.max(process.heeds);
        process.kept = call.max(process.kept);
        self.owed = self.owed.max(call);
    }
}

impl Model for Outbox {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            calls: 0,
            done: 0,
            applied: 0,
            entry: Some(0),
            lease: None,
            owed: 0,
            left: Vec::new(),
            processes: Default::default(),
            kills: 0,
            loads: 0,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for index in 0..state.processes.len() {
            self.of_process(state, index, actions);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Delete(index) => self.add(&mut state, index),
            Action::Write(index) => {
                let process = &mut state.processes[index];
                let call = process.untold.take()?;
                process.journal = process.tombstone.map(|tombstone| tombstone.call);
                state.tell(index, call);
            }
            Action::WriteFails(index) => {
                let process = &mut state.processes[index];
                process.heeds = process.untold.take()?;
            }
            Action::Begin(index) => {
                let is_done = !self.has(Guard::AppliedBeforeForgotten);
                let tombstone = state.processes[index].tombstone.as_mut()?;
                tombstone.under_way = Some(is_done);
            }
            Action::Apply(index) => {
                let tombstone = state.processes[index].tombstone.as_mut()?;
                tombstone.under_way = Some(true);
                let call = tombstone.call;
                self.delete(&mut state, call);
            }
            Action::Confirm(index) => {
                let process = &mut state.processes[index];
                process.tombstone = None;
                process.journal = None;
            }
            Action::Kill(index) => {
                state.kills += 1;
                let process = &mut state.processes[index];
                let left = process.journal.map(|call| Left { of: index, call });
                *process = Process {
                    is_dead: true,
                    is_cut: process.is_cut,
                    kept: process.kept,
                    ..Process::default()
                };
                state.left.extend(left);
                state.left.sort_unstable();
            }
            Action::Start(index) => {
                let process = &mut state.processes[index];
                process.is_dead = false;
                process.heeds = process.kept;
                if self.has(Guard::AdoptedBeforeServing) {
                    for left in state.free() {
                        self.adopt(&mut state, index, left.call);
                        state.remove(left);
                    }
                }
                if self.has(Guard::LivingAreHeeded) {
                    for call in state.of_living(index) {
                        self.adopt(&mut state, index, call);
                    }
                }
            }
            Action::Copy(index, left) => {
                state.processes[index].adopting = Some(left);
                match self.has(Guard::CopiedBeforeRemoved) {
                    true => self.adopt(&mut state, index, left.call),
                    false => state.remove(left),
                }
            }
            Action::Remove(index) => {
                let left = state.processes[index].adopting.take()?;
                match self.has(Guard::CopiedBeforeRemoved) {
                    true => state.remove(left),
                    false => self.adopt(&mut state, index, left.call),
                }
            }
            Action::Load(index) => {
                state.loads += 1;
                let process = &mut state.processes[index];
                let can_ask = !process.is_cut && !self.hides(process);
                let has_lease = can_ask && state.lease.is_none();
                if has_lease {
                    state.lease = Some(index);
                }
                process.load = Some(Load {
                    made: state.calls,
                    has_lease,
                });
            }
            Action::Fill(index) => {
                let load = state.processes[index].load.take()?;
                if state.lease == Some(index) {
                    state.entry = Some(load.made);
                    state.lease = None;
                }
            }
            Action::Cut(index) => state.processes[index].is_cut = true,
            Action::Mend(index) => state.processes[index].is_cut = false,
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "C1, C3: nothing old is served",
                |model: &Self, state: &State| {
                    state.processes.iter().all(|process| {
                        let heeded = state.done.max(process.heeds);
                        let served = model.served(state, process);
                        served.is_none_or(|made| made >= heeded)
                    })
                },
            ),
            Property::always("C3: nothing is forgotten", |_, state: &State| {
                let journals = state.processes.iter().map(|process| process.journal);
                let left = state.left.iter().map(|left| left.call);
                let written = journals.flatten().chain(left).max();
                state.owed <= state.applied.max(written.unwrap_or_default())
            }),
        ]
    }
}

#[cfg(test)]
mod tests {
    use stateright::{Checker as _, HasDiscoveries};

    use super::*;

    fn without(guard: Option<Guard>) -> impl stateright::Checker<Outbox> {
        let model = Outbox {
            without: guard,
            calls: 2,
            kills: 2,
            loads: 1,
        };
        let checker = model.checker().threads(2);
        checker
            .finish_when(HasDiscoveries::AnyFailures)
            .spawn_bfs()
            .join()
    }

    #[test]
    fn nothing_is_served_or_forgotten_in_any_order_of_steps() {
        let checker = without(None);
        let states = checker.unique_state_count();
        eprintln!("{states} states, {} steps deep", checker.max_depth());
        checker.assert_properties();
        assert!(checker.is_done() && states > 10_000);
    }

    #[test]
    fn each_guard_is_needed() {
        for guard in ALL {
            let checker = without(Some(guard));
            let found = checker.discoveries();
            let found = found.into_iter().next();
            let (property, path) = found.unwrap_or_else(|| panic!("{guard:?} is not needed"));
            let path = path.into_actions();
            eprintln!("without {guard:?}, {property} breaks: {path:?}");
        }
    }
}
