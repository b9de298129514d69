//! The scenarios: each a fault of its own, under a random use of the cache or in a fixed order of steps.

mod mixed;
mod orders;
mod processes;
mod servers;

use crate::instant::{Nanos, millis};
use crate::judge::Bounds;
use crate::orders::Mix;
use crate::scene::{Scene, StoreKind};

/// One way to try to break the contract.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) stores: &'static [StoreKind],
    /// What others may see for how long.
    allows: Allows,
    pub(crate) has_proxy: bool,
    pub(crate) run: fn(&mut Scene) -> anyhow::Result<()>,
}

/// What a fault does to the time within which others must know.
#[derive(Debug, Clone, Copy)]
enum Allows {
    /// Nothing: a push, or shared memory, tells.
    Push,
    /// The link may be silent.
    Silence,
    /// The store may be away for some: loads under way are shared without it.
    Outage,
    /// As [`Allows::Outage`], and the store may lose what it acknowledged.
    Loss,
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

impl Scenario {
    pub(crate) fn bounds(&self, store: StoreKind) -> Bounds {
        let is_shared_memory = matches!(store, StoreKind::Embedded | StoreKind::InProcess);
        let near = match self.allows {
            _ if is_shared_memory => 0,
            Allows::Push => PUSH,
            Allows::Silence | Allows::Outage => SILENCE,
            // The nodes agree on another master.
            Allows::Loss => SILENCE + millis(1_000),
        };
        Bounds {
            near: match self.allows {
                Allows::Outage | Allows::Loss => near.max(LOAD),
                _ => near,
            },
            store: match self.allows {
                Allows::Push | Allows::Silence => 0,
                Allows::Outage => LOAD,
                Allows::Loss => near.max(LOAD),
            },
            fill: match self.allows {
                Allows::Push => FILL,
                _ => FILL + STOPPED,
            },
        }
    }
}

pub(crate) fn all() -> Vec<Scenario> {
    let everywhere: &'static [StoreKind] = &[
        StoreKind::InProcess,
        StoreKind::Embedded,
        StoreKind::Redis,
        StoreKind::Sentinel,
        StoreKind::Cluster,
    ];
    let healthy = Scenario {
        name: "healthy",
        about: "nothing happens but reads, loads, sets and invalidations",
        stores: everywhere,
        allows: Allows::Push,
        has_proxy: false,
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
    all.extend(processes::all());
    all.extend(servers::all());
    all.extend(mixed::all());
    all
}
