//! A hit in Redis, from 1 to 256 tasks over one connection, against redis-rs.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use larder_core::{Cache, Guard, Key, NewEntry, Service, Store, Ttl};
use larder_redis::{Options, RedisStore, RedisUrl};
use larder_testing::redis::RedisServer;
use redis::AsyncCommands as _;
use redis::aio::{ConnectionManager, MultiplexedConnection};

use crate::VALUE_BYTES;
use crate::report::{Mark, Report};
use crate::rounds::nanos_each;
use crate::zipf;

/// How many lookups a round has.
const LOOKUPS: usize = 60_000;

pub(crate) fn measure(report: &mut Report) -> anyhow::Result<()> {
    for keys in [10_000, 100_000] {
        let name = |tasks: usize| format!("redis hit, {keys} keys, {tasks} tasks");
        if !report.wants(&name(1))
            && !report.wants(&name(16))
            && !report.wants(&name(64))
            && !report.wants(&name(256))
        {
            continue;
        }
        let server = RedisServer::start();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let all: Arc<[Key]> = (0..keys)
            .map(|index| Key::new("bench", &format!("/products/{index}")))
            .collect::<Result<_, _>>()?;
        let clients = runtime.block_on(Clients::connect(&server.url(), &all))?;
        let requests: Arc<[u32]> = zipf::requests(keys, LOOKUPS).into();
        for tasks in [1, 16, 64, 256] {
            let lookups = |share| LOOKUPS.min(4_000 * tasks) / tasks * share;
            let work = Work {
                runtime: &runtime,
                keys: &all,
                requests: &requests,
                tasks,
                each: lookups(1),
            };
            let cache = clients.cache.clone();
            let ours = || {
                let cache = cache.clone();
                work.thousands_per_second(move |key| {
                    let cache = cache.clone();
                    async move { cache.get_json(&key).await.is_some() }
                })
            };
            let multiplexed = clients.multiplexed.clone();
            report.add(
                &name(tasks),
                "MultiplexedConnection",
                "thousand/s",
                Mark::AtLeast(0.95),
                ours,
                || {
                    let connection = multiplexed.clone();
                    work.thousands_per_second(move |key| {
                        let mut connection = connection.clone();
                        async move { connection.get::<_, Vec<u8>>(key.as_str()).await.is_ok() }
                    })
                },
            )?;
            let managed = clients.managed.clone();
            report.add(
                &name(tasks),
                "ConnectionManager",
                "thousand/s",
                Mark::AtLeast(1.0),
                ours,
                || {
                    let connection = managed.clone();
                    work.thousands_per_second(move |key| {
                        let mut connection = connection.clone();
                        async move { connection.get::<_, Vec<u8>>(key.as_str()).await.is_ok() }
                    })
                },
            )?;
        }
    }
    Ok(())
}

struct Clients {
    cache: Cache,
    multiplexed: MultiplexedConnection,
    managed: ConnectionManager,
}

impl Clients {
    async fn connect(url: &str, keys: &[Key]) -> anyhow::Result<Self> {
        let options = Options {
            // The marks are about speed: a busy machine is no fault here.
            deadline: Duration::from_secs(10),
            ..Options::default()
        };
        let store = Arc::new(RedisStore::connect(RedisUrl::parse(url)?, options));
        // No two are alike, as with a user: what is remembered of a text serves no other.
        let value = |key: &Key| {
            format!(
                "\"{key:x<width$}\"",
                key = key.as_str(),
                width = VALUE_BYTES - 2
            )
        };
        for keys in keys.chunks(1_000) {
            let entry = |key: &Key| NewEntry {
                key: key.clone(),
                bytes: value(key).into(),
                ttl: Ttl::MAX,
                guard: Guard::Always,
            };
            let written = store.set_many(keys.iter().map(entry).collect()).await?;
            anyhow::ensure!(written.iter().all(larder_core::Written::is_stored));
        }
        let client = redis::Client::open(url)?;
        Ok(Self {
            cache: Cache::builder(Service::new("bench")?).store(store).build(),
            multiplexed: client.get_multiplexed_async_connection().await?,
            managed: client.get_connection_manager().await?,
        })
    }
}

struct Work<'a> {
    runtime: &'a tokio::runtime::Runtime,
    keys: &'a Arc<[Key]>,
    requests: &'a Arc<[u32]>,
    tasks: usize,
    /// Lookups of one task.
    each: usize,
}

impl Work<'_> {
    fn thousands_per_second<F, L>(&self, look_up: F) -> anyhow::Result<f64>
    where
        F: Fn(Key) -> L + Clone + Send + 'static,
        L: Future<Output = bool> + Send,
    {
        let mut result = Ok(());
        let nanos = nanos_each(self.each * self.tasks, || {
            result = self.runtime.block_on(self.run(look_up));
        });
        result.map(|()| 1e6 / nanos)
    }

    async fn run<F, L>(&self, look_up: F) -> anyhow::Result<()>
    where
        F: Fn(Key) -> L + Clone + Send + 'static,
        L: Future<Output = bool> + Send,
    {
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..self.tasks {
            let (keys, requests) = (Arc::clone(self.keys), Arc::clone(self.requests));
            let (look_up, each) = (look_up.clone(), self.each);
            tasks.spawn(async move {
                for request in requests.iter().cycle().skip(task * each).take(each) {
                    let key = keys[*request as usize].clone();
                    anyhow::ensure!(look_up(key).await, "a lookup found nothing");
                }
                Ok(())
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        Ok(())
    }
}
