//! `POST /api/invalidate`: what it does in the store, what it says, what it refuses.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use larder_testing::redis::RedisServer;
use larder_testing::slow::Slow;
use serde_json::{Value, json};

use crate::followers::Follower;
use crate::shared::Shared;
use crate::{Answer, Running, until};

impl Running {
    pub(crate) async fn invalidate(&self, body: Value) -> Answer {
        self.post("/api/invalidate", &body.to_string()).await
    }

    async fn over(shared: &Shared) -> Self {
        Self::start_with(|settings| settings.store = Some(shared.of_plane())).await
    }
}

const ENDPOINTS: [&str; 4] = ["/products/1", "/products/2?a=1", "/products", "/users/1"];

/// The embedded store, and a real Redis.
async fn over_both(test: impl AsyncFn(Running, Shared)) {
    let folder = tempfile::tempdir().unwrap();
    let redis = RedisServer::start();
    for url in [None, Some(redis.url())] {
        let shared = Shared::open(folder.path(), url);
        until("the store answers", async || {
            shared.store.stats().await.is_ok()
        })
        .await;
        let control = Running::over(&shared).await;
        test(control, shared).await;
    }
}

/// Fills the store, and invalidates; again where the store took longer than it may: then it is told later, and how many went is
/// not known.
async fn counted(control: &Running, shared: &Shared, named: &Value, tags: &[&str]) -> Value {
    for _ in 0..20 {
        shared.fill(&ENDPOINTS, tags).await;
        let mut asked = named.clone();
        asked["wait_seconds"] = 20.into();
        let answer = control.invalidate(asked).await;
        let done = answer.json();
        // The caches of this test follow nothing: no instance is known, and the store is all there is.
        assert_eq!(
            (answer.status, &done["state"]),
            (200, &"done".into()),
            "{done}"
        );
        assert_eq!(done["store"]["state"], "done", "{done}");
        if !done["store"]["entries"].is_null() {
            return done;
        }
    }
    panic!("the store is too slow each time: {named}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_named_is_gone_from_the_store_and_nothing_else() {
    over_both(async |control, shared| {
        for (named, left) in [
            (
                json!({"key": "cache:svc:/products/1"}),
                vec!["/products/2?a=1", "/products", "/users/1"],
            ),
            (json!({"pattern": "cache:svc:/products*"}), vec!["/users/1"]),
            (
                json!({"service_name": "svc", "endpoint": "/products/{id}"}),
                vec!["/products", "/users/1"],
            ),
            (
                json!({"service_name": "svc", "endpoint": "/products"}),
                vec!["/products/1", "/products/2?a=1", "/users/1"],
            ),
            (json!({"service_name": "svc"}), vec![]),
        ] {
            for tags in [&[][..], &["catalogue"]] {
                let done = counted(&control, &shared, &named, tags).await;
                assert_eq!(
                    done["store"]["entries"],
                    ENDPOINTS.len() - left.len(),
                    "{done}"
                );
                for endpoint in ENDPOINTS {
                    let is_left = left.contains(&endpoint);
                    assert_eq!(shared.has(endpoint).await, is_left, "{named} {endpoint}");
                }
            }
        }
        shared.fill(&ENDPOINTS[..2], &["catalogue"]).await;
        shared.fill(&ENDPOINTS[2..], &["people"]).await;
        let tag = json!({"service_name": "svc", "tag": "catalogue"});
        let done = control.invalidate(tag).await.json();
        assert_eq!(done["state"], "done", "{done}");
        for endpoint in ENDPOINTS {
            let is_left = ENDPOINTS[2..].contains(&endpoint);
            assert_eq!(shared.has(endpoint).await, is_left, "{endpoint}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_says_how_many_and_changes_nothing() {
    over_both(async |control, shared| {
        shared.fill(&ENDPOINTS[..3], &["catalogue"]).await;
        shared.fill(&ENDPOINTS[3..], &[]).await;
        let signal = json!({"service_name": "svc", "endpoint": "/products", "latency_ms": 400, "status": "success"});
        control.post("/api/signals", &signal.to_string()).await;
        for _ in 0..9 {
            let mut hit = signal.clone();
            (hit["cache"], hit["latency_ms"]) = ("hit".into(), 1.into());
            control.post("/api/signals", &hit.to_string()).await;
        }
        for (mut named, entries) in [
            (json!({"key": "cache:svc:/products/1"}), 1),
            (json!({"key": "cache:svc:/none"}), 0),
            (json!({"pattern": "cache:svc:/products/*"}), 2),
            (json!({"service_name": "svc", "endpoint": "/products"}), 1),
            (json!({"service_name": "svc", "tag": "catalogue"}), 3),
            (json!({"service_name": "svc", "tag": "none"}), 0),
            (json!({"service_name": "svc"}), 4),
        ] {
            named["dry_run"] = true.into();
            let answer = control.invalidate(named.clone()).await;
            let would = answer.json();
            assert_eq!((answer.status, &would["state"]), (200, &"dry_run".into()), "{would}");
            assert_eq!(would["store"]["entries"], entries, "{named} {would}");
        }
        for endpoint in ENDPOINTS {
            assert!(shared.has(endpoint).await, "{endpoint}");
        }
        let all = json!({"service_name": "svc", "dry_run": true});
        let would = control.invalidate(all).await.json();
        let extra = would["load"]["extra_calls_per_second"].as_f64().unwrap();
        assert!((extra - 9.0 / 300.0).abs() < 1e-9, "{would}");
        let at_once = would["load"]["extra_calls_at_once"].as_f64().unwrap();
        assert!((at_once - extra * 0.4).abs() < 1e-9, "{would}");
        assert!(would["says"].as_str().unwrap().contains("would reach the origin"), "{would}");
        let list = control.get("/api/invalidations").await.json();
        assert_eq!(list["invalidations"], json!([]), "nothing was done");
        let audit = control.get("/api/audit").await.body;
        assert!(!audit.contains("\"invalidated\""), "{audit}");
    })
    .await;
}

#[tokio::test]
async fn it_is_done_once_by_its_id_and_who_wanted_it_is_in_the_trail() {
    let control = Running::start().await;
    let asked = json!({"service_name": "svc", "endpoint": "/products", "id": "deploy-17", "reason": "wrong prices",
        "author": "alice", "wait_seconds": 0});
    let first = control.invalidate(asked.clone()).await;
    // There is no store, and nobody is there to do it.
    assert_eq!(
        (first.status, &first.json()["state"]),
        (202, &"pending".into())
    );
    assert_eq!(
        first.header("location"),
        Some("/api/invalidations/deploy-17")
    );
    let again = control.invalidate(asked.clone()).await.json();
    assert_eq!(again["at_seconds"], first.json()["at_seconds"]);
    let mut other = asked.clone();
    other["endpoint"] = "/users".into();
    control.invalidate(other).await.is_problem(409);

    let one = control.get("/api/invalidations/deploy-17").await.json();
    for (field, value) in [
        ("what", "endpoint"),
        ("name", "/products"),
        ("reason", "wrong prices"),
        ("author", "alice"),
    ] {
        assert_eq!(one[field], value, "{one}");
    }
    assert_eq!(one["author_verified"], false);
    control.get("/api/invalidations/none").await.is_problem(404);
    let list = control.get("/api/invalidations?service=svc").await.json();
    assert_eq!(list["invalidations"].as_array().unwrap().len(), 1, "{list}");
    let audit = control.get("/api/audit?service=svc").await.json();
    let entries = audit["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 1, "{audit}");
    let told = (
        &entries[0]["action"],
        &entries[0]["target"],
        &entries[0]["reason"],
    );
    assert_eq!(
        told,
        (
            &"invalidated".into(),
            &"endpoint /products".into(),
            &"wrong prices".into()
        )
    );
    assert_eq!(entries[0]["after"]["id"], "deploy-17");
}

#[tokio::test]
async fn what_names_nothing_is_refused_and_changes_nothing() {
    let control = Running::start().await;
    let long = "a".repeat(2_000);
    let too_long = format!(r#"{{"pattern":"cache:svc:/{long}"}}"#);
    for (body, status) in [
        ("", 400),
        ("{", 400),
        ("[1]", 422),
        ("{}", 422),
        (r#"{"service_name":"sv c"}"#, 400),
        (r#"{"service_name":""}"#, 400),
        (r#"{"service_name":"svc","tag":null}"#, 422),
        (r#"{"service_name":"svc","key":null}"#, 422),
        (r#"{"service_name":"svc","tag":""}"#, 422),
        (r#"{"service_name":"svc","tag":"a b"}"#, 422),
        (r#"{"service_name":"svc","tag":"a*"}"#, 422),
        (r#"{"service_name":"svc","endpoint":"/a?b=1"}"#, 422),
        (r#"{"service_name":"svc","endpoint":"/../etc"}"#, 422),
        (r#"{"service_name":"svc","endpoint":"/{"}"#, 422),
        (r#"{"service_name":"svc","enpoint":"/a"}"#, 422),
        (r#"{"key":"products"}"#, 422),
        (r#"{"key":"cache:svc:/b?b=1&a=2"}"#, 422),
        (r#"{"service_name":"other","key":"cache:svc:/a"}"#, 422),
        (r#"{"service_name":"other","pattern":"cache:svc:*"}"#, 422),
        (r#"{"pattern":"cache:*"}"#, 422),
        (r#"{"pattern":"*"}"#, 422),
        (r#"{"pattern":"cache:svc:\u001b"}"#, 422),
        (&too_long, 422),
        (r#"{"endpoint":"/a"}"#, 422),
        (r#"{"key":"cache:svc:/a","tag":"b"}"#, 422),
        (r#"{"service_name":"svc","id":"a b"}"#, 422),
        (r#"{"service_name":"svc","id":""}"#, 422),
        (r#"{"service_name":"svc","reason":"a\nb"}"#, 422),
        (r#"{"service_name":"svc","author":"a\u001b[31m"}"#, 422),
        (r#"{"service_name":"svc","wait_seconds":31}"#, 422),
        (r#"{"service_name":"svc","wait_seconds":-1}"#, 422),
        (r#"{"service_name":"svc","wait_seconds":1e999}"#, 400),
        (r#"{"service_name":"svc","dry_run":"yes"}"#, 422),
        (r#"{"service_name":["svc"]}"#, 422),
    ] {
        let answer = control.post("/api/invalidate", body).await;
        assert_eq!(answer.status, status, "{body:.80} {answer:?}");
        answer.is_problem(status);
    }
    let form = control
        .send(
            "POST",
            "/api/invalidate",
            &[("Content-Type", "text/plain")],
            "{}",
        )
        .await;
    form.is_problem(415);
    control.get("/api/invalidate").await.is_problem(405);
    control
        .get("/api/invalidations?service=a%20b")
        .await
        .is_problem(400);
    let list = control.get("/api/invalidations").await.json();
    assert_eq!(list["invalidations"], json!([]));
}

#[tokio::test]
async fn a_service_is_invalidated_so_often_and_no_more_and_others_are_not_kept_from_it() {
    let control = Running::start_with(|settings| settings.invalidations.per_minute = 3).await;
    let asked = |service: &str| json!({"service_name": service, "wait_seconds": 0});
    for _ in 0..3 {
        assert_eq!(control.invalidate(asked("svc")).await.status, 202);
    }
    let refused = control.invalidate(asked("svc")).await;
    refused.is_problem(429);
    assert_eq!(refused.header("retry-after"), Some("60"));
    assert_eq!(control.invalidate(asked("other")).await.status, 202);
    let mut tried = asked("svc");
    tried["dry_run"] = true.into();
    for _ in 0..3 {
        assert_eq!(control.invalidate(tried.clone()).await.status, 200);
    }
    control.invalidate(tried).await.is_problem(429);
    let list = control.get("/api/invalidations?service=svc").await.json();
    assert_eq!(list["invalidations"].as_array().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_store_can_not_be_told_is_pending_and_done_once_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut redis = RedisServer::start();
    let deadline = Duration::from_millis(100);
    let shared = Shared::open_within(folder.path(), Some(redis.url()), deadline);
    until("the store answers", async || {
        shared.store.stats().await.is_ok()
    })
    .await;
    let control = Running::over(&shared).await;
    redis.kill();
    let asked = json!({"service_name": "svc", "id": "a", "wait_seconds": 1});
    let pending = control.invalidate(asked).await;
    assert_eq!(pending.status, 202, "{pending:?}");
    let mut store = pending.json()["store"].clone();
    until("it is known that it can't be told", async || {
        store = control.get("/api/invalidations/a").await.json()["store"].clone();
        store["state"] == "pending"
    })
    .await;
    assert!(
        store["why"].as_str().is_some_and(|why| !why.is_empty()),
        "{store}"
    );
    redis.restart();
    until("it is told", async || {
        control.get("/api/invalidations/a").await.json()["state"] == "done"
    })
    .await;
}

#[tokio::test]
async fn instances_that_have_not_done_it_are_named_and_waited_for() {
    let control = Running::start().await;
    let report = |instance: &str, position: Option<&str>| {
        let mut report = json!({"service_name": "svc", "instance": instance, "via": "stream"});
        if let Some(position) = position {
            report["invalidated"] = position.into();
        }
        report.to_string()
    };
    let head = control.get("/api/audit/head").await.json()["sequence"]
        .as_u64()
        .unwrap();
    let config = control.get("/api/config/svc").await;
    let etag = config.header("etag").unwrap().trim_matches('"').to_owned();
    let (database, _) = etag.rsplit_once('-').unwrap();
    let at = |number: u64| format!("{database}.{number}");
    for (instance, position) in [
        ("a", Some(at(head + 1))),
        ("b", Some(at(head))),
        ("c", Some("other.9".into())),
        ("d", None),
    ] {
        control
            .post("/api/instances", &report(instance, position.as_deref()))
            .await;
    }
    let asked = json!({"service_name": "svc", "id": "x", "wait_seconds": 0.2});
    let answer = control.invalidate(asked).await;
    let instances = &answer.json()["instances"];
    assert_eq!(
        (answer.status, &instances["known"], &instances["done"]),
        (202, &4.into(), &1.into()),
        "{answer:?}"
    );
    let pending: Vec<&str> = instances["pending"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["instance"].as_str().unwrap())
        .collect();
    assert_eq!(pending, ["b", "c", "d"]);
    let asked = json!({"service_name": "svc", "id": "x", "wait_seconds": 20});
    let (answer, ()) = tokio::join!(control.invalidate(asked), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        for instance in ["b", "c", "d"] {
            let done = report(instance, Some(&at(head + 1)));
            control.post("/api/instances", &done).await;
        }
    });
    assert_eq!(
        (answer.status, &answer.json()["state"]),
        (200, &"done".into()),
        "{answer:?}"
    );
    let trouble =
        json!({"service_name": "svc", "instance": "a", "via": "stream", "invalidated": "a b"});
    control
        .post("/api/instances", &trouble.to_string())
        .await
        .is_problem(422);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_over_which_no_cache_can_be_opened_is_told_once_one_can() {
    let folder = tempfile::tempdir().unwrap();
    let shared = Shared::open(folder.path(), None);
    shared.fill(&ENDPOINTS, &[]).await;
    let opens = Arc::new(AtomicBool::new(false));
    let store = shared.of_plane_if(Arc::clone(&opens));
    let control = Running::start_with(|settings| settings.store = Some(store)).await;
    let all = json!({"service_name": "svc", "id": "a", "wait_seconds": 0.5});
    let pending = control.invalidate(all).await;
    assert_eq!(pending.status, 202, "{pending:?}");
    until("it says why it is pending", async || {
        let says = control.get("/api/invalidations/a").await.json()["says"].to_string();
        let words = ["pending in", "its folder is full", "tried again"];
        words.iter().all(|words| says.contains(words))
    })
    .await;
    opens.store(true, Ordering::SeqCst);
    // Somebody else opens it: that nothing waits in its outbox says nothing of what it was never told.
    let dry_run = json!({"service_name": "svc", "dry_run": true});
    let would = control.invalidate(dry_run).await.json();
    assert_eq!(would["store"]["state"], "counted", "{would}");
    until("it is told", async || {
        control.get("/api/invalidations/a").await.json()["state"] == "done"
    })
    .await;
    for endpoint in ENDPOINTS {
        assert!(!shared.has(endpoint).await, "{endpoint}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_follows_is_told_once_plain_entries_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let mut shared = Shared::open(folder.path(), None);
    let slow = Slow::over(Arc::clone(&shared.store));
    shared.store = Arc::clone(&slow) as Arc<dyn larder::Store>;
    let control = Running::over(&shared).await;
    let mut follower = Follower::open(control.port, "Larder-Invalidations: \r\n").await;
    follower.event_of("invalidations").await;
    slow.deletes.hold_next();
    let asked = json!({"service_name": "svc", "id": "a", "wait_seconds": 0});
    control.invalidate(asked).await;
    until("it is being removed", async || {
        control.get("/api/invalidations/a").await.json()["store"]["state"] == "sweeping"
    })
    .await;
    let told = follower.event_of("invalidate");
    tokio::pin!(told);
    // Much less than the time after which they are told in any case.
    let early = tokio::time::timeout(Duration::from_millis(500), &mut told).await;
    assert!(early.is_err(), "{early:?}");
    slow.deletes.let_go();
    let told = told.await;
    assert!(told.data.contains("done_in"), "{told:?}");
}

#[tokio::test]
async fn after_a_restart_nothing_is_done_before_the_instances_could_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("control.db");
    let control = Running::start_on(&database).await;
    control.put("/api/policies/svc/a", "{}").await;
    let asked = json!({"service_name": "svc", "id": "before", "wait_seconds": 0});
    control.invalidate(asked).await;
    control.stop().await;

    let shared = Shared::open(folder.path(), None);
    let mut settings = crate::places::settings(&database);
    settings.store = Some(shared.of_plane());
    let control = Running::start_as(settings).await;
    let asked = |service: &str| json!({"service_name": service, "id": service, "wait_seconds": 1});
    let answer = control.invalidate(asked("svc")).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let before = control.get("/api/invalidations/before").await.json();
    for one in [answer.json(), before] {
        assert_eq!(one["state"], "pending", "{one}");
        let says = one["says"].as_str().unwrap();
        assert!(says.contains("was started"), "{says}");
    }
    // Of a service that is new nobody is waited for.
    assert_eq!(control.invalidate(asked("new")).await.status, 200);
}
