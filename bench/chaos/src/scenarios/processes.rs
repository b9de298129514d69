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
        Scenario {
            name: "stop-writer",
            about: "processes are stopped again and again for up to 400 ms, in the middle of writes too (H29)",
            stores: &[StoreKind::Embedded],
            allows: Allows::Push,
            has_proxy: false,
            run: stop_writer,
        },
    ]
}

fn kill_worker(scene: &mut Scene) -> anyhow::Result<()> {
    scene.mix(Mix::default())?;
    while scene.has_time(500) {
        scene.pause_between(20, 300);
        kill_one(scene)?;
        scene.is_over();
    }
    Ok(())
}

pub(super) fn kill_one(scene: &mut Scene) -> anyhow::Result<()> {
    let worker = scene.some_worker();
    scene.crew.kill(worker)?;
    scene.crew.start(worker)
}

fn stop_worker(scene: &mut Scene) -> anyhow::Result<()> {
    scene.mix(Mix::default())?;
    while scene.has_time(4_000) {
        scene.pause_between(200, 400);
        stop_one(scene)?;
        scene.is_over();
    }
    scene.pause(300);
    Ok(())
}

pub(super) fn stop_one(scene: &mut Scene) -> anyhow::Result<()> {
    let worker = scene.some_worker();
    scene.crew.stop(worker)?;
    scene.pause_between(2_200, 3_000);
    scene.crew.go_on(worker)
}

/// Often, and for a moment: in the middle of writes.
fn stop_writer(scene: &mut Scene) -> anyhow::Result<()> {
    scene.mix(Mix::default())?;
    while scene.has_time(700) {
        scene.pause_between(5, 60);
        let worker = scene.some_worker();
        scene.crew.stop(worker)?;
        scene.pause_between(1, 400);
        scene.crew.go_on(worker)?;
        scene.is_over();
    }
    scene.pause(300);
    Ok(())
}
