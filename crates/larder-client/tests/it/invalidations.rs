//! What the control plane tells to invalidate is done in the cache of each process, also after a time without the stream.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use larder_client::Client;
use larder_core::api::Via;
use larder_core::{Cache, Governor, InProcess, Service, Store};
use serde_json::{Value, json};

use crate::relay::{Answer, Relay, stream_of};
use crate::{Control, SOON, client, key, until};

/// A process with a cache of its own.
struct Instance {
    client: Arc<Client>,
    cache: Cache,
}

impl Instance {
    fn start(port: u16) -> Self {
        Self::over(port, Arc::new(InProcess::new(1 << 20)), None)
    }

    /// One whose store outlives it.
    fn over(port: u16, store: Arc<dyn Store>, state_dir: Option<&Path>) -> Self {
        let client = client(port, state_dir);
        let governor: Arc<dyn Governor> = Arc::clone(&client) as Arc<dyn Governor>;
        let service = Service::new("svc").unwrap();
        let cache = Cache::builder(service)
            .store(store)
            .governor(governor)
            .build();
        client.invalidate_in(cache.downgrade());
        Self { client, cache }
    }

    /// Stores a value under an endpoint.
    async fn fill(&self, endpoint: &str) {
        let written = self
            .cache
            .set(&key(endpoint), &1, Duration::from_secs(600))
            .await;
        assert!(written.is_stored(), "{written}");
    }

    async fn has(&self, endpoint: &str) -> bool {
        self.cache.get::<u8>(&key(endpoint)).await.is_some()
    }
}

async fn invalidate(control: &Control, mut asked: Value) -> Value {
    asked["service_name"] = "svc".into();
    let request = control.http.post(control.url("/api/invalidate"));
    let answer = request.json(&asked).send().await.unwrap();
    assert!(answer.status().is_success(), "{answer:?}");
    answer.json().await.unwrap()
}

/// Waits until so many instances have said where they stand.
async fn known(control: &Control, count: usize) {
    until(SOON, "they say where they stand", async || {
        let asked = json!({"dry_run": true});
        invalidate(control, asked).await["instances"]["known"] == count
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_instances_do_it_and_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let control = Control::start(&folder.path().join("control.db"), 0).await;
    let both = [Instance::start(control.port), Instance::start(control.port)];
    known(&control, 2).await;
    for (asked, gone) in [
        (json!({"key": "cache:svc:/a"}), ["/a", "/a"]),
        (json!({"pattern": "cache:svc:/b*"}), ["/b/1", "/b/2"]),
        (json!({"endpoint": "/b/{id}"}), ["/b/1", "/b/2"]),
        (json!({}), ["/a", "/b/1"]),
    ] {
        for one in &both {
            for endpoint in ["/a", "/b/1", "/b/2", "/c"] {
                one.fill(endpoint).await;
            }
        }
        let mut waits = asked.clone();
        waits["wait_seconds"] = 20.into();
        let done = invalidate(&control, waits).await;
        assert_eq!(
            (&done["state"], &done["instances"]["done"]),
            (&"done".into(), &2.into()),
            "{done}"
        );
        assert_eq!(done["store"]["state"], "none", "{done}");
        for one in &both {
            for endpoint in gone {
                assert!(!one.has(endpoint).await, "{asked} {endpoint}");
            }
            let is_all = asked == json!({});
            assert_eq!(one.has("/c").await, !is_all, "{asked}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_unplugged_is_pending_and_does_it_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("control.db");
    let control = Control::start_with(&database, 0, |settings| {
        settings.invalidations.kept = 2;
    })
    .await;
    let relay = Relay::start(control.port, Answer::Pass).await;
    let (far, near) = (Instance::start(relay.port), Instance::start(control.port));
    known(&control, 2).await;
    // Within what is kept, and past it: then everything goes, named or not.
    for (tags, is_all) in [(1, false), (4, true)] {
        for one in [&far, &near] {
            one.fill("/a").await;
            one.fill("/b").await;
        }
        relay.cut(true);
        let key = json!({"key": "cache:svc:/a", "wait_seconds": 0, "id": format!("of-{tags}")});
        invalidate(&control, key).await;
        for tag in 1..tags {
            invalidate(
                &control,
                json!({"tag": format!("t{tag}"), "wait_seconds": 0}),
            )
            .await;
        }
        let last = json!({"tag": "last", "wait_seconds": 0, "id": format!("last-of-{tags}")});
        invalidate(&control, last).await;
        let path = format!("/api/invalidations/last-of-{tags}");
        until(SOON, "the near one has done it", async || {
            control.get(&path).await["instances"]["done"] == 1
        })
        .await;
        let pending = control.get(&path).await;
        assert_eq!(pending["state"], "pending", "{pending}");
        assert_eq!(
            pending["instances"]["pending"].as_array().unwrap().len(),
            1,
            "{pending}"
        );
        assert!(far.has("/a").await && far.has("/b").await && !near.has("/a").await);
        relay.cut(false);
        until(
            Duration::from_secs(60),
            "the far one has done it",
            async || control.get(&path).await["state"] == "done",
        )
        .await;
        assert!(!far.has("/a").await);
        assert_eq!(far.has("/b").await, !is_all);
        assert!(near.has("/b").await);
    }
    assert!(far.client.status().connected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_can_have_no_stream_hears_of_it_when_it_asks() {
    let folder = tempfile::tempdir().unwrap();
    let control = Control::start_with(&folder.path().join("control.db"), 0, |settings| {
        settings.invalidations.kept = 2;
    })
    .await;
    let relay = Relay::start(control.port, Answer::Bytes(stream_of(""))).await;
    let one = Instance::start(relay.port);
    known(&control, 1).await;
    one.fill("/a").await;
    one.fill("/b").await;
    let key = json!({"key": "cache:svc:/a", "wait_seconds": 20});
    let done = invalidate(&control, key).await;
    assert_eq!(done["state"], "done", "{done}");
    assert!(!one.has("/a").await && one.has("/b").await);
    // More than is kept, while it can't ask either.
    relay.cut(true);
    for tag in ["1", "2", "3", "4"] {
        invalidate(&control, json!({"tag": tag, "wait_seconds": 0})).await;
    }
    relay.cut(false);
    until(2 * SOON, "everything is gone", async || {
        !one.has("/b").await
    })
    .await;
    assert_eq!(one.client.status().via, Via::Poll);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_that_is_gone_is_not_kept_by_its_client() {
    let folder = tempfile::tempdir().unwrap();
    let control = Control::start(&folder.path().join("control.db"), 0).await;
    let Instance { client, cache } = Instance::start(control.port);
    known(&control, 1).await;
    let store = Arc::downgrade(cache.store());
    drop(cache);
    invalidate(&control, json!({"wait_seconds": 0})).await;
    until(SOON, "the cache is gone", async || {
        store.upgrade().is_none()
    })
    .await;
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_missed_between_two_lives_of_a_process_is_done_at_the_start_of_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let control = Control::start(&folder.path().join("control.db"), 0).await;
    let state = folder.path().join("state");
    let store: Arc<dyn Store> = Arc::new(InProcess::new(1 << 20));
    let start = || Instance::over(control.port, Arc::clone(&store), Some(&state));
    let first = start();
    known(&control, 1).await;
    first.fill("/a").await;
    first.fill("/b").await;
    first.client.close().await;
    drop(first);
    let key = json!({"key": "cache:svc:/a", "wait_seconds": 0});
    invalidate(&control, key).await;

    let second = start();
    until(SOON, "it is done", async || !second.has("/a").await).await;
    assert!(second.has("/b").await, "what is not named stays");
    second.fill("/a").await;
    second.client.close().await;
    drop(second);
    let third = start();
    known(&control, 1).await;
    assert!(third.has("/a").await, "it is done once");
}
