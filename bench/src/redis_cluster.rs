//! A hundred keys at once, over a Cluster of three masters, against one bare pipeline for each of them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::try_join_all;
use larder_core::{Guard, Key, NewEntry, Store as _, Ttl, Written};
use larder_redis::{Options, RedisStore, RedisUrl};
use larder_testing::redis::RedisCluster;
use redis::Pipeline;
use redis::aio::MultiplexedConnection;

use crate::VALUE_BYTES;
use crate::report::{Mark, Report};
use crate::rounds::nanos_each;

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
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let keys: Vec<Key> = (0..KEYS)
        .map(|index| Key::new("bench", &format!("/products/{index}")))
        .collect::<Result<_, _>>()?;
    let store = runtime.block_on(fill(&cluster.url(), &keys))?;
    let peers = runtime.block_on(pipelines(&cluster, &keys))?;
    let ours = || {
        micros_each(|| {
            runtime.block_on(async {
                for _ in 0..TIMES {
                    let found = store.get_many(&keys, Ttl::MAX).await?;
                    anyhow::ensure!(found.iter().all(Option::is_some), "a key was not found");
                }
                Ok(())
            })
        })
    };
    let theirs = || {
        micros_each(|| {
            runtime.block_on(async {
                for _ in 0..TIMES {
                    let found = try_join_all(peers.iter().map(Peer::ask)).await?;
                    let found: usize = found.iter().flatten().map(Vec::len).sum();
                    anyhow::ensure!(found == KEYS, "a key was not found");
                }
                Ok(())
            })
        })
    };
    let mark = Mark::AtMost(1.3);
    report.add(name, "MGET, pipelined per node", "µs", mark, ours, theirs)
}

fn micros_each(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let mut result = Ok(());
    let nanos = nanos_each(TIMES, || result = work());
    result.map(|()| nanos / 1e3)
}

async fn fill(url: &str, keys: &[Key]) -> anyhow::Result<RedisStore> {
    let options = Options {
        // The mark is about speed: a busy machine is no fault here.
        deadline: Duration::from_secs(10),
        ..Options::default()
    };
    let store = RedisStore::connect(RedisUrl::parse(url)?, options);
    let value = format!("\"{}\"", "x".repeat(VALUE_BYTES - 2));
    let entry = |key: &Key| NewEntry {
        key: key.clone(),
        bytes: value.clone().into(),
        ttl: Ttl::MAX,
        guard: Guard::Always,
    };
    let written = store.set_many(keys.iter().map(entry).collect()).await?;
    anyhow::ensure!(written.iter().all(Written::is_stored));
    Ok(store)
}

/// What one node is asked for, all in one pipeline: one `MGET` for each slot, since it refuses one over several.
struct Peer {
    connection: MultiplexedConnection,
    pipeline: Pipeline,
}

impl Peer {
    async fn ask(&self) -> redis::RedisResult<Vec<Vec<Vec<u8>>>> {
        let mut connection = self.connection.clone();
        self.pipeline.query_async(&mut connection).await
    }
}

async fn pipelines(cluster: &RedisCluster, keys: &[Key]) -> anyhow::Result<Vec<Peer>> {
    let mut by_slot: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
    let slots = cluster.slots_of_keys(keys.iter().map(Key::as_str));
    for (slot, key) in std::iter::zip(slots, keys) {
        by_slot.entry(slot).or_default().push(key.as_str());
    }
    let mut peers = Vec::new();
    for master in 0..MASTERS {
        let client = redis::Client::open(cluster.nodes[master].url())?;
        let mut pipeline = redis::pipe();
        for (_, keys) in by_slot.range(cluster.slots_of(master)) {
            pipeline.cmd("MGET").arg(&keys[..]);
        }
        let connection = client.get_multiplexed_async_connection().await;
        peers.push(Peer {
            connection: connection.context("a node of the Cluster")?,
            pipeline,
        });
    }
    Ok(peers)
}
