//! Faults of all kinds, one after the other, as chance wants.

use super::{Allows, REDIS, SENTINEL, Scenario, links, processes, servers};
use crate::orders::Mix;
use crate::scene::{Scene, StoreKind};
use crate::stage::Stage;

pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "mixed",
            about: "processes are killed and stopped, as chance wants",
            stores: &[StoreKind::Embedded, StoreKind::Sentinel, StoreKind::Cluster],
            allows: Allows::Silence,
            stage: Stage::Plain,
            run: |scene| mixed(scene, &[processes::kill_one, processes::stop_one]),
        },
        Scenario {
            name: "mixed",
            about: "processes are killed and stopped, the server is stopped and killed, all connections are closed, one link is cut, all is flushed, as chance wants",
            stores: REDIS,
            allows: Allows::Outage,
            stage: Stage::Proxied,
            run: |scene| {
                mixed(
                    scene,
                    &[
                        processes::kill_one,
                        processes::stop_one,
                        servers::stop_once,
                        servers::kill_once,
                        servers::cut_once,
                        |scene| {
                            scene.redis()?.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
                            Ok(())
                        },
                        |scene| {
                            scene.redis()?.cli(&["FLUSHALL"]);
                            Ok(())
                        },
                    ],
                )
            },
        },
        Scenario {
            name: "mixed-links",
            about: "links are cut, in one direction or both, and processes are killed and stopped, as chance wants",
            stores: &[StoreKind::Redis, StoreKind::Cluster],
            allows: Allows::Outage,
            stage: Stage::Network,
            run: |scene| mixed(scene, LINKS),
        },
        Scenario {
            name: "mixed-links",
            about: "the same, and one process is cut off from most Sentinels",
            stores: SENTINEL,
            allows: Allows::Outage,
            stage: Stage::Network,
            run: |scene| mixed(scene, SENTINELS_LINKS),
        },
    ]
}

type Fault = fn(&mut Scene) -> anyhow::Result<()>;

const LINKS: &[Fault] = &[
    processes::kill_one,
    processes::stop_one,
    links::silent_once,
    links::one_way_once,
];

const SENTINELS_LINKS: &[Fault] = &[
    processes::kill_one,
    processes::stop_one,
    links::silent_once,
    links::one_way_once,
    links::sentinels_once,
];

fn mixed(scene: &mut Scene, faults: &[Fault]) -> anyhow::Result<()> {
    scene.mix(Mix::default())?;
    while scene.has_time(3_500) {
        scene.pause_between(50, 800);
        let fault = faults[scene.random.below(faults.len())];
        fault(scene)?;
        scene.is_over();
    }
    scene.pause(1_000);
    Ok(())
}
