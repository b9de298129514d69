//! redis-rs with its cache in the client: every key is read and written at the same time; how many are still stale 20 ms
//! after the last write was acknowledged and all readers had stopped. Larder's side does the same.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use larder_bench_load::{Error, Key, Prepared, Scene, Tasks, serve, with_each};
use redis::aio::MultiplexedConnection;
use redis::caching::CacheConfig;
use redis::{AsyncCommands as _, AsyncConnectionConfig, Client, RedisResult};

const OLD: &str = "\"old\"";
const NEW: &str = "\"new\"";
const TTL_SECONDS: u64 = 3_600;
const PATIENCE: Duration = Duration::from_secs(10);
const REST: Duration = Duration::from_millis(20);
/// Larger than what is read.
const ENTRIES: NonZeroUsize = NonZeroUsize::new(1_000_000).unwrap();

/// Who reads, and who writes, each over a connection of its own.
#[derive(Clone)]
struct Race {
    reader: MultiplexedConnection,
    writer: MultiplexedConnection,
    keys: Arc<[Key]>,
}

fn main() -> Result<(), Error> {
    serve(std::env::args().skip(1), |scene| {
        let tasks = Tasks::of(scene)?;
        let scene = scene.clone();
        let round = move || {
            let mut stale = 0;
            for _ in 0..scene.operations {
                // Anew each time: what stays stale once does not count again.
                let race = tasks.runtime.block_on(Race::start(&scene, &tasks.keys))?;
                tasks.runtime.block_on(race.ensure_told())?;
                stale += tasks.runtime.block_on(race.run(scene.workers))?;
            }
            Ok(stale as f64)
        };
        Ok(Prepared {
            grown_bytes: 0,
            round,
        })
    })
}

impl Race {
    async fn start(scene: &Scene, keys: &Arc<[Key]>) -> RedisResult<Self> {
        let client = Client::open(format!("{}?protocol=resp3", scene.place))?;
        let cache = CacheConfig::new().set_size(ENTRIES);
        // A busy machine is no fault here.
        let patient = || {
            AsyncConnectionConfig::new()
                .set_response_timeout(Some(PATIENCE))
                .set_connection_timeout(Some(PATIENCE))
        };
        let (reader, writer) = (patient().set_cache_config(cache), patient());
        Ok(Self {
            reader: client
                .get_multiplexed_async_connection_with_config(&reader)
                .await?,
            writer: client
                .get_multiplexed_async_connection_with_config(&writer)
                .await?,
            keys: Arc::clone(keys),
        })
    }

    async fn run(&self, workers: usize) -> Result<usize, Error> {
        let race = self.clone();
        with_each(&self.keys, workers, move |key| {
            let race = race.clone();
            async move { Ok(race.write(&key, OLD).await?) }
        })
        .await?;
        let race = self.clone();
        with_each(&self.keys, workers, move |key| {
            let race = race.clone();
            async move {
                let reads = (race.read(&key), race.read(&key));
                Ok(tokio::join!(reads.0, reads.1, race.write(&key, NEW)).2?)
            }
        })
        .await?;
        tokio::time::sleep(REST).await;
        let mut stale = 0;
        for key in &*self.keys {
            stale += usize::from(self.read(key).await? != NEW);
        }
        Ok(stale)
    }

    /// The cache is used, and told of writes that nobody reads at the same time: else the race would show nothing.
    async fn ensure_told(&self) -> Result<(), Error> {
        let key = &self.keys[0];
        for value in [NEW, OLD] {
            self.write(key, value).await?;
            tokio::time::sleep(REST).await;
            for _ in 0..2 {
                if self.read(key).await? != value {
                    return Err("it is not told of writes at all".into());
                }
            }
        }
        let statistics = self.reader.get_cache_statistics();
        match statistics.is_some_and(|statistics| statistics.hit > 0) {
            true => Ok(()),
            false => Err("the cache is not used".into()),
        }
    }

    async fn read(&self, key: &Key) -> RedisResult<String> {
        self.reader.clone().get(key.as_str()).await
    }

    async fn write(&self, key: &Key, value: &str) -> RedisResult<()> {
        let mut writer = self.writer.clone();
        writer.set_ex(key.as_str(), value, TTL_SECONDS).await
    }
}
