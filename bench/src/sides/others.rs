//! `form=others`: deletes of keys that nobody asks for, at a pace of 10,000 a second; what one took, the pauses included.

use std::time::{Duration, Instant};

use larder_bench_load::{Error, Key, Prepared, Round, Scene, nanos_each};
use larder_core::{Cache, Service};
use tokio::task::JoinSet;

/// So many begin at once, so often.
const AT_ONCE: usize = 50;
const EVERY: Duration = Duration::from_millis(5);

pub(super) fn prepare(scene: &Scene) -> Result<Prepared<Round>, Error> {
    let runtime = super::runtime()?;
    let inside = runtime.enter();
    let cache = Cache::builder(Service::new("bench")?)
        .store(super::store(scene)?)
        .build();
    drop(inside);
    let others = (0..scene.keys).map(|number| Key::new("bench", &format!("/others/{number}")));
    let others: Vec<Key> = others.collect::<Result<_, _>>()?;
    let operations = scene.operations;
    let round = move || {
        let mut result = Ok(());
        let nanos = nanos_each(operations, || {
            result = runtime.block_on(delete(&cache, &others, operations));
        });
        result.map(|()| nanos)
    };
    Ok(Prepared {
        grown_bytes: 0,
        round: Box::new(round),
    })
}

async fn delete(cache: &Cache, others: &[Key], count: usize) -> Result<(), Error> {
    let begin = Instant::now();
    let mut under_way = JoinSet::new();
    let numbers: Vec<usize> = (0..count).collect();
    for (turn, numbers) in numbers.chunks(AT_ONCE).enumerate() {
        tokio::time::sleep_until((begin + EVERY * turn as u32).into()).await;
        for number in numbers {
            let (cache, key) = (cache.clone(), others[number % others.len()].clone());
            under_way.spawn(async move { cache.delete(&key).await.is_done() });
        }
        while let Some(ended) = under_way.try_join_next() {
            ensure_done(ended?)?;
        }
    }
    while let Some(ended) = under_way.join_next().await {
        ensure_done(ended?)?;
    }
    Ok(())
}

fn ensure_done(is_done: bool) -> Result<(), Error> {
    match is_done {
        true => Ok(()),
        false => Err("a delete is pending".into()),
    }
}
