//! What befalls the embedded store's folder, and who may share it.

use std::os::unix::fs::FileExt as _;

use super::{Allows, EMBEDDED, Scenario};
use crate::keys::Kind;
use crate::orders::{Mix, Order};
use crate::scene::Scene;
use crate::stage::Stage;

pub(super) fn all() -> Vec<Scenario> {
    let one = |name, about, allows, stage, run| Scenario {
        name,
        about,
        stores: EMBEDDED,
        allows,
        stage,
        run,
    };
    vec![
        one(
            "folder-removed",
            "the folder is removed (rm -rf) while all use it, and one process, started anew, makes another (H31)",
            Allows::Exchange,
            Stage::Plain,
            folder_removed,
        ),
        one(
            "damaged",
            "all processes are killed, bytes of the store's file are others, and all are started anew",
            Allows::Push,
            Stage::Plain,
            damaged,
        ),
        one(
            "full-disk",
            "the disk is full, and has room again (H32)",
            Allows::Push,
            Stage::SmallDisk,
            full_disk,
        ),
        one(
            "container",
            "one process is in another PID namespace: whoever comes second is refused, and works without the store (H30)",
            Allows::Outage,
            Stage::Container,
            container,
        ),
        one(
            "other-clocks",
            "the time since boot is another one for each process, an hour before and behind: one at a time has the store (C4, C5)",
            Allows::Push,
            Stage::OtherClocks,
            other_clocks,
        ),
    ]
}

fn folder_removed(scene: &mut Scene) -> anyhow::Result<()> {
    scene.mix(Mix::default())?;
    while scene.has_time(3_500) {
        scene.pause_between(300, 600);
        std::fs::remove_dir_all(scene.folder()?)?;
        let first = scene.some_worker();
        scene.crew.kill(first)?;
        scene.crew.start(first)?;
        // Longer than it may go unnoticed.
        scene.pause_between(2_000, 2_500);
        for other in (0..scene.crew.len()).filter(|other| *other != first) {
            scene.crew.kill(other)?;
            scene.crew.start(other)?;
        }
        scene.is_over();
    }
    scene.pause(500);
    Ok(())
}

fn damaged(scene: &mut Scene) -> anyhow::Result<()> {
    scene.mix(Mix::default())?;
    while scene.has_time(900) {
        scene.pause_between(200, 400);
        scene.crew.kill_all()?;
        let path = scene.folder()?.join("data.mdb");
        let file = std::fs::File::options().write(true).open(path)?;
        let bytes = usize::try_from(file.metadata()?.len())?;
        for _ in 0..1 + scene.random.below(8) {
            let at = scene.random.below(bytes) as u64;
            file.write_all_at(&scene.random.next().to_le_bytes(), at)?;
        }
        (0..scene.crew.len()).try_for_each(|worker| scene.crew.start(worker))?;
        scene.is_over();
    }
    scene.pause(400);
    Ok(())
}

fn full_disk(scene: &mut Scene) -> anyhow::Result<()> {
    scene.mix(Mix::default())?;
    while scene.has_time(900) {
        scene.pause_between(50, 200);
        scene.disk()?.fill()?;
        scene.pause_between(300, 500);
        scene.disk()?.clear()?;
        scene.is_over();
    }
    scene.pause(400);
    Ok(())
}

/// All are killed, and started anew in another order: who may not share the folder with the first one is refused.
fn hand_over(
    scene: &mut Scene,
    first: usize,
    may_share: fn(usize, usize) -> bool,
) -> anyhow::Result<()> {
    // What they saw is written down, that of lookups, too.
    scene.crew.ask_all(&Order::Rest)?;
    scene.crew.kill_all()?;
    scene.crew.start(first)?;
    for other in (0..scene.crew.len()).filter(|other| *other != first) {
        match may_share(first, other) {
            true => scene.crew.start(other)?,
            false => scene.crew.start_refused(other)?,
        }
    }
    scene.is_over();
    Ok(())
}

fn container(scene: &mut Scene) -> anyhow::Result<()> {
    let last = scene.crew.len() - 1;
    scene.mix(Mix::default())?;
    while scene.has_time(700) {
        scene.pause_between(200, 400);
        let first = [last, 0][scene.faults as usize % 2];
        hand_over(scene, first, |one, other| (one == 2) == (other == 2))?;
    }
    scene.pause(400);
    Ok(())
}

/// Nothing but these steps: each lookup of the mix would cut a life that is too long.
fn other_clocks(scene: &mut Scene) -> anyhow::Result<()> {
    let workers = scene.crew.len();
    while scene.has_time(2_500) {
        let first = scene.faults as usize % workers;
        for key in Kind::Short.keys() {
            scene.crew.ask(first, Order::Look { key, load_ms: 1 })?;
        }
        let next = (first + workers - 1) % workers;
        let is_handed_over = scene.random.below(2) == 0;
        if is_handed_over {
            hand_over(scene, next, |one, other| one == other)?;
        }
        // All of it is over by then.
        scene.pause(1_600);
        for key in Kind::Short.keys() {
            scene.crew.ask_all(&Order::Peek { key, for_ms: 3 })?;
        }
        if !is_handed_over {
            hand_over(scene, next, |one, other| one == other)?;
        }
    }
    Ok(())
}
