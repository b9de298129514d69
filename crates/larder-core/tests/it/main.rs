//! What the engine promises, each promise in a module named after it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod batches;
mod deletes_under_way;
mod explained;
mod found_by_the_pilot;
mod frames;
#[path = "../../../../fuzz/frame_checks.rs"]
mod fuzz_checks;
mod governed;
mod hostile_entries;
mod invalidation;
mod lives;
mod machine;
mod outbox;
mod pending;
mod plain_helpers;
mod recorded;
mod single_flight;
mod stale;
mod two_processes;
mod watched;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder_core::{Cache, Event, Gate, Governor, InProcess, Key, Policy, PolicyPatch, Service};

/// The loader's error in these tests.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Failed(&'static str);

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

fn key(endpoint: &str) -> Key {
    Key::new("svc", endpoint).unwrap()
}

fn policy(patch: &PolicyPatch) -> Policy {
    patch.apply(&Policy::default()).unwrap()
}

/// A governor whose policy a test changes while it runs, and that remembers what it was told.
#[derive(Default)]
struct Steered {
    policy: Mutex<Policy>,
    /// For these keys, in place of `policy`.
    policies: Mutex<HashMap<Key, Policy>>,
    events: Mutex<HashMap<Key, Vec<Event>>>,
    refreshes: Mutex<Vec<(Key, Option<Duration>)>>,
}

impl Steered {
    fn set(&self, patch: &PolicyPatch) {
        *self.policy.lock().unwrap() = policy(patch);
    }

    fn set_for(&self, key: &Key, patch: &PolicyPatch) {
        let policy = policy(patch);
        self.policies.lock().unwrap().insert(key.clone(), policy);
    }

    fn events(&self, key: &Key) -> Vec<Event> {
        self.events
            .lock()
            .unwrap()
            .get(key)
            .cloned()
            .unwrap_or_default()
    }
}

impl Governor for Steered {
    fn gate(&self, key: &Key) -> Gate {
        Gate::from(&*self.policy(key))
    }

    fn policy(&self, key: &Key) -> Arc<Policy> {
        let own = self.policies.lock().unwrap().get(key).cloned();
        Arc::new(own.unwrap_or_else(|| self.policy.lock().unwrap().clone()))
    }

    fn template(&self, _key: &Key) -> Option<Box<str>> {
        None
    }

    fn record(&self, key: &Key, event: Event) {
        self.events
            .lock()
            .unwrap()
            .entry(key.clone())
            .or_default()
            .push(event);
    }

    fn record_refresh(&self, key: &Key, load: Option<Duration>) {
        self.refreshes.lock().unwrap().push((key.clone(), load));
    }
}

fn steered() -> (Cache, Arc<Steered>, Arc<InProcess>) {
    let governor = Arc::new(Steered::default());
    let store = Arc::new(InProcess::new(64 << 20));
    let cache = Cache::builder(Service::new("svc").unwrap())
        .governor(Arc::clone(&governor) as Arc<dyn Governor>)
        .store(Arc::clone(&store) as Arc<_>)
        .build();
    (cache, governor, store)
}

/// A count of how often something ran.
#[derive(Clone, Default)]
struct Calls(Arc<AtomicUsize>);

impl Calls {
    fn add(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// Waits until something is so; fails if it is not within 10 seconds.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let begin = std::time::Instant::now();
    while !is_so() {
        assert!(
            begin.elapsed() < Duration::from_secs(10),
            "never so: {what}"
        );
        tokio::task::yield_now().await;
    }
}
