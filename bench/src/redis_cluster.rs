//! A hundred keys at once, over a Cluster of three masters, against one bare pipeline for each of them.

use larder_bench_load::Scene;
use larder_testing::redis::RedisCluster;

use crate::report::{Mark, Report};
use crate::side::Side;
use crate::sides::StoreKind;

const KEYS: usize = 100;
const MASTERS: usize = 3;
/// How often a round asks for all of them.
const TIMES: usize = 2_000;

pub(crate) fn measure(report: &mut Report) -> anyhow::Result<()> {
    let name = "redis cluster, get_many of 100 keys";
    if !report.wants(name) {
        return Ok(());
    }
    let cluster = RedisCluster::start_with(MASTERS, &[]);
    let scene = Scene {
        keys: KEYS,
        operations: report.operations(TIMES),
        place: cluster.url(),
        form: "cluster".to_owned(),
        ..Scene::default()
    };
    let mut ours = Side::larder(StoreKind::Redis, &scene)?;
    let scene = Scene {
        fill: false,
        // It asks this node for the others.
        place: cluster.nodes[0].url(),
        ..scene
    };
    let mut theirs = Side::peer("redis-rs", &scene)?;
    report.add(
        name,
        "MGET, pipelined per node",
        "µs",
        Mark::AtMost(1.3),
        || ours.micros(),
        || theirs.micros(),
    )
}
