//! One key, that all tasks of several processes ask for: `form=once` answers how many loads began here, `form=stale` what a
//! lookup took at p99, in nanoseconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use larder_bench_load::{Error, Key, Prepared, Round, Scene, key};
use larder_core::{Cache, FixedGovernor, Outcome, Policy, PolicyPatch, Service, Tag};
use tokio::task::JoinSet;

/// How long a value is fresh.
pub(crate) const TTL: Duration = Duration::from_millis(400);
/// What a load takes where all wait for it, and where nobody does.
const SHORT: Duration = Duration::from_millis(20);
const SLOW: Duration = Duration::from_millis(800);
/// A task asks again after this time.
const EVERY: Duration = Duration::from_millis(250);

/// One key of a process.
#[derive(Clone)]
struct OneKey {
    cache: Cache,
    key: Key,
    load: Duration,
    loads: Arc<AtomicU64>,
}

pub(super) fn prepare(scene: &Scene) -> Result<Prepared<Round>, Error> {
    let runtime = super::runtime()?;
    let is_stale = scene.form == "stale";
    let mut patch = PolicyPatch {
        ttl_seconds: Some(TTL.as_secs_f64()),
        jitter: Some(0.0),
        // Framed, so that a life is not in whole seconds.
        tags: Some(vec![Tag::new("one")?]),
        ..PolicyPatch::default()
    };
    if is_stale {
        patch.stale_while_revalidate_seconds = Some(3_600.0);
    }
    let policy = patch.apply(&Policy::default())?;
    let _inside = runtime.enter();
    let cache = Cache::builder(Service::new("bench")?)
        .store(super::store(scene)?)
        .governor(Arc::new(FixedGovernor::new(policy)))
        .build();
    let one = OneKey {
        // Where loads are counted, none begins before its end.
        cache: if is_stale {
            cache
        } else {
            cache.in_foreground()
        },
        key: key(0)?,
        load: if is_stale { SLOW } else { SHORT },
        loads: Arc::default(),
    };
    let (tasks, times) = (scene.workers, scene.operations);
    if is_stale {
        // There is a value from now on.
        runtime.block_on(one.look())?;
    }
    drop(_inside);
    let round = move || -> Result<f64, Error> {
        let began = one.loads.load(Ordering::SeqCst);
        let mut took = runtime.block_on(one.round(tasks, times))?;
        if !is_stale {
            return Ok((one.loads.load(Ordering::SeqCst) - began) as f64);
        }
        took.sort_unstable();
        let p99 = took.get(took.len() * 99 / 100).ok_or("nobody asked")?;
        Ok(p99.as_nanos() as f64)
    };
    Ok(Prepared {
        grown_bytes: 0,
        round: Box::new(round),
    })
}

impl OneKey {
    async fn look(&self) -> Result<Outcome, Error> {
        let (load, loads) = (self.load, Arc::clone(&self.loads));
        let loader = move || async move {
            loads.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(load).await;
            Ok::<_, std::convert::Infallible>("a value".to_owned())
        };
        let answer = self.cache.get_or_load(&self.key, loader).await;
        let answer = answer.map_err(|error| format!("a request failed: {error:?}"))?;
        Ok(answer.outcome)
    }

    /// What the lookups took; all tasks ask so often.
    async fn round(&self, tasks: usize, times: usize) -> Result<Vec<Duration>, Error> {
        let mut all = JoinSet::new();
        for task in 0..tasks {
            let own = self.clone();
            all.spawn(async move {
                let mut took = Vec::new();
                if times > 1 {
                    // Not all at once.
                    tokio::time::sleep(EVERY * task as u32 / tasks as u32).await;
                }
                for _ in 0..times {
                    let begin = Instant::now();
                    let outcome = own.look().await?;
                    took.push(begin.elapsed());
                    if times > 1 {
                        if outcome == Outcome::Miss {
                            return Err(Error::from("a request waited for a load"));
                        }
                        tokio::time::sleep(EVERY).await;
                    }
                }
                Ok(took)
            });
        }
        let mut took = Vec::new();
        while let Some(ended) = all.join_next().await {
            took.extend(ended??);
        }
        Ok(took)
    }
}
