//! A worker: a process with a cache of its own, that does what it is told and writes down what it sees.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use larder_core::{Cache, Disabled, InProcess, Outbox, OutboxLimits, Service, Store};
use larder_embedded::{EmbeddedStore, OpenError};
use larder_redis::{RedisStore, RedisUrl};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::task::JoinSet;

use crate::event::{Log, What};
use crate::instant::{Nanos, millis, now};
use crate::keys::{EACH, KEYS, Kind, Policies, SERVICE, TAGS};
use crate::orders::{Ended, Mix, Numbered, Order, Said};
use crate::random::Random;
use crate::watched::{Load, Watched};

/// What a worker is started with.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// `in-process`, a folder, or a URL
    #[arg(long)]
    store: String,
    /// Who shares the store's journal; what a dead process left in the folder is adopted
    #[arg(long)]
    journal: PathBuf,
    #[arg(long)]
    log: PathBuf,
    #[arg(long)]
    l1_bytes: u64,
    #[arg(long)]
    seed: u64,
    /// How far the monotonic clock is ahead of the one that all share, in seconds
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    clock_offset: i64,
    /// The guard that is off
    #[arg(long)]
    without: Option<String>,
}

/// Does what standard input says, until it ends.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    crate::instant::is_ahead(args.clock_offset);
    if let Some(guard) = &args.without {
        crate::mutants::turn_off(guard)?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let ended = runtime.block_on(work(args));
    // Nothing that was told to end may keep the process.
    runtime.shutdown_background();
    ended
}

async fn work(args: &Args) -> anyhow::Result<()> {
    let begin = now();
    let log = Arc::new(Log::create(&args.log)?);
    let policies = Arc::new(Policies::new()?);
    let (store, ready) = store(&args.store, args.l1_bytes)?;
    let cache = cache(args, store, &policies)?;
    let watched = Watched::new(cache, Arc::clone(&log))?;
    watched.note(What::Started, 0, begin)?;
    let worker = Arc::new(Worker {
        watched,
        policies,
        is_mixing: AtomicBool::new(false),
        seed: AtomicU64::new(args.seed),
    });
    let watching = tokio::spawn(watch_for_stalls(Arc::clone(&worker)));
    let (say, mut said) = tokio::sync::mpsc::unbounded_channel::<Said>();
    let saying = tokio::spawn(async move {
        let mut out = tokio::io::stdout();
        while let Some(one) = said.recv().await {
            let line = serde_json::to_string(&one)? + "\n";
            out.write_all(line.as_bytes()).await?;
            out.flush().await?;
        }
        Ok::<_, anyhow::Error>(())
    });
    // Number 0: it is ready.
    let (number, ended) = (0, ready);
    say.send(Said { number, ended })?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut mixing = JoinSet::new();
    while let Some(line) = lines.next_line().await? {
        let Numbered { number, order } = serde_json::from_str(&line)?;
        match order {
            Order::Mix(mix) => worker.mix(mix, &mut mixing),
            Order::Rest => {
                worker.is_mixing.store(false, Ordering::SeqCst);
                while let Some(ended) = mixing.join_next().await {
                    ended??;
                }
                log.flush()?;
            }
            order => {
                let (worker, say) = (Arc::clone(&worker), say.clone());
                tokio::spawn(async move {
                    let ended = worker.obey(order).await?;
                    say.send(Said { number, ended })?;
                    Ok::<_, anyhow::Error>(())
                });
                continue;
            }
        }
        let ended = Ended::Done;
        say.send(Said { number, ended })?;
    }
    drop(say);
    watching.abort();
    log.flush()?;
    saying.abort();
    Ok(())
}

/// How often it is looked whether the process goes on, and what is no stall yet.
const TICK: Duration = Duration::from_millis(5);
const STALL: Nanos = millis(15);

/// Writes down when the runtime got no processor.
async fn watch_for_stalls(worker: Arc<Worker>) -> anyhow::Result<()> {
    loop {
        let begin = now();
        tokio::time::sleep(TICK).await;
        if now() > begin + STALL {
            worker.watched.note(What::Stalled, 0, begin)?;
        }
    }
}

/// The store of this name; [`Ended::Pending`] if this process can't share its folder with others, and goes on without.
fn store(name: &str, l1_bytes: u64) -> anyhow::Result<(Arc<dyn Store>, Ended)> {
    if name == "in-process" {
        return Ok((Arc::new(InProcess::new(64 << 20)), Ended::Done));
    }
    if name.contains("://") {
        let url = RedisUrl::parse(name)?;
        let options = larder_redis::Options {
            notes_entries: l1_bytes > 0,
            ..larder_redis::Options::default()
        };
        let store = RedisStore::connect(url, options);
        return Ok((Arc::new(store), Ended::Done));
    }
    let options = larder_embedded::Options {
        max_bytes: 16 << 20,
        ..larder_embedded::Options::default()
    };
    match EmbeddedStore::open(name.as_ref(), options) {
        Ok(store) => Ok((Arc::new(store), Ended::Done)),
        // As the facade does it.
        Err(error @ (OpenError::PidNamespace { .. } | OpenError::TimeNamespace { .. })) => {
            Ok((Arc::new(Disabled::new(error.to_string())), Ended::Pending))
        }
        Err(error) => Err(error.into()),
    }
}

fn cache(args: &Args, store: Arc<dyn Store>, policies: &Arc<Policies>) -> anyhow::Result<Cache> {
    let service = Service::new(SERVICE)?;
    let limits = OutboxLimits::default();
    // Proxies stand before some workers: the store is the same.
    let outbox = Outbox::open(&args.journal, "the store", service.clone(), limits);
    let cache = Cache::builder(service)
        .store(store)
        .governor(Arc::clone(policies) as Arc<_>)
        .l1_bytes(args.l1_bytes)
        .outbox(Arc::new(outbox))
        .build();
    Ok(cache)
}

struct Worker {
    watched: Watched,
    policies: Arc<Policies>,
    is_mixing: AtomicBool,
    seed: AtomicU64,
}

impl Worker {
    async fn obey(&self, order: Order) -> anyhow::Result<Ended> {
        let watched = &self.watched;
        let kind = |kind: usize| Kind::ALL.get(kind).copied().context("a kind");
        Ok(match order {
            Order::Look { key, load_ms } => watched.look(key, load(load_ms)).await?,
            Order::Peek { key, for_ms } => {
                let begin = std::time::Instant::now();
                while begin.elapsed() < Duration::from_millis(for_ms) {
                    watched.peek(key).await?;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Ended::Done
            }
            Order::Spin { for_ms } => {
                self.spin(Duration::from_millis(for_ms)).await?;
                Ended::Done
            }
            Order::Set { key } => watched.set(key).await?,
            Order::Delete { key } => watched.delete(key).await?,
            Order::Clear { kind: number } => watched.clear(kind(number)?).await?,
            Order::Tag { tag } => watched.tag(tag).await?,
            Order::Endpoint { kind: number } => watched.endpoint(kind(number)?).await?,
            Order::Service => watched.service().await?,
            Order::Switch { is_off } => {
                self.policies.switch(is_off);
                Ended::Done
            }
            Order::Mix(_) | Order::Rest => Ended::Done,
        })
    }

    /// Looks up what lives long without a break, for so long of the time in which this process runs.
    async fn spin(&self, run: Duration) -> anyhow::Result<()> {
        let (mut left, mut last) = (run, std::time::Instant::now());
        while !left.is_zero() {
            for key in Kind::Plain.keys().chain(Kind::Lasting.keys()) {
                self.watched.peek(key).await?;
            }
            let now = std::time::Instant::now();
            left = left.saturating_sub(now.duration_since(last).min(PASS));
            last = now;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn random(&self) -> Random {
        Random::new(
            self.seed
                .fetch_add(0x5851_f42d_4c95_7f2d, Ordering::Relaxed),
        )
    }

    fn mix(self: &Arc<Self>, mix: Mix, tasks: &mut JoinSet<anyhow::Result<()>>) {
        self.is_mixing.store(true, Ordering::SeqCst);
        for _ in 0..mix.readers {
            let (worker, random) = (Arc::clone(self), self.random());
            tasks.spawn(async move { worker.read(mix, random).await });
        }
        let (worker, random) = (Arc::clone(self), self.random());
        tasks.spawn(async move { worker.change(mix, random).await });
        // What is wide may take long.
        let (worker, random) = (Arc::clone(self), self.random());
        tasks.spawn(async move { worker.change_widely(mix, random).await });
    }

    fn is_mixing(&self) -> bool {
        self.is_mixing.load(Ordering::SeqCst)
    }

    async fn read(&self, mix: Mix, mut random: Random) -> anyhow::Result<()> {
        while self.is_mixing() {
            for _ in 0..BURST {
                let key = some_key(&mut random);
                let load = some_load(mix, key, &mut random);
                match random.below(100) {
                    0..=4 => {
                        self.watched.peek(key).await?;
                    }
                    5..=6 => {
                        let kind = Kind::of(key).keys();
                        let first = random.below(EACH - 2);
                        let keys: Vec<usize> = kind.skip(first).take(3).collect();
                        self.watched.look_many(&keys, load).await?;
                    }
                    7..=8 if !Kind::of(key).is_framed() => {
                        self.watched.look_by_token(key, load).await?;
                    }
                    _ => {
                        self.watched.look(key, load).await?;
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(random.between(1, 2))).await;
        }
        Ok(())
    }

    async fn change(&self, mix: Mix, mut random: Random) -> anyhow::Result<()> {
        let mut tick = ticks();
        while self.is_mixing() {
            tick.tick().await;
            if random.in_thousand(mix.deletes * 5) {
                self.watched.delete(some_key(&mut random)).await?;
            }
            if random.in_thousand(mix.sets * 5) {
                let key = some_key(&mut random);
                if !Kind::of(key).is_framed() {
                    self.watched.set(key).await?;
                }
            }
        }
        Ok(())
    }

    async fn change_widely(&self, mix: Mix, mut random: Random) -> anyhow::Result<()> {
        let mut tick = ticks();
        while self.is_mixing() {
            tick.tick().await;
            if random.below(2_000) < mix.wide as usize * 4 {
                let kind = Kind::ALL[random.below(Kind::ALL.len())];
                match random.below(4) {
                    0 => self.watched.clear(kind).await?,
                    1 => self.watched.tag(random.below(TAGS)).await?,
                    2 => self.watched.endpoint(kind).await?,
                    _ => self.watched.service().await?,
                };
            }
        }
        Ok(())
    }
}

/// 200 in a second.
fn ticks() -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks
}

/// A pass over all keys takes no longer, unless the process is stopped.
const PASS: Duration = Duration::from_millis(20);
/// So many lookups follow each other.
const BURST: usize = 6;

fn load(millis: u64) -> Load {
    Load {
        takes: Duration::from_millis(millis),
        fails: false,
    }
}

/// Small numbers more often.
fn some_key(random: &mut Random) -> usize {
    let kind = random.below(Kind::ALL.len()) * EACH;
    let key = kind + random.below(EACH).min(random.below(EACH));
    key.min(KEYS - 1)
}

fn some_load(mix: Mix, key: usize, random: &mut Random) -> Load {
    let most = if random.in_thousand(10) {
        mix.slow_ms
    } else {
        mix.load_ms
    };
    Load {
        takes: Duration::from_millis(random.between(0, most)),
        fails: Kind::of(key).is_framed() && random.in_thousand(mix.failing),
    }
}
