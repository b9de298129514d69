//! Leases, fills, joiners, tags, deletes and failovers: who may fill, and what may be served.
//!
//! One key with one tag, two processes that load it, and one that invalidates. The entry and its lease lie on one master, the tag's version on
//! another; each has a replica that lags. An [`Action`] is one step of one of them, and the checker takes them in every order:
//!
//! | action | in the code |
//! | --- | --- |
//! | `Ask`, `Grant`, `GiveUp` | `larder-core/src/hold.rs` `Departure::clear`: the lease is asked for and the versions are read, then the loader is called; past the deadline it is called without a right |
//! | `LateGrant` | a server that was stopped does what was sent to it before: `larder-redis/src/lease.rs` |
//! | `Extend` | `hold.rs` `keep`; `larder-redis/src/scripts.rs` `EXTEND`; `larder-embedded/src/leases.rs` |
//! | `Join` | `larder-core/src/flight.rs` `Flights::board`, by one who asks while the load runs |
//! | `Finish`, `Fill`, `Land` | `larder-core/src/departure.rs` `Departure::finish`: closed to who comes, filled, landed; `scripts.rs` `FILL` |
//! | `GiveUpFill`, `LateFill` | the answer of a fill does not come in time (`Written::Unknown`), and it happens later |
//! | `Fail` | `departure.rs` `Departure::fail`; `scripts.rs` `RELEASE` |
//! | `Delete`, `Set` | `larder-redis/src/write.rs`, `larder-core/src/in_process.rs`, `larder-embedded/src/writer.rs`: the lease ends in the same step |
//! | `Clear`, `ClearRest` | `larder-redis/src/walk.rs`: leases first, then entries, which is no one step |
//! | `InvalidateTag` | `larder-core/src/invalidate.rs` `Inner::invalidate`: the version gets a new random value |
//! | `ForeignSet` | another program's `SET`, which knows of no lease |
//! | `Expire`, `EvictEntry`, `EvictVersion` | time, and a store that is full |
//! | `Replicate…`, `Failover…` | a replica is as its master was at some time; it is promoted, and is another life of the server (`Stored::incarnation`) |
//!
//! What is served is judged as `larder-core/src/read.rs` `try_framed` and `versions.rs` `holds_up` do. An invalidation returns in the step in
//! which it takes effect, and a lookup reads in the step in which it begins: what takes longer allows no more.
//!
//! Not in it: the L1 (see `orders`), plain entries after a failover, which may come back, a store that nobody can ask, and the lag of pushes.

mod guards;
mod state;

use stateright::{Model, Property};

pub(crate) use guards::Guard;
use guards::Guards;
use state::{
    Broken, Calls, Entry, Flight, Load, Process, Right, Server, Slot, State, Token, Version,
};

/// How far the checker goes.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    calls: Calls,
    loads: u8,
    failovers: u8,
    evicted_versions: u8,
}

struct Fills {
    guards: Guards,
    bounds: Bounds,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Ask(usize),
    Grant(usize),
    GiveUp(usize),
    LateGrant(usize),
    Extend(usize),
    Join(usize),
    Finish(usize),
    Fill(usize),
    GiveUpFill(usize),
    LateFill(usize),
    Land(usize),
    Fail(usize),
    Delete,
    Clear,
    ClearRest,
    InvalidateTag,
    Set,
    ForeignSet,
    Expire,
    EvictEntry,
    EvictVersion,
    ReplicateEntry,
    ReplicateVersion,
    FailOverEntry,
    FailOverVersion,
}

impl Fills {
    fn has(&self, guard: Guard) -> bool {
        self.guards.has(guard)
    }

    /// Whether a lookup serves an entry that was filled: with the call before which its load began.
    fn served(&self, state: &State) -> Option<Calls> {
        let Entry::Filled {
            made, life, stamp, ..
        } = state.entry.now.entry?
        else {
            return None;
        };
        let is_of_this_life = life == state.entry.life || !self.has(Guard::EntryOfThisLife);
        (is_of_this_life && self.is_current(state, stamp)).then_some(made)
    }

    /// Whether a version is as a stamp says. One that was forgotten is made anew, which is another.
    fn is_current(&self, state: &State, stamp: Version) -> bool {
        let Some(value) = state.version.now.or(self.remade(state)) else {
            return false;
        };
        let is_same_life = stamp.life == state.version.life || !self.has(Guard::StampsCarryLife);
        !self.has(Guard::StampsAreCompared) || (stamp.value == value && is_same_life)
    }

    /// What a version that was forgotten becomes when it is asked for: a counter begins again.
    fn remade(&self, state: &State) -> Option<u8> {
        (state.version.now.is_none() && !self.has(Guard::VersionsAreRandom)).then_some(1)
    }

    /// Reads the version, which is made if there is none.
    fn version(&self, state: &mut State) -> Version {
        let value = match state.version.now.or(self.remade(state)) {
            Some(value) => value,
            None => state.random(),
        };
        state.version.now = Some(value);
        Version {
            value,
            life: state.version.life,
        }
    }

    /// The loader is called.
    fn begin(&self, state: &mut State, token: Token, right: Option<Right>) -> Flight {
        let stamp = self.version(state);
        Flight::Loading(Load {
            token,
            made: state.calls,
            right,
            stamp,
            late: None,
        })
    }

    /// The server gets an ask.
    fn acquire(state: &mut State, token: Token) -> Option<Right> {
        if state.entry.now.lease.is_some() {
            return None;
        }
        state.entry.now.lease = Some(token);
        Some(Right {
            token,
            life: state.entry.life,
            expected: state.entry.now.entry.map(Entry::id),
        })
    }

    /// The server gets a fill: answers whether it took it.
    fn fill(&self, state: &mut State, load: Load) -> bool {
        let Some(right) = load.right else {
            return false;
        };
        if self.has(Guard::FillInTheSameLife) && right.life != state.entry.life {
            return false;
        }
        if self.has(Guard::FillComparesLease) && state.entry.now.lease != Some(right.token) {
            return false;
        }
        let there = state.entry.now.entry;
        if state.entry.now.lease == Some(right.token) {
            state.entry.now.lease = None;
        }
        if self.has(Guard::FillComparesEntry) && there.map(Entry::id) != right.expected {
            return false;
        }
        let is_over_newer = matches!(there, Some(Entry::Set { at, .. }) if at > load.made);
        if load.made < state.ended || is_over_newer {
            state.broken = Some(Broken::C2);
        }
        let stamp = match self.has(Guard::StampsBeforeLoad) {
            true => load.stamp,
            false => self.version(state),
        };
        state.entry.now.entry = Some(Entry::Filled {
            id: load.token,
            made: load.made,
            life: right.life,
            stamp,
        });
        true
    }

    /// Once a fill was answered: whether those who joined the load late may have its value. They get it at once, unless more could
    /// join yet.
    fn landing(&self, state: &mut State, load: Load, is_filled: bool) -> Flight {
        let is_filled = is_filled || !self.has(Guard::JoinersShareWhatIsFilled);
        let is_current =
            !self.has(Guard::JoinersNeedVersions) || self.is_current(state, load.stamp);
        let is_shared = is_filled && is_current;
        if self.has(Guard::FlightClosesBeforeFill) {
            Self::land(state, load, is_shared);
            return Flight::None;
        }
        Flight::Landing(load, is_shared)
    }

    fn land(state: &mut State, load: Load, is_shared: bool) {
        if is_shared && load.late.is_some_and(|heeded| load.made < heeded) {
            state.broken = Some(Broken::C1);
        }
    }

    /// Whether one who asks now can join a flight, and is later than all who did.
    fn can_join(&self, state: &State, flight: Flight) -> bool {
        let is_later = |load: Load| state.done > load.late.unwrap_or(load.made);
        match flight {
            Flight::Loading(load) => is_later(load),
            Flight::Filling(load) | Flight::Landing(load, _) => {
                !self.has(Guard::FlightClosesBeforeFill) && is_later(load)
            }
            Flight::None | Flight::Asking(_) => false,
        }
    }

    fn of_process(&self, state: &State, process: usize, actions: &mut Vec<Action>) {
        let Process {
            flight,
            late_ask,
            late_fill,
        } = state.processes[process];
        match flight {
            Flight::None if state.loads < self.bounds.loads => actions.push(Action::Ask(process)),
            Flight::None => {}
            Flight::Asking(_) => {
                actions.extend([Action::Grant(process), Action::GiveUp(process)]);
            }
            Flight::Loading(load) => {
                actions.extend([Action::Finish(process), Action::Fail(process)]);
                if load.right.is_some() && !self.has(Guard::LostLeaseStaysLost) {
                    actions.push(Action::Extend(process));
                }
            }
            Flight::Filling(_) => {
                actions.extend([Action::Fill(process), Action::GiveUpFill(process)]);
            }
            Flight::Landing(..) => actions.push(Action::Land(process)),
        }
        if self.can_join(state, flight) {
            actions.push(Action::Join(process));
        }
        actions.extend(late_ask.map(|_| Action::LateGrant(process)));
        actions.extend(late_fill.map(|_| Action::LateFill(process)));
    }

    fn step(&self, state: &mut State, process: usize, action: Action) {
        let Process {
            flight,
            late_ask,
            late_fill,
        } = state.processes[process];
        let next = match (action, flight) {
            (Action::Ask(_), _) => {
                state.loads += 1;
                Flight::Asking(state.random())
            }
            (Action::Grant(_), Flight::Asking(token)) => match Self::acquire(state, token) {
                Some(right) => self.begin(state, token, Some(right)),
                // Another one loads: this one waits, and asks again.
                None => Flight::None,
            },
            (Action::GiveUp(_), Flight::Asking(token)) => {
                state.processes[process].late_ask = Some(token);
                self.begin(state, token, None)
            }
            (Action::LateGrant(_), flight) => {
                state.processes[process].late_ask = None;
                let right = late_ask.and_then(|token| Self::acquire(state, token));
                match flight {
                    Flight::Loading(load) if !self.has(Guard::GrantBeforeLoad) => {
                        let right = right.filter(|right| right.token == load.token);
                        Flight::Loading(Load { right, ..load })
                    }
                    _ => flight,
                }
            }
            (Action::Extend(_), flight) => {
                if let Flight::Loading(Load { right, .. }) = flight {
                    let lease = &mut state.entry.now.lease;
                    *lease = lease.or(right.map(|right| right.token));
                }
                flight
            }
            (Action::Join(_), flight) => flight.joined(state.done),
            (Action::Finish(_), Flight::Loading(load)) => Flight::Filling(load),
            (Action::Fill(_), Flight::Filling(load)) => {
                let is_filled = self.fill(state, load);
                self.landing(state, load, is_filled)
            }
            (Action::GiveUpFill(_), Flight::Filling(load)) => {
                state.processes[process].late_fill = Some(load);
                self.landing(state, load, false)
            }
            (Action::LateFill(_), flight) => {
                state.processes[process].late_fill = None;
                late_fill.map(|load| self.fill(state, load));
                flight
            }
            (Action::Land(_), Flight::Landing(load, is_shared)) => {
                Self::land(state, load, is_shared);
                Flight::None
            }
            (Action::Fail(_), Flight::Loading(load)) => {
                if state.entry.now.lease == Some(load.token) {
                    state.entry.now.lease = None;
                }
                Flight::None
            }
            (_, flight) => flight,
        };
        state.processes[process].flight = next;
    }

    fn invalidate(&self, state: &mut State, action: Action) {
        match action {
            Action::Delete => {
                state.calls += 1;
                state.entry.now.entry = None;
                if self.has(Guard::DeleteEndsLease) {
                    state.entry.now.lease = None;
                }
                (state.ended, state.done) = (state.calls, state.calls);
            }
            Action::Clear => {
                state.calls += 1;
                state.clear = Some(state.calls);
                self.clear(state, self.has(Guard::ClearEndsLeasesFirst));
            }
            Action::ClearRest => {
                self.clear(state, !self.has(Guard::ClearEndsLeasesFirst));
                let call = state.clear.take().unwrap_or_default();
                (state.ended, state.done) = (state.ended.max(call), state.done.max(call));
            }
            Action::InvalidateTag => {
                state.calls += 1;
                state.version.now = Some(match self.has(Guard::VersionsAreRandom) {
                    true => state.random(),
                    false => state.version.now.unwrap_or_default() + 1,
                });
                state.done = state.calls;
            }
            Action::Set | Action::ForeignSet => {
                state.calls += 1;
                let at = state.calls;
                let id = state.random();
                state.entry.now.entry = Some(Entry::Set { id, at });
                if action == Action::Set {
                    state.ended = state.calls;
                    if self.has(Guard::SetEndsLease) {
                        state.entry.now.lease = None;
                    }
                }
            }
            _ => {}
        }
    }

    fn clear(&self, state: &mut State, leases: bool) {
        match leases {
            true => state.entry.now.lease = None,
            false => state.entry.now.entry = None,
        }
    }
}

impl Model for Fills {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let slot = Slot::default();
        vec![State {
            calls: 0,
            done: 0,
            ended: 0,
            entry: Server {
                now: slot,
                replica: slot,
                life: 0,
            },
            version: Server {
                now: Some(1),
                replica: Some(1),
                life: 0,
            },
            clear: None,
            processes: Default::default(),
            chance: 1,
            loads: 0,
            evicted_versions: 0,
            broken: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.broken.is_some() {
            return;
        }
        for process in 0..state.processes.len() {
            self.of_process(state, process, actions);
        }
        if state.clear.is_some() {
            actions.push(Action::ClearRest);
        } else if state.calls < self.bounds.calls {
            actions.extend([
                Action::Delete,
                Action::Clear,
                Action::InvalidateTag,
                Action::Set,
                Action::ForeignSet,
            ]);
        }
        actions.extend(state.entry.now.lease.map(|_| Action::Expire));
        actions.extend(state.entry.now.entry.map(|_| Action::EvictEntry));
        if state.version.now.is_some() && state.evicted_versions < self.bounds.evicted_versions {
            actions.push(Action::EvictVersion);
        }
        if state.entry.life + state.version.life < self.bounds.failovers {
            actions.extend([
                Action::ReplicateEntry,
                Action::ReplicateVersion,
                Action::FailOverEntry,
                Action::FailOverVersion,
            ]);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Ask(process)
            | Action::Grant(process)
            | Action::GiveUp(process)
            | Action::LateGrant(process)
            | Action::Extend(process)
            | Action::Join(process)
            | Action::Finish(process)
            | Action::Fill(process)
            | Action::GiveUpFill(process)
            | Action::LateFill(process)
            | Action::Land(process)
            | Action::Fail(process) => self.step(&mut state, process, action),
            Action::Delete
            | Action::Clear
            | Action::ClearRest
            | Action::InvalidateTag
            | Action::Set
            | Action::ForeignSet => self.invalidate(&mut state, action),
            Action::Expire => state.entry.now.lease = None,
            Action::EvictEntry => state.entry.now.entry = None,
            Action::EvictVersion => {
                state.version.now = None;
                state.evicted_versions += 1;
            }
            Action::ReplicateEntry => state.entry.replica = state.entry.now,
            Action::ReplicateVersion => state.version.replica = state.version.now,
            Action::FailOverEntry => {
                state.entry.fail_over();
                state.cut();
            }
            Action::FailOverVersion => state.version.fail_over(),
        }
        state.rename(self.has(Guard::VersionsAreRandom));
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("C1", |model: &Self, state: &State| {
                let is_old = model.served(state).is_some_and(|made| made < state.done);
                !is_old && state.broken != Some(Broken::C1)
            }),
            Property::always("C2", |_, state: &State| state.broken != Some(Broken::C2)),
        ]
    }
}

#[cfg(test)]
mod tests;
