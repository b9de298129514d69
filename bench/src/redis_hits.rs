//! A hit in Redis, from 1 to 256 tasks over one connection, against clients of Redis.

use larder_bench_load::{Runtime, Scene};
use larder_testing::redis::RedisServer;

use crate::report::{Mark, Report};
use crate::side::Side;
use crate::sides::StoreKind;

/// How many lookups a round has.
const LOOKUPS: usize = 60_000;
/// A task has no more of them.
const LOOKUPS_OF_TASK: usize = 4_000;

/// A client: as its rows name it, its binary, and which form of it.
struct Peer {
    name: &'static str,
    binary: &'static str,
    form: &'static str,
}

const MULTIPLEXED: Peer = Peer {
    name: "MultiplexedConnection",
    binary: "redis-rs",
    form: "multiplexed",
};
const MANAGED: Peer = Peer {
    name: "ConnectionManager",
    binary: "redis-rs",
    form: "managed",
};
const RUSTIS: Peer = Peer {
    name: "rustis",
    binary: "rustis",
    form: "",
};

pub(crate) fn measure(report: &mut Report) -> anyhow::Result<()> {
    for keys in report.sizes([10_000, 100_000]) {
        for tasks in [1, 16, 64, 256] {
            let name = format!("redis hit, {keys} keys, {tasks} tasks");
            // Where there are many, the commands of all fill the batches.
            let managed = if tasks < 64 { 1.0 } else { 1.1 };
            let peers = [
                (MULTIPLEXED, Some(Mark::AtLeast(0.95))),
                (MANAGED, Some(Mark::AtLeast(managed))),
                (RUSTIS, None),
            ];
            measure_row(report, &name, keys, tasks, Runtime::Workers, peers)?;
        }
        for tasks in [64, 256] {
            let name = format!("redis hit on one thread, {keys} keys, {tasks} tasks");
            let peers = [
                (MULTIPLEXED, None),
                (MANAGED, Some(Mark::AtLeast(1.3))),
                (RUSTIS, None),
            ];
            measure_row(report, &name, keys, tasks, Runtime::Current, peers)?;
        }
    }
    Ok(())
}

fn measure_row(
    report: &mut Report,
    name: &str,
    keys: usize,
    tasks: usize,
    runtime: Runtime,
    peers: [(Peer, Option<Mark>); 3],
) -> anyhow::Result<()> {
    if !report.wants(name) {
        return Ok(());
    }
    let server = RedisServer::start();
    let scene = Scene {
        keys,
        operations: report.operations(LOOKUPS.min(LOOKUPS_OF_TASK * tasks)),
        workers: tasks,
        runtime,
        place: server.url(),
        ..Scene::default()
    };
    let mut ours = Side::larder(StoreKind::Redis, &scene)?;
    for (peer, mark) in peers {
        let scene = Scene {
            fill: false,
            form: peer.form.to_owned(),
            ..scene.clone()
        };
        let mut theirs = Side::peer(peer.binary, &scene)?;
        report.add(
            name,
            peer.name,
            "thousand/s",
            mark,
            || ours.thousands_per_second(),
            || theirs.thousands_per_second(),
        )?;
    }
    Ok(())
}
