//! A store in use for a long time, within a bound of memory: what the process takes must stay level, and nothing may fail.

mod level;
mod work;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use larder_bench_load::Usage;
use larder_core::{Cache, Service, Store};
use larder_embedded::EmbeddedStore;
use larder_redis::{RedisStore, RedisUrl};
use larder_testing::redis::RedisServer;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::level::{Sample, Verdict};
use self::work::{Totals, Work};
use crate::sides::StoreKind;

/// What a store may hold, in bytes: less than half of what is asked for.
const STORE_BYTES: u64 = 256 << 20;
/// A busy machine is no fault here: what hangs longer is.
const DEADLINE: Duration = Duration::from_secs(5);
/// So often the process is looked at, whatever the length.
const SAMPLES: u32 = 60;
/// So many samples are one line of output.
const SAMPLES_A_LINE: u32 = 6;

/// How long, and over which store.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which store
    #[arg(long)]
    store: StoreKind,
    /// How long
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// How much memory the process may have (its address space, so what is mapped counts too)
    #[arg(long, value_name = "GIB", default_value_t = 4)]
    memory: u64,
    /// So many tasks ask at the same time
    #[arg(long, default_value_t = 64)]
    tasks: usize,
}

/// Runs it; fails where something failed or did not stay level.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    bound_memory(args.memory << 30)?;
    // Before the process is looked at: it is a child, not a part.
    let server = (args.store == StoreKind::Redis).then(|| {
        let bytes = STORE_BYTES.to_string();
        RedisServer::start_with(&["--maxmemory", &bytes, "--maxmemory-policy", "allkeys-lru"])
    });
    let folder = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let service = Service::new("bench")?;
    let cache = match (args.store, &server) {
        (StoreKind::InProcess, _) => Cache::in_process(STORE_BYTES),
        (StoreKind::Embedded, _) => {
            let options = larder_embedded::Options {
                max_bytes: STORE_BYTES,
                deadline: DEADLINE,
                ..larder_embedded::Options::default()
            };
            let store = EmbeddedStore::open(&folder.path().join("store"), options)?;
            built(service, Arc::new(store))
        }
        (StoreKind::Redis, server) => {
            let url = server.as_ref().context("Redis runs")?.url();
            let options = larder_redis::Options {
                deadline: DEADLINE,
                ..larder_redis::Options::default()
            };
            let _inside = runtime.enter();
            built(
                service,
                Arc::new(RedisStore::connect(RedisUrl::parse(&url)?, options)),
            )
        }
    };
    let length = Duration::from_secs_f64(args.minutes * 60.0);
    let work = Arc::new(Work::new(cache.clone(), Instant::now() + length)?);
    for task in 0..args.tasks {
        runtime.spawn(Arc::clone(&work).go_on(task));
    }
    let samples = watch(args.store, &work, length)?;
    runtime.block_on(work.ended(args.tasks))?;
    let totals = work.totals();
    let verdict = Verdict::of(&samples);
    let held = runtime.block_on(cache.stats())?.used_bytes.unwrap_or(0);
    println!(
        "soak {}: {:.1} min, {totals}; {verdict}; the store says it holds {} MiB",
        args.store.name(),
        args.minutes,
        held >> 20
    );
    runtime.block_on(cache.close())?;
    Ok(if totals.errors == 0 && verdict.is_level() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn built(service: Service, store: Arc<dyn Store>) -> Cache {
    Cache::builder(service).store(store).build()
}

/// The kernel refuses this process, and what it starts, more.
fn bound_memory(bytes: u64) -> anyhow::Result<()> {
    let limit = Rlimit {
        current: Some(bytes),
        maximum: getrlimit(Resource::As).maximum,
    };
    setrlimit(Resource::As, limit).context("the memory can't be bounded")
}

/// Looks at the process from time to time, and says what it sees.
fn watch(store: StoreKind, work: &Work, length: Duration) -> anyhow::Result<Vec<Sample>> {
    let begin = Instant::now();
    let mut samples = Vec::new();
    let mut earlier = Totals::default();
    for number in 1..=SAMPLES {
        let at = length * number / SAMPLES;
        std::thread::sleep(at.saturating_sub(begin.elapsed()));
        let usage = Usage::now().map_err(anyhow::Error::from_boxed)?;
        samples.push(Sample { usage });
        if number % SAMPLES_A_LINE == 0 {
            let totals = work.totals();
            let seconds = (length * SAMPLES_A_LINE / SAMPLES).as_secs_f64();
            println!(
                "{} {:>5.1} min: {:.0}/s, {:.0} % hits, {} errors; resident {} MiB (anonymous {}), {} threads, {} descriptors",
                store.name(),
                at.as_secs_f64() / 60.0,
                (totals.operations - earlier.operations) as f64 / seconds,
                totals.hit_percent(),
                totals.errors,
                usage.resident_bytes >> 20,
                usage.anonymous_bytes >> 20,
                usage.threads,
                usage.descriptors,
            );
            earlier = totals;
        }
    }
    Ok(samples)
}
