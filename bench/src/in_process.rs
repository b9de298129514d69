//! A hit in the process, expiry and counting included, against `moka::sync` with a TTL.

use std::time::Duration;

use bytes::Bytes;
use larder_core::{Cache, Json, Key};

use crate::VALUE_BYTES;
use crate::report::{Mark, Report};
use crate::rounds::nanos_each;
use crate::zipf;

const LOOKUPS: usize = 2_000_000;
const TTL: Duration = Duration::from_secs(3_600);

pub(crate) fn measure(report: &mut Report) -> anyhow::Result<()> {
    if !report.wants("in_process hit") {
        return Ok(());
    }
    for keys in [10_000, 100_000] {
        let all: Vec<Key> = (0..keys)
            .map(|index| Key::new("bench", &format!("/products/{index}")))
            .collect::<Result<_, _>>()?;
        let requests = zipf::requests(keys, LOOKUPS);
        let ours = filled(&all)?;
        let theirs = filled_moka(&all);
        for threads in [1, 2] {
            report.add(
                &format!("in_process hit, {keys} keys, {threads} threads"),
                "moka::sync",
                "ns",
                Mark::AtMost(0.6),
                || {
                    Ok(on_threads(threads, &requests, |part| {
                        look_up(&ours, &all, part)
                    }))
                },
                || {
                    Ok(on_threads(threads, &requests, |part| {
                        look_up_moka(&theirs, &all, part)
                    }))
                },
            )?;
        }
    }
    Ok(())
}

fn value() -> Bytes {
    let text = format!("\"{}\"", "x".repeat(VALUE_BYTES - 2));
    Bytes::from(text)
}

fn filled(keys: &[Key]) -> anyhow::Result<Cache> {
    let cache = Cache::in_process(1 << 30);
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        for key in keys {
            let written = cache.set_json(key, Json::parse(value())?, TTL).await;
            anyhow::ensure!(written.is_stored(), "{written}");
        }
        Ok(cache)
    })
}

fn filled_moka(keys: &[Key]) -> moka::sync::Cache<Key, Bytes> {
    let cache = moka::sync::Cache::builder()
        .max_capacity(1 << 30)
        .weigher(|key: &Key, value: &Bytes| (key.as_str().len() + value.len()) as u32)
        .time_to_live(TTL)
        .build();
    for key in keys {
        cache.insert(key.clone(), value());
    }
    cache.run_pending_tasks();
    cache
}

fn look_up(cache: &Cache, keys: &[Key], requests: &[u32]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let Ok(runtime) = runtime else { return };
    runtime.block_on(async {
        for request in requests {
            let found = cache.get_json(&keys[*request as usize]).await;
            assert!(std::hint::black_box(found).is_some());
        }
    });
}

fn look_up_moka(cache: &moka::sync::Cache<Key, Bytes>, keys: &[Key], requests: &[u32]) {
    for request in requests {
        let found = cache.get(&keys[*request as usize]);
        assert!(std::hint::black_box(found).is_some());
    }
}

/// How long a lookup takes one of `threads` that share the work, in nanoseconds.
fn on_threads(threads: usize, requests: &[u32], look_up: impl Fn(&[u32]) + Sync) -> f64 {
    let part = requests.len() / threads;
    nanos_each(part, || {
        std::thread::scope(|scope| {
            for requests in requests.chunks(part) {
                scope.spawn(|| look_up(requests));
            }
        });
    })
}
