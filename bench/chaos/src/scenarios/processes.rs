//! Faults of the processes that use a store.

use super::{Allows, Scenario};
use crate::orders::Mix;
use crate::scene::{Scene, StoreKind};

const SHARED: &[StoreKind] = &[
    StoreKind::Embedded,
    StoreKind::Redis,
    StoreKind::Sentinel,
    StoreKind::Cluster,
];

pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "kill-worker",
            about: "a process is killed (-9), whatever it does, and started anew",
            stores: SHARED,
            allows: Allows::Push,
            has_proxy: false,
            run: kill_worker,
        },
        Scenario {
            name: "stop-worker",
            about: "a process is stopped for longer than a lease and than it relies on a silent link, and goes on",
            stores: SHARED,
            allows: Allows::Silence,
            has_proxy: false,
            run: stop_worker,
        },
    ]
}

fn kill_worker(scene: &mut Scene) -> anyhow::Result<()> {
    scene.mix(Mix::default())?;
    while scene.has_time(500) {
        scene.pause_between(20, 300);
        let worker = scene.some_worker();
        scene.crew.kill(worker)?;
        scene.crew.start(worker)?;
        scene.is_over();
    }
    Ok(())
}

fn stop_worker(scene: &mut Scene) -> anyhow::Result<()> {
    scene.mix(Mix::default())?;
    while scene.has_time(4_000) {
        scene.pause_between(200, 400);
        let worker = scene.some_worker();
        scene.crew.stop(worker)?;
        scene.pause_between(2_200, 3_000);
        scene.crew.go_on(worker)?;
        scene.is_over();
    }
    scene.pause(300);
    Ok(())
}
