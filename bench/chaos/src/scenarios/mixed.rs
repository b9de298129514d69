//! Faults of all kinds, one after the other, as chance wants.

use super::{Allows, Scenario, processes, servers};
use crate::orders::Mix;
use crate::scene::{Scene, StoreKind};

pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "mixed",
            about: "processes are killed and stopped, as chance wants",
            stores: &[StoreKind::Embedded, StoreKind::Sentinel, StoreKind::Cluster],
            allows: Allows::Silence,
            has_proxy: false,
            run: |scene| mixed(scene, &[processes::kill_one, processes::stop_one]),
        },
        Scenario {
            name: "mixed",
            about: "processes are killed and stopped, the server is stopped and killed, all connections are closed, one link is cut, all is flushed, as chance wants",
            stores: &[StoreKind::Redis],
            allows: Allows::Outage,
            has_proxy: true,
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
    ]
}

fn mixed(scene: &mut Scene, faults: &[fn(&mut Scene) -> anyhow::Result<()>]) -> anyhow::Result<()> {
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
