//! The embedded store: hits through a cache, sets from many tasks at once.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use larder_bench_load::{
    Act, Error, Key, Prepared, Scene, keys, nanos_each, requests, serve as answer, value,
};
use larder_core::{Cache, Guard, NewEntry, Service, Store, Ttl};
use larder_embedded::{EmbeddedStore, Options};

/// So many tasks set at the same time.
const TASKS: usize = 256;
/// More than an entry takes on the disk beside its value, in bytes.
const OVERHEAD: u64 = 896;

pub(crate) fn serve(scene: Vec<String>) -> Result<(), Error> {
    answer(scene, |scene| {
        let all = keys(scene.keys)?;
        let requests = requests(scene.keys, scene.operations);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let store = open(Path::new(&scene.place), scene)?;
        let value_bytes = scene.value_bytes;
        if scene.fill {
            runtime.block_on(set_all(&store, &all, value_bytes))?;
        }
        let stats = runtime.block_on(store.stats())?;
        let cache = Cache::builder(Service::new("bench")?)
            .store(Arc::clone(&store) as Arc<dyn Store>)
            .build();
        let writes: Vec<Key> = match scene.act {
            Act::Hit => Vec::new(),
            Act::Set => requests
                .iter()
                .map(|request| all[*request as usize].clone())
                .collect(),
        };
        let act = scene.act;
        let round = move || {
            let mut result = Ok(());
            let nanos = nanos_each(requests.len(), || {
                result = runtime.block_on(async {
                    match act {
                        Act::Hit => {
                            look_up(&cache, &all, &requests).await;
                            Ok(())
                        }
                        Act::Set => set_all(&store, &writes, value_bytes).await,
                    }
                });
            });
            result.map(|()| nanos)
        };
        Ok(Prepared {
            grown_bytes: stats.used_bytes.unwrap_or(0),
            round,
        })
    })
}

fn open(folder: &Path, scene: &Scene) -> Result<Arc<EmbeddedStore>, Error> {
    let bytes = scene.keys as u64 * (scene.value_bytes as u64 + OVERHEAD);
    let options = Options {
        max_bytes: bytes.max(1 << 30),
        // The marks are about speed: a busy machine is no fault here.
        deadline: Duration::from_secs(10),
        ..Options::default()
    };
    Ok(Arc::new(EmbeddedStore::open(folder, options)?))
}

async fn look_up(cache: &Cache, keys: &[Key], requests: &[u32]) {
    for request in requests {
        let found = cache.get_json(&keys[*request as usize]).await;
        assert!(std::hint::black_box(found).is_some());
    }
}

/// Sets keys from many tasks at once.
async fn set_all(
    store: &Arc<EmbeddedStore>,
    keys: &[Key],
    value_bytes: usize,
) -> Result<(), Error> {
    let keys: Arc<[Key]> = keys.into();
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let (store, keys) = (Arc::clone(store), Arc::clone(&keys));
        tasks.spawn(async move {
            let value = value(value_bytes);
            let ttl = Ttl::new(Duration::from_secs(3_600)).unwrap_or(Ttl::MAX);
            for key in keys.iter().skip(task).step_by(TASKS) {
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
