//! `form=race`: every key is read and written at the same time; how many are still stale 20 ms after the last write was
//! acknowledged and all readers had stopped. The peer's side does the same.

use std::sync::Arc;
use std::time::Duration;

use larder_bench_load::{Error, Key, Prepared, Round, Scene, Tasks, with_each};
use larder_core::{Cache, Json, Service};

use super::redis::connect;

const OLD: &[u8] = b"\"old\"";
const NEW: &[u8] = b"\"new\"";
const TTL: Duration = Duration::from_secs(3_600);
const REST: Duration = Duration::from_millis(20);
/// Larger than what is read.
const L1_BYTES: u64 = 1 << 30;

/// Who reads, and who writes, each over a connection of its own.
#[derive(Clone)]
struct Race {
    reader: Cache,
    writer: Cache,
    keys: Arc<[Key]>,
}

pub(super) fn prepare(scene: &Scene) -> Result<Prepared<Round>, Error> {
    let tasks = Tasks::of(scene)?;
    let scene = scene.clone();
    let round = move || {
        let mut stale = 0;
        for _ in 0..scene.operations {
            // Anew each time: what stays stale once does not count again.
            let race = Race::start(&tasks, &scene)?;
            stale += tasks.runtime.block_on(race.run(scene.workers))?;
        }
        Ok(stale as f64)
    };
    Ok(Prepared {
        grown_bytes: 0,
        round: Box::new(round),
    })
}

impl Race {
    fn start(tasks: &Tasks, scene: &Scene) -> Result<Self, Error> {
        let cache = |l1_bytes| {
            let store = Arc::new(connect(tasks, scene)?);
            let _inside = tasks.runtime.enter();
            let cache = Cache::builder(Service::new("bench")?).store(store);
            Ok::<_, Error>(cache.l1_bytes(l1_bytes).build())
        };
        Ok(Self {
            reader: cache(L1_BYTES)?,
            writer: cache(0)?,
            keys: Arc::clone(&tasks.keys),
        })
    }

    async fn run(&self, workers: usize) -> Result<usize, Error> {
        let race = self.clone();
        with_each(&self.keys, workers, move |key| {
            let race = race.clone();
            async move { race.write(&key, OLD).await }
        })
        .await?;
        let race = self.clone();
        with_each(&self.keys, workers, move |key| {
            let race = race.clone();
            async move {
                let read = || race.reader.get_json(&key);
                tokio::join!(read(), read(), race.write(&key, NEW)).2
            }
        })
        .await?;
        tokio::time::sleep(REST).await;
        let mut stale = 0;
        for key in &*self.keys {
            let found = self.reader.get_json(key).await.ok_or("a key has gone")?;
            stale += usize::from(&*found.into_bytes() != NEW);
        }
        let near = self.reader.counts().hits_near;
        for key in &*self.keys {
            self.reader.get_json(key).await;
        }
        if self.reader.counts().hits_near == near {
            return Err("the L1 was not used".into());
        }
        Ok(stale)
    }

    async fn write(&self, key: &Key, value: &'static [u8]) -> Result<(), Error> {
        let json = Json::parse(value.into())?;
        match self.writer.set_json(key, json, TTL).await {
            written if written.is_stored() => Ok(()),
            written => Err(written.to_string().into()),
        }
    }
}
