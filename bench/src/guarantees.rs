//! What guarantees cost, and that they hold where others' don't: one load for all, nobody who waits for it, a race that a
//! coherent cache loses, and invalidations that are one write.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use larder_bench_load::{Key, Runtime, Scene, keys};
use larder_core::Cache;
use larder_redis::{Options, RedisStore, RedisUrl};
use larder_testing::redis::{RedisCluster, RedisServer};
use tempfile::TempDir;

use crate::report::{Mark, Report};
use crate::side::Side;
use crate::sides::{StoreKind, framed};

/// Processes that share one key, and tasks of each.
const PROCESSES: usize = 4;
const TASKS: usize = 256;
const EXPIRIES: usize = 50;
/// Longer than a value of `sides/one_key.rs` is fresh.
const OVER: Duration = Duration::from_millis(500);
/// How often a task looks the one key up in a round.
const LOOKUPS_OF_TASK: usize = 12;
/// What a lookup may take while another one's load runs.
const NOT_WAITED: Duration = Duration::from_millis(2);

pub(crate) fn measure(report: &mut Report) -> anyhow::Result<()> {
    for kind in [StoreKind::Embedded, StoreKind::Redis] {
        one_load(report, kind)?;
        nobody_waits(report, kind)?;
        under_invalidations(report, kind)?;
    }
    race(report)?;
    framed_hits(report)?;
    near_hits(report)?;
    invalidate_service(report)
}

/// Where the entries of a store are, until it is dropped.
enum Place {
    Folder(TempDir),
    Redis(RedisServer),
}

impl Place {
    fn of(kind: StoreKind) -> anyhow::Result<Self> {
        Ok(match kind {
            StoreKind::Redis => Self::Redis(RedisServer::start()),
            _ => Self::Folder(tempfile::tempdir()?),
        })
    }

    fn name(&self) -> String {
        match self {
            Self::Folder(folder) => folder.path().join("store").display().to_string(),
            Self::Redis(server) => server.url(),
        }
    }
}

/// Several processes that ask for one key.
fn one_key(
    kind: StoreKind,
    form: &str,
    operations: usize,
    place: &Place,
) -> anyhow::Result<Vec<Side>> {
    let scene = Scene {
        keys: 1,
        operations,
        workers: TASKS,
        place: place.name(),
        form: form.to_owned(),
        ..Scene::default()
    };
    (0..PROCESSES).map(|_| Side::larder(kind, &scene)).collect()
}

/// One round of all at the same time.
fn all_at_once(sides: &mut [Side]) -> anyhow::Result<Vec<f64>> {
    sides.iter_mut().try_for_each(Side::begin)?;
    sides.iter_mut().map(Side::finish).collect()
}

/// How many loads there are where a key expires so often.
fn one_load(report: &mut Report, kind: StoreKind) -> anyhow::Result<()> {
    let name = format!(
        "guarantees {}, loads of a key that {PROCESSES} × {TASKS} ask for, {EXPIRIES} expiries",
        kind.name()
    );
    if !report.wants(&name) {
        return Ok(());
    }
    let place = Place::of(kind)?;
    let mut sides = one_key(kind, "once", 1, &place)?;
    let mut loads = 0.0;
    for _ in 0..EXPIRIES {
        loads += all_at_once(&mut sides)?.iter().sum::<f64>();
        std::thread::sleep(OVER);
    }
    report.add_figure(&name, "loads", Mark::AtMost(EXPIRIES as f64), vec![loads]);
    Ok(())
}

/// What a lookup takes where stale values may stand in for a load of 800 ms.
fn nobody_waits(report: &mut Report, kind: StoreKind) -> anyhow::Result<()> {
    let name = format!(
        "guarantees {}, a lookup while another loads for 800 ms, stale_while_revalidate, p99",
        kind.name()
    );
    if !report.wants(&name) {
        return Ok(());
    }
    let place = Place::of(kind)?;
    let mut sides = one_key(kind, "stale", LOOKUPS_OF_TASK, &place)?;
    let worst = || {
        let nanos = all_at_once(&mut sides)?;
        Ok(nanos.into_iter().fold(0.0, f64::max) / 1e3)
    };
    let allowed = || Ok(NOT_WAITED.as_secs_f64() * 1e6);
    report.add(&name, "allowed", "µs", Mark::AtMost(1.0), worst, allowed)
}

/// Deletes of other keys, in a second; for so many seconds.
const DELETES: usize = 10_000;
const SECONDS: usize = 6;
const OTHER_KEYS: usize = 10_000;
const HITS: usize = 3_000_000;

/// Hits, with and without deletes of other keys by another process.
fn under_invalidations(report: &mut Report, kind: StoreKind) -> anyhow::Result<()> {
    let name = format!(
        "guarantees {} hits, {DELETES} deletes a second of other keys",
        kind.name()
    );
    if !report.wants(&name) {
        return Ok(());
    }
    let place = Place::of(kind)?;
    let scene = Scene {
        operations: report.operations(HITS),
        place: place.name(),
        form: match kind {
            StoreKind::Redis => "near".to_owned(),
            _ => String::new(),
        },
        ..Scene::default()
    };
    let hits = std::cell::RefCell::new(Side::larder(kind, &scene)?);
    let mut deletes = Side::larder(
        kind,
        &Scene {
            keys: OTHER_KEYS,
            operations: SECONDS * DELETES,
            form: "others".to_owned(),
            ..scene.clone()
        },
    )?;
    let disturbed = || {
        deletes.begin()?;
        let begun = Instant::now();
        // They are under way.
        std::thread::sleep(Duration::from_millis(100));
        let thousands = hits.borrow_mut().thousands_per_second()?;
        let took = begun.elapsed();
        let per_second = 1e9 / deletes.finish()?;
        let lasted = Duration::from_secs_f64(SECONDS as f64 * DELETES as f64 / per_second);
        anyhow::ensure!(
            per_second > 0.95 * DELETES as f64 && took < lasted,
            "there were {per_second:.0} deletes a second for {lasted:?}, and hits for {took:?}"
        );
        Ok(thousands)
    };
    let quiet = || hits.borrow_mut().thousands_per_second();
    report.add(
        &name,
        "quiet",
        "thousand/s",
        Mark::AtLeast(0.8),
        disturbed,
        quiet,
    )
}

const RACED: usize = 25_600;
const RACERS: usize = 256;
/// Of each round: with the one before that does not count there are 24.
const RUNS: usize = 4;

/// Reads and writes of a key at the same time: how many keys stay stale.
fn race(report: &mut Report) -> anyhow::Result<()> {
    let name = format!("guarantees redis race, keys of {RUNS} × {RACED} that stay stale");
    if !report.wants(&name) {
        return Ok(());
    }
    let server = RedisServer::start();
    let scene = Scene {
        keys: RACED,
        operations: RUNS,
        workers: RACERS,
        place: server.url(),
        form: "race".to_owned(),
        ..Scene::default()
    };
    let mut ours = Side::larder(StoreKind::Redis, &scene)?;
    let other_server = RedisServer::start();
    let place = other_server.url();
    let mut theirs = Side::peer("redis-rs-cache", &Scene { place, ..scene })?;
    let all = Cell::new(0.0);
    let counted = || {
        let stale = ours.round()?;
        all.set(all.get() + stale);
        Ok(stale)
    };
    let peer = "redis-rs cache-aio";
    let bites = || {
        let stale = theirs.round()?;
        anyhow::ensure!(stale > 0.0, "the race is lost by nobody: it shows nothing");
        Ok(stale)
    };
    report.add(&name, peer, "keys", Mark::AtMost(0.0), counted, bites)?;
    let name = format!("{name}, all rounds");
    report.add_figure(&name, "keys", Mark::AtMost(0.0), vec![all.get()]);
    Ok(())
}

const LOOKUPS: usize = 60_000;

/// A hit in framed form, without an L1, against a bare `GET` of the same bytes.
fn framed_hits(report: &mut Report) -> anyhow::Result<()> {
    for tasks in [64, 256] {
        let name =
            format!("guarantees redis hit in framed form, without L1, 10000 keys, {tasks} tasks");
        if !report.wants(&name) {
            continue;
        }
        let server = RedisServer::start();
        let scene = Scene {
            operations: report.operations(LOOKUPS),
            workers: tasks,
            runtime: Runtime::Workers,
            place: server.url(),
            form: "framed".to_owned(),
            ..Scene::default()
        };
        let mut ours = Side::larder(StoreKind::Redis, &scene)?;
        let form = "multiplexed".to_owned();
        let mut theirs = Side::peer("redis-rs", &Scene { form, ..scene })?;
        report.add(
            &name,
            "MultiplexedConnection, bare GET",
            "thousand/s",
            Mark::AtLeast(0.9),
            || ours.thousands_per_second(),
            || theirs.thousands_per_second(),
        )?;
    }
    Ok(())
}

/// All rounds take less than the 10 s after which the L1 reads what it keeps anew: most of them are hits alone.
const NEAR_LOOKUPS: usize = 500_000;
/// Of the Cluster.
const MASTERS: usize = 3;

/// A hit in the L1 over Redis: trust, expiry, a tag, counters.
fn near_hits(report: &mut Report) -> anyhow::Result<()> {
    for threads in [1, 2] {
        let name =
            format!("guarantees redis hit in the L1, with a tag, 10000 keys, {threads} threads");
        if report.wants(&name) {
            let server = RedisServer::start();
            near_hits_over(report, &name, server.url(), threads, Mark::AtMost(0.6))?;
        }
        // Without a mark: its servers share the versions, and what is proven by several of them lies apart.
        let name =
            format!("guarantees cluster hit in the L1, with a tag, 10000 keys, {threads} threads");
        if report.wants(&name) {
            let cluster = RedisCluster::start_with(MASTERS, &[]);
            near_hits_over(report, &name, cluster.url(), threads, None)?;
        }
    }
    Ok(())
}

fn near_hits_over(
    report: &mut Report,
    name: &str,
    place: String,
    threads: usize,
    mark: impl Into<Option<Mark>>,
) -> anyhow::Result<()> {
    let scene = Scene {
        operations: report.operations(NEAR_LOOKUPS),
        workers: threads,
        place,
        form: "near".to_owned(),
        ..Scene::default()
    };
    let mut ours = Side::larder(StoreKind::Redis, &scene)?;
    let mut theirs = Side::peer("moka", &scene)?;
    report.add(
        name,
        "moka::sync with TTL",
        "ns",
        mark,
        || ours.round(),
        || theirs.round(),
    )
}

const ENTRIES: usize = 1_000_000;
const FEW: usize = 1_000;

/// What one round trip of that asks of the server: a version is given a new value, and a nonce comes back.
const ASKED: [(&str, u64); 2] = [("ping", 1), ("set", 1)];
/// What watches over a connection asks now and then.
const WATCHING: [&str; 4] = ["role", "info", "client|tracking", "client|trackinginfo"];

/// All entries of a service are invalidated: what the call takes, by how many there are. It asks the server no more than one
/// round trip does, and nothing that takes longer with more entries.
fn invalidate_service(report: &mut Report) -> anyhow::Result<()> {
    let name = format!("guarantees redis invalidate_service, {ENTRIES} framed entries");
    if !report.wants(&name) {
        return Ok(());
    }
    let server = RedisServer::start();
    let many = report.operations(ENTRIES);
    // Of one thread: what runs behind the call does not begin before that is judged.
    let alone = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let cache = framed_cache(&alone, &server)?;
    alone.block_on(asks_once(&cache, &server, keys_of(many)?))?;
    drop((cache, alone));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let cache = framed_cache(&runtime, &server)?;
    let measure = |count: usize| runtime.block_on(invalidate(&cache, keys_of(count)?));
    report.add(
        &name,
        "of 1,000",
        "µs",
        Mark::AtMost(2.0),
        || measure(many),
        || measure(FEW),
    )
}

fn framed_cache(runtime: &tokio::runtime::Runtime, server: &RedisServer) -> anyhow::Result<Cache> {
    let _inside = runtime.enter();
    let options = Options {
        // Filling is no fault.
        deadline: Duration::from_secs(10),
        ..Options::default()
    };
    let store = RedisStore::connect(RedisUrl::parse(&server.url())?, options);
    framed::cache(std::sync::Arc::new(store), 0).map_err(anyhow::Error::from_boxed)
}

fn keys_of(count: usize) -> anyhow::Result<Vec<Key>> {
    keys(count).map_err(anyhow::Error::from_boxed)
}

/// Fills.
async fn fill(cache: &Cache, keys: &[Key]) -> anyhow::Result<()> {
    let filled = framed::fill(cache, keys, 128).await;
    filled.map_err(anyhow::Error::from_boxed)?;
    let last = keys.last().context("there are keys")?;
    anyhow::ensure!(cache.get_json(last).await.is_some(), "it is there");
    Ok(())
}

/// Fills, and invalidates: what the call took, in microseconds.
async fn invalidate(cache: &Cache, keys: Vec<Key>) -> anyhow::Result<f64> {
    fill(cache, &keys).await?;
    let last = keys.last().context("there are keys")?;
    let begin = Instant::now();
    let invalidated = cache.invalidate_service().await;
    let took = begin.elapsed();
    anyhow::ensure!(cache.get_json(last).await.is_none(), "it is dead");
    let swept = invalidated.swept().await;
    anyhow::ensure!(swept.is_done(), "the rest is pending: {swept}");
    Ok(took.as_secs_f64() * 1e6)
}

/// Fills, and invalidates: fails if the server was asked for more than one round trip has until the call returned.
async fn asks_once(cache: &Cache, server: &RedisServer, keys: Vec<Key>) -> anyhow::Result<()> {
    fill(cache, &keys).await?;
    let before = commands(server);
    let invalidated = cache.invalidate_service().await;
    let mut asked = commands(server);
    for (command, calls) in before {
        asked.entry(command).and_modify(|all| *all -= calls);
    }
    asked.retain(|command, calls| *calls > 0 && !WATCHING.contains(&&**command));
    let expected = ASKED.map(|(command, calls)| (command.to_owned(), calls));
    anyhow::ensure!(
        asked == expected.into(),
        "before the call returned, the server was asked for {asked:?}, which is not one round trip"
    );
    let swept = invalidated.swept().await;
    anyhow::ensure!(swept.is_done(), "the rest is pending: {swept}");
    Ok(())
}

/// How often a server was asked for what so far.
fn commands(server: &RedisServer) -> BTreeMap<String, u64> {
    let stats = server.cli(&["INFO", "commandstats"]);
    let calls = |line: &str| {
        let (command, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let calls = rest.split(',').next()?.parse().ok()?;
        Some((command.to_owned(), calls))
    };
    stats.lines().filter_map(calls).collect()
}
