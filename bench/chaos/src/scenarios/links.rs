//! Links between machines, cut without a word: packets are dropped, and nobody is told.

use std::time::Instant;

use anyhow::Context as _;
use larder_testing::process::PATIENCE;
use larder_testing::redis::wait_until;

use super::{Allows, REDIS, SENTINEL, Scenario};
use crate::keys::{self, Kind};
use crate::orders::{Mix, Order};
use crate::scene::{Scene, StoreKind};
use crate::stage::Stage;

const SERVED: &[StoreKind] = &[StoreKind::Redis, StoreKind::Sentinel, StoreKind::Cluster];

pub(super) fn all() -> Vec<Scenario> {
    let cut = |name, about, run| Scenario {
        name,
        about,
        stores: SERVED,
        allows: Allows::Outage,
        stage: Stage::Network,
        run,
    };
    vec![
        cut(
            "silent-cut",
            "what one process and the servers send each other is dropped for a while",
            |scene| again_and_again(scene, silent_once),
        ),
        cut(
            "one-way-cut",
            "what one process sends is dropped for a while, or what it is sent",
            |scene| again_and_again(scene, one_way_once),
        ),
        Scenario {
            stores: REDIS,
            ..cut(
                "one-connection-cut",
                "the packets of one connection are dropped for good, those of others are not (H19)",
                |scene| again_and_again(scene, one_connection_once),
            )
        },
        Scenario {
            stores: SENTINEL,
            ..cut(
                "sentinels-cut",
                "one process reaches the master, and only one of three Sentinels, for a while (H22)",
                |scene| again_and_again(scene, sentinels_once),
            )
        },
        Scenario {
            stores: &[StoreKind::Sentinel, StoreKind::Cluster],
            allows: Allows::Partition,
            ..cut(
                "partition",
                "a master and one process are cut off from all others, which make its replica the master, and come back (H22)",
                partition,
            )
        },
        Scenario {
            stores: SENTINEL,
            allows: Allows::Partition,
            ..cut(
                "unconfirmed",
                "one process does not hear that another master was named, and deletes at the old one, which takes it (H22)",
                unconfirmed,
            )
        },
    ]
}

fn again_and_again(
    scene: &mut Scene,
    fault: fn(&mut Scene) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    scene.mix(Mix::default())?;
    while scene.has_time(2_500) {
        scene.pause_between(300, 600);
        fault(scene)?;
        scene.is_over();
    }
    scene.pause(1_500);
    Ok(())
}

/// Longer than a silent link is relied on, or not.
pub(super) fn hold(scene: &mut Scene) {
    match scene.random.below(3) {
        0 => scene.pause_between(2_200, 3_000),
        _ => scene.pause_between(50, 600),
    }
}

pub(super) fn silent_once(scene: &mut Scene) -> anyhow::Result<()> {
    let last = scene.crew.len() - 1;
    scene.network()?.part(&[last]);
    hold(scene);
    scene.network()?.mend();
    Ok(())
}

pub(super) fn one_way_once(scene: &mut Scene) -> anyhow::Result<()> {
    let (last, servers) = (scene.crew.len() - 1, scene.server_machines());
    let links = match scene.random.below(2) {
        0 => servers.map(|server| (last, server)).collect::<Vec<_>>(),
        _ => servers.map(|server| (server, last)).collect(),
    };
    scene.network()?.cut(links);
    hold(scene);
    scene.network()?.mend();
    Ok(())
}

fn one_connection_once(scene: &mut Scene) -> anyhow::Result<()> {
    let last = scene.crew.len() - 1;
    let address = scene.network()?.host(last).address().to_owned();
    let server = scene.redis()?;
    let begin = format!(" addr={address}:");
    let mut port = 0;
    // It says that it is there before it is connected.
    wait_until("the worker is connected", || {
        let clients = server.cli(&["CLIENT", "LIST"]);
        let mut ports = clients.lines().filter_map(|client| {
            let (_, rest) = client.split_once(&begin)?;
            rest.split(' ').next()?.parse().ok()
        });
        port = ports.next_back().unwrap_or_default();
        port > 0
    });
    scene.network()?.cut_connection(last, port);
    hold(scene);
    Ok(())
}

pub(super) fn sentinels_once(scene: &mut Scene) -> anyhow::Result<()> {
    // The first has the master, too.
    let others = scene.server_machines().skip(1);
    let links = others.flat_map(|other| [(0, other), (other, 0)]);
    let links: Vec<(usize, usize)> = links.collect();
    scene.network()?.cut(links);
    hold(scene);
    scene.network()?.mend();
    Ok(())
}

/// Nothing but these steps, while the old master is still trusted. One: a second one would need what the first one took.
fn unconfirmed(scene: &mut Scene) -> anyhow::Result<()> {
    let mut keys = Kind::Plain.keys();
    let (before, key) = keys.next().zip(keys.next()).context("there are two")?;
    for worker in [0, 1] {
        let look = Order::Look {
            key: before,
            load_ms: 0,
        };
        scene.crew.ask(worker, look)?;
    }
    // Not by the one on the old master's machine, which the process goes on to reach.
    scene.sentinels()?.fail_over_by(1);
    scene.sentinels()?.pause_sentinel(0);
    let others = scene.server_machines().skip(1);
    let links: Vec<(usize, usize)> = others.flat_map(|other| [(0, other), (other, 0)]).collect();
    scene.network()?.cut(links);
    let all = scene.sentinels()?;
    wait_until("the replica is a master", || {
        all.servers[1].cli(&["ROLE"]).starts_with("master")
    });
    // Another one uses the new master.
    let begin = Instant::now();
    loop {
        scene.crew.ask(1, Order::Delete { key })?;
        scene.crew.ask(1, Order::Look { key, load_ms: 0 })?;
        let new = &scene.sentinels()?.servers[1];
        if new.cli(&["EXISTS", &keys::entry_of(key)]) == "1" {
            break;
        }
        anyhow::ensure!(begin.elapsed() < PATIENCE, "the new master is never used");
        scene.pause(20);
    }
    scene.crew.ask(0, Order::Delete { key })?;
    scene.is_over();
    let peek = Order::Peek { key, for_ms: 3_400 };
    let peek = scene.crew.tell(1, peek)?;
    scene.crew.wait(peek)?;
    scene.network()?.mend();
    Ok(())
}

/// One: a second one would need what the first one took.
fn partition(scene: &mut Scene) -> anyhow::Result<()> {
    scene.mix(Mix::default())?;
    scene.pause_between(500, 800);
    let master = scene.server_machines().start;
    scene.network()?.part(&[0, master]);
    // Until the others have a master, and nobody believes the old one any more; and then some.
    scene.pause(5_000);
    scene.network()?.mend();
    scene.is_over();
    scene.pause(3_000);
    Ok(())
}
