//! Faults of the servers, and of the links to them.

use std::ops::Range;
use std::time::Duration;

use anyhow::Context as _;
use larder_testing::redis::RedisServer;

use super::{Allows, CLUSTER, REDIS, SENTINEL, Scenario, links};
use crate::keys::{self, KEYS, Kind};
use crate::orders::{Mix, Order};
use crate::scene::{Scene, Servers, StoreKind};
use crate::stage::{MASTERS, Stage};

pub(super) fn all() -> Vec<Scenario> {
    let one = |name, about, allows, run| Scenario {
        name,
        about,
        stores: REDIS,
        allows,
        stage: Stage::Plain,
        run,
    };
    let cut = |name, about, run| Scenario {
        stage: Stage::Proxied,
        ..one(name, about, Allows::Outage, run)
    };
    vec![
        one(
            "stop-server",
            "the server is stopped (SIGSTOP) and goes on: what was sent to it happens late",
            Allows::Outage,
            stop_server,
        ),
        one(
            "kill-server",
            "the server is killed (-9) and starts empty",
            Allows::Outage,
            kill_server,
        ),
        one(
            "old-snapshot",
            "the server is killed and starts from a snapshot older than deletes: what was deleted is back in it (H5)",
            Allows::Loss,
            old_snapshot,
        ),
        Scenario {
            stores: CLUSTER,
            ..one(
                "old-snapshot",
                "a master is killed and starts from a snapshot older than deletes, before its replica takes over (H5)",
                Allows::Loss,
                old_snapshot_of_a_node,
            )
        },
        Scenario {
            stores: SENTINEL,
            ..one(
                "failover",
                "the Sentinels make the replica the master, in order",
                Allows::Loss,
                |scene| failovers(scene, Failover::Orderly),
            )
        },
        Scenario {
            stores: &[StoreKind::Sentinel, StoreKind::Cluster],
            ..one(
                "lost-deletes",
                "the replica is stopped while the master takes deletes, then the master is killed, and the replica takes over (H2, H5, H6)",
                Allows::Loss,
                |scene| failovers(scene, Failover::Lossy),
            )
        },
        Scenario {
            stores: CLUSTER,
            ..one(
                "moving-slots",
                "all slots move from one master to another and back, under reads, fills and clears (H23, H24)",
                Allows::Outage,
                moving_slots,
            )
        },
        Scenario {
            stores: CLUSTER,
            ..one(
                "clear-under-moves",
                "what a clear means moves to a master that the clear has been to, while it runs (H24)",
                Allows::Push,
                clear_under_moves,
            )
        },
        one(
            "client-kill",
            "the server closes all connections",
            Allows::Outage,
            |scene| commands(scene, &[&["CLIENT", "KILL", "TYPE", "normal"]]),
        ),
        one("flushall", "all is flushed", Allows::Push, |scene| {
            commands(scene, &[&["FLUSHALL"]])
        }),
        one(
            "tracking-table",
            "the server can remember ten keys that were read",
            Allows::Push,
            |scene| {
                commands(
                    scene,
                    &[&["CONFIG", "SET", "tracking-table-max-keys", "10"]],
                )
            },
        ),
        one(
            "noeviction",
            "the server's memory is full, and it evicts nothing (H7)",
            Allows::Push,
            |scene| full(scene, "noeviction"),
        ),
        one(
            "volatile-ttl",
            "the server's memory is full, and it evicts leases first (H7)",
            Allows::Push,
            |scene| full(scene, "volatile-ttl"),
        ),
        cut(
            "cut-link",
            "the link of one process is cut without a word, and mended",
            cut_link,
        ),
        cut(
            "cut-and-killed",
            "a process whose link is cut is killed with what is pending, and started anew (C3)",
            cut_and_killed,
        ),
    ]
}

fn stop_server(scene: &mut Scene) -> anyhow::Result<()> {
    scene.mix(Mix::default())?;
    while scene.has_time(1_500) {
        scene.pause_between(100, 500);
        stop_once(scene)?;
        scene.is_over();
    }
    scene.pause(1_500);
    Ok(())
}

pub(super) fn stop_once(scene: &mut Scene) -> anyhow::Result<()> {
    scene.redis()?.pause();
    match scene.random.below(6) {
        0 => scene.pause_between(2_200, 3_000),
        _ => scene.pause_between(20, 350),
    }
    scene.redis()?.resume();
    Ok(())
}

fn kill_server(scene: &mut Scene) -> anyhow::Result<()> {
    scene.mix(Mix::default())?;
    while scene.has_time(2_500) {
        scene.pause_between(300, 600);
        kill_once(scene)?;
        scene.is_over();
        scene.pause(1_300);
    }
    Ok(())
}

pub(super) fn kill_once(scene: &mut Scene) -> anyhow::Result<()> {
    let redis = scene.redis()?;
    redis.kill();
    redis.restart();
    Ok(())
}

fn old_snapshot(scene: &mut Scene) -> anyhow::Result<()> {
    scene.mix(Mix::default())?;
    while scene.has_time(2_500) {
        scene.pause_between(100, 300);
        scene.redis()?.cli(&["SAVE"]);
        scene.pause_between(50, 300);
        let redis = scene.redis()?;
        redis.kill();
        redis.restart();
        scene.is_over();
        scene.pause(1_300);
    }
    Ok(())
}

/// Nothing but these steps: new versions, and deletes that are pending, would end what the master brings back.
fn old_snapshot_of_a_node(scene: &mut Scene) -> anyhow::Result<()> {
    let keys = || Kind::Lasting.keys().chain(Kind::Plain.keys());
    while scene.has_time(4_000) {
        for key in keys() {
            scene.crew.ask(1, Order::Look { key, load_ms: 1 })?;
        }
        let node = scene.random.below(MASTERS);
        scene.cluster()?.nodes[node].cli(&["SAVE"]);
        for key in keys() {
            scene.crew.insist(1, &Order::Delete { key })?;
        }
        let node = &mut scene.cluster()?.nodes[node];
        node.kill();
        node.restart();
        scene.is_over();
        // A master that starts takes nothing for 2 s.
        let mut peeks = Vec::new();
        for worker in 0..scene.crew.len() {
            for key in keys() {
                let peek = Order::Peek { key, for_ms: 3_300 };
                peeks.push(scene.crew.tell(worker, peek)?);
            }
        }
        for peek in peeks {
            scene.crew.wait(peek)?;
        }
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Failover {
    Orderly,
    /// What was acknowledged last is lost.
    Lossy,
}

/// One failover: a second one would need what the first one took.
fn failovers(scene: &mut Scene, how: Failover) -> anyhow::Result<()> {
    scene.mix(Mix::default())?;
    scene.pause_between(500, 800);
    match (&mut scene.servers, how) {
        (Servers::Sentinel(all), Failover::Orderly) => all.fail_over(),
        (Servers::Sentinel(all), Failover::Lossy) => {
            let (master, replica) = all.servers.split_at_mut(1);
            lose(&mut master[0], &replica[0]);
        }
        (Servers::Cluster(all), _) => {
            let (masters, replicas) = all.nodes.split_at_mut(MASTERS);
            lose(&mut masters[0], &replicas[0]);
        }
        _ => anyhow::bail!("this is for Sentinels and Clusters"),
    }
    scene.is_over();
    scene.wait_out();
    // A failover takes its time, whatever the round has.
    scene.pause(4_000);
    Ok(())
}

fn lose(master: &mut RedisServer, replica: &RedisServer) {
    replica.pause();
    // Else they would wait for it in its socket.
    master.cli(&["CLIENT", "KILL", "TYPE", "replica"]);
    // Deletes of the mix in the meantime are acknowledged, and lost.
    std::thread::sleep(Duration::from_millis(400));
    master.kill();
    replica.resume();
}

fn moving_slots(scene: &mut Scene) -> anyhow::Result<()> {
    scene.mix(Mix::default())?;
    scene.pause(300);
    let slots = slots_of(scene, 0..KEYS)?;
    while scene.has_time(1_500) {
        for slot in &slots {
            move_slot(scene, *slot, 1, Way::Out)?;
            scene.pause_between(0, 20);
            move_slot(scene, *slot, 1, Way::Back)?;
        }
        scene.is_over();
    }
    scene.pause(500);
    Ok(())
}

/// Nothing but these steps: whoever deleted a key beside it would do the clear's work.
fn clear_under_moves(scene: &mut Scene) -> anyhow::Result<()> {
    let kind = Kind::Plain;
    let slots = slots_of(scene, kind.keys())?;
    while scene.has_time(1_000) {
        for key in kind.keys() {
            scene.crew.ask(0, Order::Look { key, load_ms: 0 })?;
        }
        let kind = kind as usize;
        let clear = scene.crew.tell(1, Order::Clear { kind })?;
        scene.pause_between(15, 45);
        // To the one before, but for those of the first.
        for slot in &slots {
            move_slot(scene, *slot, MASTERS - 1, Way::Out)?;
        }
        scene.crew.wait(clear)?;
        scene.is_over();
        for key in Kind::Plain.keys() {
            scene.crew.ask_all(&Order::Peek { key, for_ms: 3 })?;
        }
        for slot in &slots {
            move_slot(scene, *slot, MASTERS - 1, Way::Back)?;
        }
    }
    Ok(())
}

fn slots_of(scene: &mut Scene, keys: Range<usize>) -> anyhow::Result<Vec<usize>> {
    let names: Vec<String> = keys.map(keys::entry_of).collect();
    let cluster = scene.cluster()?;
    Ok(cluster.slots_of_keys(names.iter().map(String::as_str)))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Out,
    Back,
}

/// Moves a slot from the master that had it first to the one so many behind that, or back.
fn move_slot(scene: &mut Scene, slot: usize, further: usize, way: Way) -> anyhow::Result<()> {
    let cluster = scene.cluster()?;
    let owner = (0..MASTERS).find(|master| cluster.slots_of(*master).contains(&slot));
    let owner = owner.context("each slot has an owner")?;
    let other = (owner + further) % MASTERS;
    match way {
        Way::Out => cluster.mover(owner, other).move_slot(slot),
        Way::Back => cluster.mover(other, owner).move_slot(slot),
    };
    Ok(())
}

/// Says commands to the server again and again.
fn commands(scene: &mut Scene, commands: &[&[&str]]) -> anyhow::Result<()> {
    scene.mix(Mix::default())?;
    while scene.has_time(500) {
        scene.pause_between(50, 300);
        for command in commands {
            scene.redis()?.cli(command);
        }
        scene.is_over();
    }
    scene.pause(500);
    Ok(())
}

fn full(scene: &mut Scene, policy: &str) -> anyhow::Result<()> {
    scene
        .redis()?
        .cli(&["CONFIG", "SET", "maxmemory-policy", policy]);
    scene.mix(Mix::default())?;
    while scene.has_time(1_500) {
        scene.pause_between(200, 400);
        // Less than the server takes without any entry.
        scene.redis()?.cli(&["CONFIG", "SET", "maxmemory", "1mb"]);
        scene.pause_between(300, 600);
        scene.redis()?.cli(&["CONFIG", "SET", "maxmemory", "0"]);
        scene.is_over();
    }
    scene.pause(500);
    Ok(())
}

fn cut_link(scene: &mut Scene) -> anyhow::Result<()> {
    scene.mix(Mix::default())?;
    while scene.has_time(2_500) {
        scene.pause_between(300, 600);
        cut_once(scene)?;
        scene.is_over();
    }
    scene.pause(1_500);
    Ok(())
}

pub(super) fn cut_once(scene: &mut Scene) -> anyhow::Result<()> {
    scene.proxy()?.cut();
    links::hold(scene);
    scene.proxy()?.mend();
    Ok(())
}

fn cut_and_killed(scene: &mut Scene) -> anyhow::Result<()> {
    scene.mix(Mix::default())?;
    let last = scene.crew.len() - 1;
    while scene.has_time(3_000) {
        scene.pause_between(300, 600);
        scene.proxy()?.cut();
        scene.pause_between(400, 900);
        scene.crew.kill(last)?;
        scene.proxy()?.mend();
        scene.crew.start(last)?;
        scene.is_over();
        scene.pause(1_000);
    }
    Ok(())
}
