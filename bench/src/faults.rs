//! What it costs that Redis is away, and how soon it is used when it is back: a cache under 1,000 lookups a second, and the
//! sample service under 200 requests a second, with a query of 50 ms.

use std::cell::RefCell;
use std::convert::Infallible;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use larder_bench_load::Usage;
use larder_core::{Cache, Key, Service};
use larder_redis::{Options, RedisStore, RedisUrl};
use larder_testing::redis::RedisServer;
use tempfile::TempDir;

use crate::load::{Client, Load, p99_micros};
use crate::report::{Mark, Report};
use crate::server::Server;

const QUERY: Duration = Duration::from_millis(50);
/// What a stopped Redis may add to a request, at p99.
const ADDED: Duration = Duration::from_millis(1);
/// The same as a share of an answer with its query.
const ADDED_SHARE: f64 = 1.02;
/// When hits are to be back.
const BACK: Duration = Duration::from_secs(1);
const PER_SECOND: u32 = 200;
/// Of lookups, whose load is no database's.
const LOOKUPS_PER_SECOND: u32 = 1_000;
/// Twice as many as are answered at once.
const CLIENTS: u32 = 20;
const LENGTH: Duration = Duration::from_secs(5);
/// Long after the third operation without an answer.
const UNTIL_AWAY: Duration = Duration::from_secs(1);
/// Longer than this nothing is trusted of a server that says nothing.
const TRUSTED: Duration = Duration::from_secs(2);
/// Until then a lookup may pay for it.
const UNTIL_OPEN: Duration = Duration::from_millis(250);
/// What may be in the air besides: blocks that the allocator keeps, in bytes.
const LEVEL_BYTES: f64 = 8e6;
/// Hits that don't come back in this time never do.
const PATIENCE: Duration = Duration::from_secs(20);
const ENDPOINT: &str = "/products";

pub(crate) fn measure(report: &mut Report) -> anyhow::Result<()> {
    lookups(report)?;
    answers(report)?;
    hits_back(report)
}

/// What a lookup takes besides its load.
fn lookups(report: &mut Report) -> anyhow::Result<()> {
    let name = "redis stopped, a lookup without its load, p99";
    let level = ["threads", "descriptors", "bytes"]
        .map(|what| format!("redis stopped, a lookup without its load, {what} grown by"));
    if !report.wants(name) {
        return Ok(());
    }
    let redis = RedisServer::start();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let store = {
        let _inside = runtime.enter();
        RedisStore::connect(RedisUrl::parse(&redis.url())?, Options::default())
    };
    let cache = Cache::builder(Service::new("bench")?)
        .store(Arc::new(store))
        .build();
    redis.pause();
    runtime.block_on(look_up(&cache, UNTIL_OPEN))?;
    let usage = || Usage::now().map_err(anyhow::Error::from_boxed);
    let mut usages = vec![];
    let added = || {
        let took = runtime.block_on(look_up(&cache, LENGTH))?;
        usages.push(usage()?);
        Ok(p99_micros(&took))
    };
    let allowed = || Ok(ADDED.as_secs_f64() * 1e6);
    report.add(name, "allowed", "µs", Mark::AtMost(1.0), added, allowed)?;
    // From the end of the round that does not count to that of the last.
    let (Some(first), Some(last)) = (usages.first(), usages.last()) else {
        return Ok(());
    };
    let grown = |of: fn(&Usage) -> u64| of(last) as f64 - of(first) as f64;
    let [threads, descriptors, bytes] = &level;
    let most = Mark::AtMost;
    report.add_figure(threads, "", most(0.0), vec![grown(|usage| usage.threads)]);
    report.add_figure(
        descriptors,
        "",
        most(0.0),
        vec![grown(|usage| usage.descriptors)],
    );
    let grown_bytes = grown(|usage| usage.resident_bytes);
    report.add_figure(bytes, "bytes", most(LEVEL_BYTES), vec![grown_bytes]);
    Ok(())
}

/// Looks up keys that nobody asked for before; what each took besides its load.
async fn look_up(cache: &Cache, length: Duration) -> anyhow::Result<Vec<Duration>> {
    let mut pace = tokio::time::interval(Duration::from_secs(1) / LOOKUPS_PER_SECOND);
    let mut lookups = tokio::task::JoinSet::new();
    let begin = Instant::now();
    while begin.elapsed() < length {
        pace.tick().await;
        let key = Key::new("bench", &format!("/products/{}", lookups.len()))?;
        let cache = cache.clone();
        lookups.spawn(async move {
            let begin = Instant::now();
            let answer = cache.get_or_load(&key, query).await?;
            Ok::<_, anyhow::Error>(begin.elapsed().saturating_sub(answer.value))
        });
    }
    lookups.join_all().await.into_iter().collect()
}

/// A query of the database; answers what it took.
async fn query() -> Result<Duration, Infallible> {
    let begin = Instant::now();
    tokio::time::sleep(QUERY).await;
    Ok(begin.elapsed())
}

/// What the sample service's answers take, each of them with a query.
fn answers(report: &mut Report) -> anyhow::Result<()> {
    let name = "redis stopped, an answer with its query, p99";
    if !report.wants(name) {
        return Ok(());
    }
    let redis = RedisServer::start();
    // A key of its own for each request: else most of them would wait for another's query.
    let cached = Scene::start(&redis.url(), r#"{"mode":"on","include_query":["n"]}"#)?;
    let off = Scene::start(&redis.url(), r#"{"mode":"off"}"#)?;
    redis.pause();
    cached.ask(UNTIL_AWAY)?;
    report.add(
        name,
        "caching off",
        "µs",
        Mark::AtMost(ADDED_SHARE),
        || Ok(p99_micros(&cached.ask(LENGTH)?)),
        || Ok(p99_micros(&off.ask(LENGTH)?)),
    )
}

/// How soon Redis is used when it is back.
fn hits_back(report: &mut Report) -> anyhow::Result<()> {
    let (resumed, restarted) = (
        "redis goes on after SIGSTOP, first hit",
        "redis starts after kill -9, first hit",
    );
    if !report.wants(resumed) && !report.wants(restarted) {
        return Ok(());
    }
    let redis = RefCell::new(RedisServer::start());
    let scene = Scene::start(&redis.borrow().url(), r#"{"mode":"on"}"#)?;
    let allowed = || Ok(BACK.as_secs_f64() * 1e3);
    let after_pause = || {
        scene.first_hit_after(|| {
            redis.borrow().pause();
            scene.until_away(TRUSTED)?;
            redis.borrow().resume();
            Ok(())
        })
    };
    report.add(
        resumed,
        "allowed",
        "ms",
        Mark::AtMost(1.0),
        after_pause,
        allowed,
    )?;
    let after_kill = || {
        scene.first_hit_after(|| {
            redis.borrow_mut().kill();
            // Its connections end with it.
            scene.until_away(UNTIL_AWAY)?;
            redis.borrow_mut().restart();
            Ok(())
        })
    };
    report.add(
        restarted,
        "allowed",
        "ms",
        Mark::AtMost(1.0),
        after_kill,
        allowed,
    )
}

/// The sample service on Redis, with a control plane of its own.
struct Scene {
    service: Server,
    _control: Server,
    _folder: TempDir,
}

impl Scene {
    fn start(redis: &str, policy: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let control = Server::control(folder.path())?;
        set_policy(&control, policy)?;
        let variables = [
            ("REDIS_URL", redis),
            ("SLOW_QUERY_MS", &QUERY.as_millis().to_string()),
        ];
        let service = Server::service(folder.path(), &control, &variables)?;
        let scene = Self {
            service,
            _control: control,
            _folder: folder,
        };
        // Until the service asks for its policies again.
        std::thread::sleep(Duration::from_secs(5));
        Ok(scene)
    }

    fn load(&self) -> Load<'static> {
        Load {
            port: self.service.port,
            clients: CLIENTS,
            per_second: PER_SECOND,
            key: None,
        }
    }

    fn ask(&self, length: Duration) -> anyhow::Result<Vec<Duration>> {
        self.load()
            .run(length, |number| format!("{ENDPOINT}?n={number}"))
    }

    /// How long after a fault the first hit comes, in milliseconds, under a load of which no request fails.
    fn first_hit_after(&self, fault: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
        let load = self.load();
        std::thread::scope(|scope| {
            let load = scope.spawn(move || load.run(LENGTH, |_| ENDPOINT.to_owned()));
            fault()?;
            let back = self.first_hit()?;
            let ended = load.join().ok().context("the load died")?;
            ended.context("a request failed")?;
            Ok(back.as_secs_f64() * 1e3)
        })
    }

    /// Waits until there are no more hits, which those of the L1 may be for so long, and then until Redis is known to be away.
    fn until_away(&self, trusted: Duration) -> anyhow::Result<()> {
        let begin = Instant::now();
        let mut client = Client::connect(self.service.port)?;
        while is_cached(&client.get(ENDPOINT)?) {
            anyhow::ensure!(begin.elapsed() < trusted, "there are hits without Redis");
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(UNTIL_AWAY);
        let answer = client.get(ENDPOINT)?;
        anyhow::ensure!(!is_cached(&answer), "there are hits without Redis again");
        Ok(())
    }

    fn first_hit(&self) -> anyhow::Result<Duration> {
        let begin = Instant::now();
        let mut client = Client::connect(self.service.port)?;
        while !is_cached(&client.get(ENDPOINT)?) {
            if begin.elapsed() > PATIENCE {
                bail!("there are no more hits");
            }
        }
        Ok(begin.elapsed())
    }
}

fn is_cached(answer: &[u8]) -> bool {
    answer.starts_with(br#"{"cached":true"#)
}

fn set_policy(control: &Server, policy: &str) -> anyhow::Result<()> {
    let url = format!(
        "http://127.0.0.1:{}/api/policies/product-service{ENDPOINT}",
        control.port
    );
    let status = Command::new("curl")
        .args(["-sf", "-X", "PUT", "-H", "content-type: application/json"])
        .args(["-d", policy, &url])
        .stdout(Stdio::null())
        .status()?;
    anyhow::ensure!(status.success(), "the policy can't be set");
    Ok(())
}
