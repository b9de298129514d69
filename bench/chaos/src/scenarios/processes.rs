//! Faults of the processes that use a store.

use super::{Allows, EMBEDDED, SHARED, Scenario};
use crate::keys::Kind;
use crate::orders::{Mix, Order};
use crate::scene::Scene;
use crate::stage::Stage;

pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "kill-worker",
            about: "a process is killed (-9), whatever it does, and started anew",
            stores: SHARED,
            allows: Allows::Push,
            stage: Stage::Plain,
            run: kill_worker,
        },
        Scenario {
            name: "stop-worker",
            about: "a process is stopped for longer than a lease and than it relies on a silent link, and goes on",
            stores: SHARED,
            allows: Allows::Silence,
            stage: Stage::Plain,
            run: stop_worker,
        },
        Scenario {
            name: "stopped-reader",
            about: "a process that has hits without a break is stopped, for a minute in a long run; others delete what it has; it goes on (H17)",
            stores: SHARED,
            allows: Allows::Silence,
            stage: Stage::Plain,
            run: stopped_reader,
        },
        Scenario {
            name: "stop-writer",
            about: "processes are stopped again and again for up to 400 ms, in the middle of writes too (H29)",
            stores: EMBEDDED,
            allows: Allows::Push,
            stage: Stage::Plain,
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

fn stopped_reader(scene: &mut Scene) -> anyhow::Result<()> {
    let keys = || Kind::Plain.keys().chain(Kind::Lasting.keys());
    // More than it relies on a silent link.
    let stop = if scene.is_long { 60_000 } else { 2_200 };
    while scene.has_time(stop + 1_500) {
        // Loaded, and read: then it has it in its L1.
        for key in keys().chain(keys()) {
            scene.crew.ask(0, Order::Look { key, load_ms: 0 })?;
        }
        let spin = Order::Spin { for_ms: 300 };
        // One for each thread: there is no time for anything else before a hit.
        let spins = [scene.crew.tell(0, spin.clone())?, scene.crew.tell(0, spin)?];
        scene.pause(60);
        scene.crew.stop(0)?;
        for key in keys() {
            scene.crew.insist(1, &Order::Delete { key })?;
        }
        scene.pause(stop);
        scene.crew.go_on(0)?;
        scene.is_over();
        for spin in spins {
            scene.crew.wait(spin)?;
        }
    }
    Ok(())
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
