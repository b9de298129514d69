//! What may be served past its time, and when.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder_core::{
    Cache, Clock, Governor, InProcess, LoadError, Outcome, PolicyPatch, Service, Store,
};
use tokio::sync::Semaphore;

use crate::{Calls, Failed, Steered, key, until};

/// A clock that a test sets.
#[derive(Clone, Default)]
struct SetClock(Arc<AtomicU64>);

impl Clock for SetClock {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

impl SetClock {
    fn pass(&self, seconds: f64) {
        let millis = (seconds * 1_000.0) as u64;
        self.0.fetch_add(millis, Ordering::SeqCst);
    }
}

struct Scene {
    cache: Cache,
    governor: Arc<Steered>,
    clock: SetClock,
    calls: Calls,
    /// Loads wait for it.
    go: Arc<Semaphore>,
}

impl Scene {
    fn new(patch: &PolicyPatch) -> Self {
        let clock = SetClock::default();
        let governor = Arc::new(Steered::default());
        governor.set(&PolicyPatch {
            jitter: Some(0.0),
            ttl_seconds: patch.ttl_seconds.or(Some(10.0)),
            ..patch.clone()
        });
        let store = InProcess::with_clock(64 << 20, Arc::new(clock.clone()));
        let cache = Cache::builder(Service::new("svc").unwrap())
            .store(Arc::new(store) as Arc<dyn Store>)
            .governor(Arc::clone(&governor) as Arc<dyn Governor>)
            .build();
        Self {
            cache,
            governor,
            clock,
            calls: Calls::default(),
            go: Arc::new(Semaphore::new(0)),
        }
    }

    /// A lookup whose load makes a value, or fails, once it may.
    async fn look_up(
        &self,
        made: Result<u32, Failed>,
    ) -> Result<(u32, Outcome), LoadError<Failed>> {
        look_up(&self.cache, &self.calls, &self.go, made).await
    }

    /// The first value is there, and so much time has passed.
    async fn filled(&self, seconds: f64) {
        self.go.add_permits(1);
        assert_eq!(self.look_up(Ok(1)).await.unwrap(), (1, Outcome::Miss));
        self.clock.pass(seconds);
    }
}

async fn look_up(
    cache: &Cache,
    calls: &Calls,
    go: &Arc<Semaphore>,
    made: Result<u32, Failed>,
) -> Result<(u32, Outcome), LoadError<Failed>> {
    let (calls, go) = (calls.clone(), Arc::clone(go));
    let loader = move || async move {
        calls.add();
        go.acquire().await.unwrap().forget();
        made
    };
    let answer = cache.get_or_load(&key("/a"), loader).await?;
    Ok((answer.value, answer.outcome))
}

fn revalidated(seconds: f64) -> PolicyPatch {
    PolicyPatch {
        stale_while_revalidate_seconds: Some(seconds),
        ..PolicyPatch::default()
    }
}

fn if_error(seconds: f64) -> PolicyPatch {
    PolicyPatch {
        stale_if_error_seconds: Some(seconds),
        ..PolicyPatch::default()
    }
}

#[tokio::test]
async fn it_is_served_at_once_while_one_load_runs_behind() {
    let scene = Scene::new(&revalidated(60.0));
    scene.filled(11.0).await;
    for _ in 0..20 {
        assert_eq!(scene.look_up(Ok(2)).await.unwrap(), (1, Outcome::Stale));
    }
    until("it is loaded behind", || scene.calls.count() == 2).await;
    scene.go.add_permits(1);
    let fresh = || async { scene.look_up(Ok(3)).await.unwrap() };
    until("it is reported", || {
        scene.governor.refreshes.lock().unwrap().len() == 1
    })
    .await;
    let began = std::time::Instant::now();
    while fresh().await != (2, Outcome::Hit) {
        assert!(
            began.elapsed() < Duration::from_secs(1),
            "{:?} {:?}",
            scene.cache.counts(),
            fresh().await
        );
        tokio::task::yield_now().await;
    }
    assert_eq!(scene.calls.count(), 2, "one load for all of them");
    assert!(scene.cache.counts().stale_while_revalidate >= 20);
}

#[tokio::test]
async fn past_its_allowance_it_is_loaded_in_the_foreground() {
    let scene = Scene::new(&revalidated(60.0));
    scene.filled(71.0).await;
    scene.go.add_permits(1);
    assert_eq!(scene.look_up(Ok(2)).await.unwrap(), (2, Outcome::Miss));
}

#[tokio::test]
async fn an_allowance_that_was_taken_away_acts_at_once() {
    let scene = Scene::new(&revalidated(60.0));
    scene.filled(11.0).await;
    scene.governor.set(&PolicyPatch {
        ttl_seconds: Some(10.0),
        ..PolicyPatch::default()
    });
    scene.go.add_permits(1);
    assert_eq!(scene.look_up(Ok(2)).await.unwrap(), (2, Outcome::Miss));
}

#[tokio::test]
async fn it_stands_in_for_a_load_that_fails() {
    let scene = Scene::new(&if_error(60.0));
    scene.filled(11.0).await;
    scene.go.add_permits(2);
    let failed = Failed("the database is away");
    assert_eq!(
        scene.look_up(Err(failed.clone())).await.unwrap(),
        (1, Outcome::Stale)
    );
    assert_eq!(scene.cache.counts().stale_if_error, 1);
    scene.clock.pass(60.0);
    let answer = scene.look_up(Err(failed)).await;
    assert!(matches!(answer, Err(LoadError::Loader(_))), "{answer:?}");
}

#[tokio::test]
async fn it_does_not_stand_in_where_it_was_deleted_meanwhile() {
    let scene = Scene::new(&if_error(60.0));
    scene.filled(11.0).await;
    let (cache, calls, go) = (
        scene.cache.clone(),
        scene.calls.clone(),
        Arc::clone(&scene.go),
    );
    let waits =
        tokio::spawn(async move { look_up(&cache, &calls, &go, Err(Failed("away"))).await });
    until("it loads", || scene.calls.count() == 2).await;
    assert!(scene.cache.delete(&key("/a")).await.is_done());
    scene.go.add_permits(1);
    assert!(waits.await.unwrap().is_err());
}

#[tokio::test]
async fn it_stands_in_for_a_load_that_is_slow_which_goes_on() {
    let scene = Scene::new(&PolicyPatch {
        soft_load_timeout_seconds: Some(0.05),
        ..if_error(60.0)
    });
    scene.filled(11.0).await;
    assert_eq!(scene.look_up(Ok(2)).await.unwrap(), (1, Outcome::Stale));
    assert_eq!(scene.cache.counts().stale_slow, 1);
    scene.go.add_permits(1);
    let began = std::time::Instant::now();
    while scene.look_up(Ok(3)).await.unwrap() != (2, Outcome::Hit) {
        assert!(began.elapsed() < Duration::from_secs(10));
    }
    assert_eq!(scene.calls.count(), 2);
}

#[tokio::test]
async fn who_asks_with_an_identity_loads_in_the_foreground() {
    let scene = Scene::new(&revalidated(60.0));
    scene.filled(11.0).await;
    scene.go.add_permits(1);
    let foreground = scene.cache.in_foreground();
    let answer = look_up(&foreground, &scene.calls, &scene.go, Ok(2)).await;
    assert_eq!(answer.unwrap(), (2, Outcome::Miss));
    assert_eq!(scene.cache.counts().background_loads, 0);
}

#[tokio::test]
async fn it_is_loaded_early_so_that_nobody_meets_its_end() {
    // A load of about 50 ms, and reads all through the last second of its life.
    let scene = Scene::new(&PolicyPatch {
        ttl_seconds: Some(2.0),
        ..PolicyPatch::default()
    });
    let look_up = || async {
        let calls = scene.calls.clone();
        let loader = move || async move {
            let value = calls.add();
            tokio::time::sleep(Duration::from_millis(50)).await;
            Ok::<_, Failed>(value)
        };
        let answer = scene.cache.get_or_load(&key("/b"), loader).await.unwrap();
        answer.outcome
    };
    assert_eq!(look_up().await, Outcome::Miss);
    for round in 1..=20 {
        let loads = scene.cache.counts().loads;
        let mut passed = 0;
        while scene.cache.counts().loads == loads {
            assert!(passed < 1_990, "round {round}: it was never loaded early");
            assert_eq!(look_up().await, Outcome::Hit, "round {round}");
            scene.clock.pass(0.001);
            passed += 1;
            tokio::task::yield_now().await;
        }
        until("it is filled", || {
            scene.governor.refreshes.lock().unwrap().len() == round
        })
        .await;
        assert_eq!(look_up().await, Outcome::Hit);
    }
}
