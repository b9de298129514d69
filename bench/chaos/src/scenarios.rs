//! The scenarios: each a fault of its own, under a random use of the cache or in a fixed order of steps.

mod clocks;
mod folders;
mod links;
mod lives;
mod mixed;
mod orders;
mod outside;
mod processes;
mod servers;

use crate::instant::{Nanos, millis};
use crate::judge::Bounds;
use crate::orders::Mix;
use crate::scene::{Scene, StoreKind};
use crate::stage::Stage;

/// All stores that processes share.
const SHARED: &[StoreKind] = &[
    StoreKind::Embedded,
    StoreKind::Redis,
    StoreKind::Sentinel,
    StoreKind::Cluster,
];
/// And the one that each process has for itself.
const EVERYWHERE: &[StoreKind] = &[
    StoreKind::InProcess,
    StoreKind::Embedded,
    StoreKind::Redis,
    StoreKind::Sentinel,
    StoreKind::Cluster,
];
const EMBEDDED: &[StoreKind] = &[StoreKind::Embedded];
const REDIS: &[StoreKind] = &[StoreKind::Redis];
const SENTINEL: &[StoreKind] = &[StoreKind::Sentinel];
const CLUSTER: &[StoreKind] = &[StoreKind::Cluster];

/// One way to try to break the contract.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) stores: &'static [StoreKind],
    /// What others may see for how long.
    allows: Allows,
    pub(crate) stage: Stage,
    pub(crate) run: fn(&mut Scene) -> anyhow::Result<()>,
}

/// What a fault does to the time within which others must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Allows {
    /// Nothing: a push, or shared memory, tells.
    Push,
    /// The link may be silent.
    Silence,
    /// The store may be away for some: loads under way are shared without it.
    Outage,
    /// The same, and what a killed process left is taken over by others.
    Adoption,
    /// As [`Allows::Outage`], and the store may lose what it acknowledged.
    Loss,
    /// A master answers that others have given up.
    Partition,
    /// The clock of the store's host steps: what lives how long can't be told.
    Clock,
    /// As [`Allows::Loss`] and [`Allows::Clock`].
    ClockAndLoss,
    /// Some use a folder that is not the store's any more.
    Exchange,
}

/// How long a push may take on a healthy loopback.
const PUSH: Nanos = millis(50);
/// How long a silent link is relied on, and a step of the coarse clock.
const SILENCE: Nanos = millis(2_010);
/// The longest load of the mix, and a busy machine.
const LOAD: Nanos = millis(500);
/// How long a fill may be on its way: a store's deadline, and a busy machine.
const FILL: Nanos = millis(400);
/// How long a server is stopped at the most: what was sent to it happens after that.
const STOPPED: Nanos = millis(3_200);
/// `cluster-node-timeout` of these Clusters, and how long a node takes to look whether it is over.
const NODE_TIMEOUT: Nanos = millis(1_200);
/// So often it is looked whether a folder was exchanged, and a busy machine.
const LOOK: Nanos = millis(1_200);
/// How long it takes at the most until what a dead process left was looked for, with what is random in it, and was told to the
/// store.
const ADOPTION: Nanos = millis(8_000);
/// Longer than any round.
const FOR_EVER: Nanos = millis(3_600_000);

impl Scenario {
    /// Whether another server may become the master. Where it may not, a machine that stands still is no reason for it.
    pub(crate) fn may_change_masters(&self) -> bool {
        matches!(
            self.allows,
            Allows::Loss | Allows::ClockAndLoss | Allows::Partition
        )
    }

    pub(crate) fn bounds(&self, store: StoreKind) -> Bounds {
        let is_shared_memory = matches!(store, StoreKind::Embedded | StoreKind::InProcess);
        let silence = match is_shared_memory {
            true => 0,
            false => SILENCE,
        };
        let given_up = match store {
            StoreKind::Cluster => NODE_TIMEOUT + SILENCE,
            _ => SILENCE,
        };
        // The nodes agree on another master.
        let lost = (silence + millis(1_000)).max(LOAD);
        let (near, store) = match self.allows {
            Allows::Push | Allows::Clock => (if is_shared_memory { 0 } else { PUSH }, 0),
            Allows::Silence => (silence, 0),
            Allows::Outage | Allows::Adoption => (silence.max(LOAD), LOAD),
            Allows::Loss | Allows::ClockAndLoss => (lost, lost),
            Allows::Partition => (given_up, given_up),
            Allows::Exchange => (LOOK, LOOK),
        };
        Bounds {
            near,
            store,
            fill: match self.allows {
                Allows::Push => FILL,
                Allows::Clock | Allows::ClockAndLoss => FOR_EVER,
                _ => FILL + STOPPED,
            },
            adoption: (self.allows == Allows::Adoption).then_some(ADOPTION),
        }
    }
}

pub(crate) fn all() -> Vec<Scenario> {
    let healthy = Scenario {
        name: "healthy",
        about: "nothing happens but reads, loads, sets and invalidations",
        stores: EVERYWHERE,
        allows: Allows::Push,
        stage: Stage::Plain,
        run: |scene| {
            scene.mix(Mix::default())?;
            scene.wait_out();
            Ok(())
        },
    };
    let expiry = Scenario {
        name: "expiry",
        about: "hardly anything is invalidated: what is over is loaded anew (C4)",
        run: |scene| {
            scene.mix(Mix {
                deletes: 1,
                sets: 0,
                wide: 0,
                ..Mix::default()
            })?;
            scene.wait_out();
            Ok(())
        },
        ..healthy
    };
    let mut all = vec![healthy, expiry];
    all.extend(orders::all());
    all.extend(outside::all());
    all.extend(processes::all());
    all.extend(folders::all());
    all.extend(servers::all());
    all.extend(lives::all());
    all.extend(links::all());
    all.extend(clocks::all());
    all.extend(mixed::all());
    all
}
