//! The embedded store against bare `heed` with the same flags.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use heed::types::Bytes as HeedBytes;
use heed::{Database, Env, EnvFlags, EnvOpenOptions};
use larder_core::{Cache, Guard, Key, NewEntry, Service, Store, Ttl};
use larder_embedded::{EmbeddedStore, Options};

use crate::VALUE_BYTES;
use crate::report::{Mark, Report};
use crate::rounds::nanos_each;
use crate::zipf;

const LOOKUPS: usize = 500_000;
const SETS: usize = 100_000;
/// So many tasks set at the same time.
const TASKS: usize = 256;
/// The peer puts so many into one transaction.
const GROUP: usize = 128;
const MAP_BYTES: usize = 1 << 30;

pub(crate) fn measure(report: &mut Report) -> anyhow::Result<()> {
    for keys in [10_000, 100_000] {
        let (hits, sets) = (
            format!("embedded hit, {keys} keys"),
            format!("embedded set, {keys} keys"),
        );
        if !report.wants(&hits) && !report.wants(&sets) {
            continue;
        }
        let folder = tempfile::tempdir()?;
        let all: Vec<Key> = (0..keys)
            .map(|index| Key::new("bench", &format!("/products/{index}")))
            .collect::<Result<_, _>>()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let ours = open(&folder.path().join("ours"))?;
        let theirs = Bare::open(&folder.path().join("theirs"))?;
        runtime.block_on(set_all(&ours, &all))?;
        theirs.put_all(&all)?;
        let requests = zipf::requests(keys, LOOKUPS);
        let cache = Cache::builder(Service::new("bench")?)
            .store(Arc::clone(&ours) as Arc<dyn Store>)
            .build();
        report.add(
            &hits,
            "heed",
            "ns",
            Mark::AtMost(1.3),
            || {
                Ok(nanos_each(requests.len(), || {
                    runtime.block_on(async {
                        for request in &requests {
                            let found = cache.get_json(&all[*request as usize]).await;
                            assert!(std::hint::black_box(found).is_some());
                        }
                    });
                }))
            },
            || theirs.look_up(&all, &requests),
        )?;
        let writes: Vec<Key> = zipf::requests(keys, SETS)
            .into_iter()
            .map(|index| all[index as usize].clone())
            .collect();
        report.add(
            &sets,
            "heed in groups of 128",
            "ns",
            Mark::AtMost(1.5),
            || {
                let mut result = Ok(());
                let nanos = nanos_each(writes.len(), || {
                    result = runtime.block_on(set_all(&ours, &writes))
                });
                result.map(|()| nanos)
            },
            || {
                let mut result = Ok(());
                let nanos = nanos_each(writes.len(), || result = theirs.put_all(&writes));
                result.map(|()| nanos)
            },
        )?;
    }
    Ok(())
}

fn open(folder: &Path) -> anyhow::Result<Arc<EmbeddedStore>> {
    let options = Options {
        max_bytes: MAP_BYTES as u64,
        // The marks are about speed: a busy machine is no fault here.
        deadline: Duration::from_secs(10),
        ..Options::default()
    };
    Ok(Arc::new(EmbeddedStore::open(folder, options)?))
}

fn value() -> bytes::Bytes {
    format!("\"{}\"", "x".repeat(VALUE_BYTES - 2)).into()
}

/// Sets keys from many tasks at once.
async fn set_all(store: &Arc<EmbeddedStore>, keys: &[Key]) -> anyhow::Result<()> {
    let keys: Arc<[Key]> = keys.into();
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let (store, keys) = (Arc::clone(store), Arc::clone(&keys));
        tasks.spawn(async move {
            let (value, ttl) = (
                value(),
                Ttl::new(Duration::from_secs(3_600)).unwrap_or(Ttl::MAX),
            );
            for key in keys.iter().skip(task).step_by(TASKS) {
                let entry = NewEntry {
                    key: key.clone(),
                    bytes: value.clone(),
                    ttl,
                    guard: Guard::Always,
                };
                let written = store.set(entry).await?;
                anyhow::ensure!(written.is_stored(), "{written}");
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

/// `heed` as its documentation has it, with the same flags.
struct Bare {
    env: Env,
    entries: Database<'static, HeedBytes, HeedBytes>,
}

impl Bare {
    #[allow(unsafe_code)]
    fn open(folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP_BYTES);
        // SAFETY: a folder of this process alone, and a benchmark that loses nothing if the machine stops.
        let env = unsafe {
            options.flags(EnvFlags::NO_SYNC | EnvFlags::NO_META_SYNC);
            options.open(folder)?
        };
        let txn = env.write_txn()?;
        let created = env.create_databases_and_commit(txn, |opener, txn| {
            let entries = opener.create_database::<HeedBytes, HeedBytes>(txn, None)?;
            heed::Result::Ok(heed::CommitOrAbort::<_, ()>::Commit(entries))
        })?;
        let heed::CommitOrAbort::Commit(entries) = created else {
            anyhow::bail!("nothing was aborted");
        };
        Ok(Self { env, entries })
    }

    fn put_all(&self, keys: &[Key]) -> anyhow::Result<()> {
        let value = value();
        for group in keys.chunks(GROUP) {
            let mut txn = self.env.write_txn()?;
            for key in group {
                self.entries
                    .put(&mut txn, key.as_str().as_bytes(), &value)?;
            }
            txn.commit()?;
        }
        Ok(())
    }

    fn look_up(&self, keys: &[Key], requests: &[u32]) -> anyhow::Result<f64> {
        let mut result = Ok(());
        let nanos = nanos_each(requests.len(), || {
            for request in requests {
                match self.look_up_one(&keys[*request as usize]) {
                    Ok(found) => assert!(std::hint::black_box(found).is_some()),
                    Err(error) => result = Err(error),
                }
            }
        });
        result.map(|()| nanos)
    }

    fn look_up_one(&self, key: &Key) -> anyhow::Result<Option<Vec<u8>>> {
        let txn = self.env.read_txn()?;
        Ok(self
            .entries
            .get(&txn, key.as_str().as_bytes())?
            .map(<[u8]>::to_vec))
    }
}
