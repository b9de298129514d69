//! The embedded store: hits through a cache, sets from many tasks at once.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder_bench_load::{
    Act, Error, Key, Prepared, Round, Scene, keys, nanos_each, requests, serve as answer, value,
    values_to_set,
};
use larder_core::{Cache, Guard, NewEntry, Service, Store, Ttl};
use larder_embedded::{EmbeddedStore, Options};

use super::{one_key, others};

/// So many tasks set at the same time.
const TASKS: usize = 256;
/// So many entries are made at once when a store is filled.
const FILLED_AT_ONCE: usize = 100_000;
/// More than an entry takes on the disk beside its value, in bytes.
const OVERHEAD: u64 = 896;

/// Keys with their values.
type Entries = Arc<[(Key, Bytes)]>;

pub(crate) fn serve(scene: Vec<String>) -> Result<(), Error> {
    answer(scene, |scene| match &*scene.form {
        "once" | "stale" => one_key::prepare(scene),
        "others" => others::prepare(scene),
        _ => prepare(scene),
    })
}

fn prepare(scene: &Scene) -> Result<Prepared<Round>, Error> {
    let all = keys(scene.keys)?;
    let requests = requests(scene.keys, scene.operations);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let store = open(Path::new(&scene.place), scene)?;
    if scene.fill {
        for keys in all.chunks(FILLED_AT_ONCE) {
            let entry = |key: &Key| (key.clone(), value(key, scene.value_bytes));
            let entries = keys.iter().map(entry).collect();
            runtime.block_on(set_all(&store, entries))?;
        }
    }
    let stats = runtime.block_on(store.stats())?;
    let cache = Cache::builder(Service::new("bench")?)
        .store(Arc::clone(&store) as Arc<dyn Store>)
        .l1_bytes(match &*scene.form {
            "folder" => 0,
            _ => larder_core::L1_BYTES,
        })
        .build();
    let act = scene.act;
    let values = values_to_set(scene, &all);
    let writes: Entries = match act {
        Act::Hit => [].into(),
        Act::Set => requests
            .iter()
            .map(|request| *request as usize)
            .map(|at| (all[at].clone(), values[at].clone()))
            .collect(),
    };
    let round = move || {
        let mut result = Ok(());
        let nanos = nanos_each(requests.len(), || {
            result = runtime.block_on(async {
                match act {
                    Act::Hit => {
                        look_up(&cache, &all, &requests).await;
                        Ok(())
                    }
                    Act::Set => set_all(&store, Arc::clone(&writes)).await,
                }
            });
        });
        result.map(|()| nanos)
    };
    Ok(Prepared {
        grown_bytes: stats.used_bytes.unwrap_or(0),
        round: Box::new(round),
    })
}

pub(super) fn open(folder: &Path, scene: &Scene) -> Result<Arc<EmbeddedStore>, Error> {
    let bytes = scene.keys as u64 * (scene.value_bytes as u64 + OVERHEAD);
    let options = Options {
        max_bytes: bytes.max(1 << 30),
        // The marks are about speed: a busy machine is no fault here.
        deadline: Duration::from_secs(10),
        ..Options::default()
    };
    Ok(Arc::new(EmbeddedStore::open(folder, options)?))
}

pub(super) async fn look_up(cache: &Cache, keys: &[Key], requests: &[u32]) {
    for request in requests {
        let found = cache.get_json(&keys[*request as usize]).await;
        assert!(std::hint::black_box(found).is_some());
    }
}

/// Sets entries from many tasks at once.
async fn set_all(store: &Arc<EmbeddedStore>, entries: Entries) -> Result<(), Error> {
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let (store, entries) = (Arc::clone(store), Arc::clone(&entries));
        tasks.spawn(async move {
            let ttl = Ttl::new(Duration::from_secs(3_600)).unwrap_or(Ttl::MAX);
            for (key, value) in entries.iter().skip(task).step_by(TASKS) {
                let entry = NewEntry {
                    key: key.clone(),
                    bytes: value.clone(),
                    ttl,
                    guard: Guard::Always,
                };
                let written = store.set(entry).await?;
                if !written.is_stored() {
                    return Err(Error::from(written.to_string()));
                }
            }
            Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}
