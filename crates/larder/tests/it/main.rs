//! What is guaranteed, shown with the processes of a service: a module for each promise.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bounded;
mod forms;
mod nothing_kept;
mod one_load;
mod one_write;
mod origin;
mod outages;
mod patience;
mod paused;
mod races;
#[cfg(feature = "spans")]
mod spans;
mod worker;

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use larder::{Cache, DEFAULT_TTL, JournalSetting, Policy, PolicyPatch, Settings};
use larder_testing::process::PATIENCE;

static ROOM: RwLock<()> = RwLock::new(());

/// For a test of how long something takes: no other that asks for its place runs meanwhile.
fn alone() -> RwLockWriteGuard<'static, ()> {
    ROOM.write().unwrap_or_else(PoisonError::into_inner)
}

/// For a test that has much to do.
fn among_others() -> Among {
    let room = ROOM.read().unwrap_or_else(PoisonError::into_inner);
    Among { _room: room }
}

/// A place among others, until it is dropped: also one that is held while something is waited for.
struct Among {
    _room: RwLockReadGuard<'static, ()>,
}

/// A cache in this process, over Redis.
fn cache(redis_url: &str, policy: &PolicyPatch) -> Cache {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Settings::read(|_| None, folder.path()).unwrap();
    settings.journal = JournalSetting::Off;
    let builder = Cache::builder("shop", settings).unwrap();
    let builder = builder.store(worker::patient_redis(redis_url));
    let policy = policy.apply(&Policy::default()).unwrap();
    builder.default_policy(policy).build().unwrap()
}

async fn until_connected(cache: &Cache) {
    let key = cache.key("/first").unwrap();
    let begin = Instant::now();
    while !cache.set(&key, "", DEFAULT_TTL).await.is_stored() {
        assert!(begin.elapsed() < PATIENCE, "it does not connect");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
