//! Hits in Redis, from many tasks over one connection or several.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder_bench_load::{Error, Key, Prepared, Round, Scene, Tasks, serve as answer, value};
use larder_core::{Cache, Guard, NewEntry, Service, Store, Ttl, Written};
use larder_redis::{Options, RedisStore, RedisUrl};

use super::{framed, one_key, others, race, redis_cluster};

/// So many are stored at once.
const BATCH: usize = 1_000;

pub(crate) fn serve(scene: Vec<String>) -> Result<(), Error> {
    answer(scene, |scene| match &*scene.form {
        "cluster" => redis_cluster::prepare(scene),
        "framed" => framed::hits(scene),
        "near" => framed::near_hits(scene),
        "once" | "stale" => one_key::prepare(scene),
        "others" => others::prepare(scene),
        "race" => race::prepare(scene),
        _ => prepare(scene),
    })
}

fn prepare(scene: &Scene) -> Result<Prepared<Round>, Error> {
    let tasks = Tasks::of(scene)?;
    let service = Service::new("bench")?;
    let mut caches = Vec::new();
    for _ in 0..scene.connections {
        let store = Arc::new(connect(&tasks, scene)?);
        caches.push(Cache::builder(service.clone()).store(store).build());
    }
    if scene.fill {
        let store = Arc::clone(caches[0].store());
        let filling = fill(&*store, &tasks.keys, scene.value_bytes);
        tasks.runtime.block_on(filling)?;
    }
    let round = move || {
        let caches = caches.clone();
        tasks.round(move |task, key| {
            let cache = caches[task % caches.len()].clone();
            async move { cache.get_json(&key).await.is_some() }
        })
    };
    Ok(Prepared {
        grown_bytes: 0,
        round: Box::new(round),
    })
}

pub(super) fn connect(tasks: &Tasks, scene: &Scene) -> Result<RedisStore, Error> {
    let _inside = tasks.runtime.enter();
    connect_inside(scene, options())
}

pub(super) fn options() -> Options {
    Options {
        // The marks are about speed: a busy machine is no fault here.
        deadline: Duration::from_secs(10),
        ..Options::default()
    }
}

/// [`connect`] where a runtime is entered already.
pub(super) fn connect_inside(scene: &Scene, options: Options) -> Result<RedisStore, Error> {
    let url = RedisUrl::parse(&scene.place)?;
    Ok(RedisStore::connect(url, options))
}

pub(super) async fn fill(store: &dyn Store, keys: &[Key], value_bytes: usize) -> Result<(), Error> {
    fill_with(store, keys, Ttl::MAX, |key| value(key, value_bytes)).await
}

/// Fills a store with entries of these bytes, which live so long.
pub(super) async fn fill_with(
    store: &dyn Store,
    keys: &[Key],
    ttl: Ttl,
    bytes: impl Fn(&Key) -> Bytes,
) -> Result<(), Error> {
    for keys in keys.chunks(BATCH) {
        let entry = |key: &Key| NewEntry {
            key: key.clone(),
            bytes: bytes(key),
            ttl,
            guard: Guard::Always,
        };
        let written = store.set_many(keys.iter().map(entry).collect()).await?;
        if !written.iter().all(Written::is_stored) {
            return Err("not all entries were stored".into());
        }
    }
    Ok(())
}
