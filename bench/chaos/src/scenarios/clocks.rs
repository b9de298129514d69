//! Clocks that are wrong, and clocks that step. Only the wall clock can: those that count from the start of the machine are set once,
//! for a process and all that it starts.

use super::{Allows, REDIS, SENTINEL, SHARED, Scenario};
use crate::orders::Mix;
use crate::scene::{Scene, Servers, StoreKind};
use crate::stage::Stage;

pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "other-clocks",
            about: "the time since boot is another one for each process, an hour before and behind (C5)",
            stores: &[StoreKind::Redis, StoreKind::Sentinel, StoreKind::Cluster],
            allows: Allows::Push,
            stage: Stage::OtherClocks,
            run: |scene| {
                scene.mix(Mix::default())?;
                scene.wait_out();
                Ok(())
            },
        },
        Scenario {
            name: "wall-clock",
            about: "the wall clock of some processes steps by an hour, and runs too fast (C5)",
            stores: SHARED,
            allows: Allows::Push,
            stage: Stage::WorkersWallClock,
            run: stepping,
        },
        Scenario {
            name: "server-clock",
            about: "the wall clock of the server steps by an hour, and runs too fast (H15): how long things live is not judged",
            stores: REDIS,
            allows: Allows::Clock,
            stage: Stage::ServersWallClock,
            run: stepping,
        },
        Scenario {
            name: "replica-clock",
            about: "the wall clock of the replica is an hour off, and it is made the master (H15): how long things live is not judged",
            stores: SENTINEL,
            allows: Allows::ClockAndLoss,
            stage: Stage::ServersWallClock,
            run: replica_clock,
        },
    ]
}

/// An hour ahead, an hour behind, too fast, and right.
const WORDS: [&str; 4] = ["+3600", "-3600", "+0 x20", "+0"];

fn stepping(scene: &mut Scene) -> anyhow::Result<()> {
    scene.mix(Mix::default())?;
    while scene.has_time(800) {
        scene.pause_between(150, 400);
        let words = WORDS[scene.random.below(WORDS.len())];
        scene.wall_clock()?.set(words)?;
        scene.is_over();
    }
    scene.pause(400);
    Ok(())
}

/// One failover: a second one would need what the first one took.
fn replica_clock(scene: &mut Scene) -> anyhow::Result<()> {
    scene.mix(Mix::default())?;
    scene.pause_between(300, 500);
    let words = WORDS[scene.random.below(2)];
    scene.wall_clock()?.set(words)?;
    scene.pause_between(300, 500);
    let Servers::Sentinel(all) = &scene.servers else {
        anyhow::bail!("this is for Sentinels");
    };
    all.fail_over();
    scene.is_over();
    // A failover takes its time, whatever the round has.
    scene.pause(4_000);
    Ok(())
}
