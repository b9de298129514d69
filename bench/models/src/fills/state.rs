//! What the two servers and the processes have: a state of the model.

/// A random number; nobody else has it.
pub(super) type Token = u8;
/// How many invalidations and sets had been called when something was so: the only clock that there is.
pub(super) type Calls = u8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Version {
    pub(super) value: u8,
    /// Of the server that told it.
    pub(super) life: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Entry {
    /// By a load.
    Filled {
        id: Token,
        /// When its load began.
        made: Calls,
        life: u8,
        stamp: Version,
    },
    /// By a bare `set`, of Larder or of another program.
    Set { id: Token, at: Calls },
}

impl Entry {
    pub(super) fn id(self) -> Token {
        match self {
            Self::Filled { id, .. } | Self::Set { id, .. } => id,
        }
    }
}

/// What the entry's server has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Slot {
    pub(super) entry: Option<Entry>,
    pub(super) lease: Option<Token>,
}

/// A master, and what its replica has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Server<T> {
    pub(super) now: T,
    pub(super) replica: T,
    pub(super) life: u8,
}

impl<T: Copy> Server<T> {
    pub(super) fn fail_over(&mut self) {
        self.now = self.replica;
        self.life += 1;
    }
}

/// A lease that was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Right {
    pub(super) token: Token,
    pub(super) life: u8,
    /// The entry that was there.
    pub(super) expected: Option<Token>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Load {
    pub(super) token: Token,
    pub(super) made: Calls,
    pub(super) right: Option<Right>,
    pub(super) stamp: Version,
    /// Of those who joined after it began: the last invalidation that had returned when one of them asked.
    pub(super) late: Option<Calls>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Flight {
    #[default]
    None,
    Asking(Token),
    Loading(Load),
    /// Its fill is on its way.
    Filling(Load),
    /// What it made may be shared with those who joined, or not.
    Landing(Load, bool),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Process {
    pub(super) flight: Flight,
    /// An `Ask` that nobody waits for any more, and that the server has not got yet.
    pub(super) late_ask: Option<Token>,
    pub(super) late_fill: Option<Load>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Broken {
    /// One who joined a load got what an invalidation that he had to heed had ended.
    C1,
    /// A load filled after something ended its right.
    C2,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) calls: Calls,
    /// The last one that returned `Done`.
    pub(super) done: Calls,
    /// The last one that ended the leases of its key.
    pub(super) ended: Calls,
    pub(super) entry: Server<Slot>,
    pub(super) version: Server<Option<u8>>,
    /// A clear between its two steps.
    pub(super) clear: Option<Calls>,
    pub(super) processes: [Process; 2],
    /// The next random number.
    pub(super) chance: u8,
    pub(super) loads: u8,
    pub(super) evicted_versions: u8,
    pub(super) broken: Option<Broken>,
}

impl Flight {
    pub(super) fn joined(self, heeds: Calls) -> Self {
        let with = |load: Load| Load {
            late: Some(heeds),
            ..load
        };
        match self {
            Self::Loading(load) => Self::Loading(with(load)),
            Self::Filling(load) => Self::Filling(with(load)),
            Self::Landing(load, is_shared) => Self::Landing(with(load), is_shared),
            other => other,
        }
    }
}

impl Load {
    pub(super) fn each_name(&mut self, each: &mut impl FnMut(&mut u8, bool)) {
        each(&mut self.token, false);
        if let Some(right) = &mut self.right {
            each(&mut right.token, false);
            right.expected.iter_mut().for_each(|id| each(id, false));
        }
        each(&mut self.stamp.value, true);
    }
}

impl State {
    pub(super) fn random(&mut self) -> u8 {
        self.chance += 1;
        self.chance
    }

    /// Gives random numbers those names that they would have had if they were drawn in the order in which they stand, and the two
    /// processes, which are alike, their order: so that states which differ by chance alone are one.
    pub(super) fn rename(&mut self, has_random_versions: bool) {
        self.processes.sort_unstable();
        let mut seen = Vec::new();
        self.each_name(|name, is_version| {
            if is_version && !has_random_versions {
                return;
            }
            let place = seen.iter().position(|one| one == name).unwrap_or_else(|| {
                seen.push(*name);
                seen.len() - 1
            });
            *name = place as u8 + 1;
        });
        self.chance = seen.len() as u8;
    }

    pub(super) fn each_name(&mut self, mut each: impl FnMut(&mut u8, bool)) {
        for version in [&mut self.version.now, &mut self.version.replica] {
            version.iter_mut().for_each(|version| each(version, true));
        }
        for slot in [&mut self.entry.now, &mut self.entry.replica] {
            slot.lease.iter_mut().for_each(|lease| each(lease, false));
            match &mut slot.entry {
                Some(Entry::Filled { id, stamp, .. }) => {
                    each(id, false);
                    each(&mut stamp.value, true);
                }
                Some(Entry::Set { id, .. }) => each(id, false),
                None => {}
            }
        }
        for process in &mut self.processes {
            match &mut process.flight {
                Flight::Asking(token) => each(token, false),
                Flight::Loading(load) | Flight::Filling(load) | Flight::Landing(load, _) => {
                    load.each_name(&mut each);
                }
                Flight::None => {}
            }
            process.late_ask.iter_mut().for_each(|ask| each(ask, false));
            let late_fill = process.late_fill.iter_mut();
            late_fill.for_each(|load| load.each_name(&mut each));
        }
    }

    /// What was sent to a server does not reach the next one.
    pub(super) fn cut(&mut self) {
        self.clear = None;
        for process in &mut self.processes {
            process.late_ask = None;
            process.late_fill = None;
        }
    }
}
