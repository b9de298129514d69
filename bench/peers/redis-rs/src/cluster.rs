//! All keys at once, from a Cluster: one bare pipeline for each master, and all of them at the same time.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;
use larder_bench_load::{Error, Key, Prepared, Round, Scene, Tasks, nanos_each};
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisResult, Value};

/// A row of `CLUSTER SLOTS` where no master has a replica: its slots, and its address, port, id and further names.
type Slots = (u16, u16, (String, u16, Value, Value));

pub fn prepare(scene: &Scene) -> Result<Prepared<Round>, Error> {
    let tasks = Tasks::of(scene)?;
    let masters = masters(&scene.place, &tasks.keys);
    let masters = tasks.runtime.block_on(masters)?;
    let (times, keys) = (scene.operations, scene.keys);
    let round = move || {
        let mut result = Ok(());
        let nanos = nanos_each(times, || {
            result = tasks.runtime.block_on(async {
                for _ in 0..times {
                    let found = try_join_all(masters.iter().map(Master::ask)).await?;
                    if found.iter().flatten().flatten().flatten().count() != keys {
                        return Err(Error::from("a key was not found"));
                    }
                }
                Ok(())
            });
        });
        result.map(|()| nanos)
    };
    Ok(Prepared {
        grown_bytes: 0,
        round: Box::new(round),
    })
}

/// What one master is asked for, all in one pipeline: one `MGET` for each slot, since it refuses one over several.
struct Master {
    connection: MultiplexedConnection,
    pipeline: Pipeline,
}

impl Master {
    async fn ask(&self) -> RedisResult<Vec<Vec<Option<Vec<u8>>>>> {
        let mut connection = self.connection.clone();
        self.pipeline.query_async(&mut connection).await
    }
}

async fn masters(node: &str, keys: &[Key]) -> RedisResult<Vec<Master>> {
    let mut connection = connect(node).await?;
    let mut slots_of_keys = redis::pipe();
    for key in keys {
        slots_of_keys
            .cmd("CLUSTER")
            .arg("KEYSLOT")
            .arg(key.as_str());
    }
    let slots: Vec<u16> = slots_of_keys.query_async(&mut connection).await?;
    let mut by_slot: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    for (slot, key) in std::iter::zip(slots, keys) {
        by_slot.entry(slot).or_default().push(key.as_str());
    }
    let mut slots = redis::cmd("CLUSTER");
    let slots: Vec<Slots> = slots.arg("SLOTS").query_async(&mut connection).await?;
    let mut masters = Vec::new();
    for (first, last, (host, port, ..)) in slots {
        let mut pipeline = redis::pipe();
        for (_, keys) in by_slot.range(first..=last) {
            pipeline.cmd("MGET").arg(&keys[..]);
        }
        masters.push(Master {
            connection: connect(&format!("redis://{host}:{port}")).await?,
            pipeline,
        });
    }
    Ok(masters)
}

async fn connect(url: &str) -> RedisResult<MultiplexedConnection> {
    let client = redis::Client::open(url)?;
    client.get_multiplexed_async_connection().await
}
