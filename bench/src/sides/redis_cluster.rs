//! `form=cluster`: all keys at once, from a Redis Cluster.

use larder_bench_load::{Error, Prepared, Round, Scene, Tasks, nanos_each};
use larder_core::{Store as _, Ttl};

use super::redis::{connect, fill};

pub(super) fn prepare(scene: &Scene) -> Result<Prepared<Round>, Error> {
    let tasks = Tasks::of(scene)?;
    let store = connect(&tasks, scene)?;
    if scene.fill {
        let filling = fill(&store, &tasks.keys, scene.value_bytes);
        tasks.runtime.block_on(filling)?;
    }
    let times = scene.operations;
    let round = move || {
        let mut result = Ok(());
        let nanos = nanos_each(times, || {
            result = tasks.runtime.block_on(async {
                for _ in 0..times {
                    let found = store.get_many(&tasks.keys, Ttl::MAX).await?;
                    if !found.iter().all(Option::is_some) {
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
