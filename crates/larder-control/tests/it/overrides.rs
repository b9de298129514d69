//! A policy for a limited time: over what is set or decided, and over by itself.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::{Answer, Running};

const SOON: Duration = Duration::from_secs(10);

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

fn an_override(endpoint: &str, policy: Value, seconds: f64) -> Value {
    json!({"service_name": "svc", "endpoint": endpoint, "policy": policy, "reason": "launch", "author": "alice", "duration_seconds": seconds})
}

async fn begin(control: &Running, new: &Value) -> Answer {
    control.post("/api/overrides", &new.to_string()).await
}

async fn listed(control: &Running) -> Vec<Value> {
    let list = control.get("/api/overrides").await.json();
    list["overrides"].as_array().unwrap().clone()
}

/// Waits until a policy in force comes from there.
async fn comes_from(control: &Running, path: &str, source: &str) -> Value {
    let deadline = Instant::now() + SOON;
    loop {
        let config = control.get(path).await.json();
        if config["source"] == source {
            return config;
        }
        assert!(Instant::now() < deadline, "{config}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn it_holds_over_a_policy_until_its_time_is_over_and_nobody_must_end_it() {
    let control = Running::start().await;
    control
        .put("/api/policies/svc/p/:id", r#"{"mode":"off","jitter":0.5}"#)
        .await;
    let before = control.get("/api/config/svc").await;
    let made = begin(
        &control,
        &an_override("/p/{id}", json!({"mode": "on", "ttl_seconds": 60}), 8.0),
    )
    .await;
    assert_eq!(made.status, 201, "{made:?}");
    let id = made.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(
        made.header("location"),
        Some(format!("/api/overrides/{id}").as_str())
    );
    let left = made.json()["expires_at_seconds"].as_u64().unwrap() - now();
    assert!(left <= 9, "{made:?}");

    let config = control.get("/api/config/svc/p/7").await.json();
    assert_eq!(
        (
            &config["source"],
            &config["cache_enabled"],
            &config["ttl_seconds"],
            &config["jitter"]
        ),
        (&"override".into(), &true.into(), &60.into(), &0.5.into())
    );
    let reason = config["reason"].as_str().unwrap();
    assert!(
        reason.contains("alice (unverified)")
            && reason.ends_with(": launch")
            && reason.contains("until 2"),
        "{reason}"
    );
    assert_ne!(
        control.get("/api/config/svc").await.header("etag"),
        before.header("etag")
    );

    let after = comes_from(&control, "/api/config/svc/p/7", "policy").await;
    assert_eq!(
        (&after["cache_enabled"], &after["ttl_seconds"]),
        (&false.into(), &300.into())
    );
    assert!(listed(&control).await.is_empty());
    let revisions = control.get("/api/revisions/svc").await.json();
    let made: Vec<_> = revisions["revisions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["action"].clone(), one["author"].clone()))
        .collect();
    assert_eq!(
        made,
        [
            ("override_expired".into(), "larder".into()),
            ("override_began".into(), "alice".into()),
            ("policy_set".into(), "local".into())
        ]
    );
    let config = control.get("/api/config/svc").await.json();
    assert_eq!(config["version"], 3, "each was a version");
}

#[tokio::test]
async fn it_holds_over_a_decision_and_where_nothing_is_set() {
    let control = Running::start().await;
    let slow = crate::automatic::slow(&control, "slow").await;
    assert_eq!(
        (&slow["cache_enabled"], &slow["source"]),
        (&true.into(), &"auto".into())
    );
    begin(
        &control,
        &an_override("/slow", json!({"ttl_seconds": 600}), 600.0),
    )
    .await;
    let longer = control.get("/api/config/svc/slow").await.json();
    assert_eq!(
        (
            &longer["cache_enabled"],
            &longer["ttl_seconds"],
            &longer["source"],
            &longer["mode"]
        ),
        (
            &true.into(),
            &600.into(),
            &"override".into(),
            &"auto".into()
        ),
        "whether it is cached is still decided: {longer}"
    );
    assert!(longer["watch"].is_object(), "it is still measured");
    begin(
        &control,
        &an_override("/nothing", json!({"mode": "off"}), 600.0),
    )
    .await;
    let nothing = control.get("/api/config/svc/nothing").await.json();
    assert_eq!(
        (&nothing["cache_enabled"], &nothing["source"]),
        (&false.into(), &"override".into())
    );
    let document = control.get("/api/config/svc").await.json();
    assert_eq!(
        document["policies"].as_array().unwrap().len(),
        2,
        "services learn of it: {document}"
    );
    // What may never be cached is not, whoever says so.
    begin(
        &control,
        &an_override("POST /order", json!({"mode": "on"}), 600.0),
    )
    .await;
    let order = control
        .get("/api/config/svc/order?method=POST")
        .await
        .json();
    assert_eq!(
        (&order["cache_enabled"], &order["source"]),
        (&false.into(), &"override".into())
    );
    assert!(
        order["reason"]
            .as_str()
            .unwrap()
            .contains("not a safe method")
    );
}

#[tokio::test]
async fn a_restart_knows_it_and_ends_what_ended_meanwhile_before_it_answers() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("control.db");
    let control = Running::start_on(&database).await;
    let long = begin(
        &control,
        &an_override("/long", json!({"mode": "off"}), 600.0),
    )
    .await
    .json();
    let short = begin(
        &control,
        &an_override("/short", json!({"mode": "off"}), 1.0),
    )
    .await
    .json();
    control.stop().await;
    let end = short["expires_at_seconds"].as_u64().unwrap();
    while now() < end {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let control = Running::start_on(&database).await;
    let all = listed(&control).await;
    assert_eq!(all, [long]);
    assert_eq!(
        control.get("/api/config/svc/short").await.json()["source"],
        "default"
    );
    assert_eq!(
        control.get("/api/config/svc/long").await.json()["source"],
        "override"
    );
    let other = control.get("/api/overrides?service=other").await.json();
    assert_eq!(other["overrides"], json!([]));
    control
        .get("/api/overrides?service=o%20ther")
        .await
        .is_problem(400);
}

#[tokio::test]
async fn it_can_be_ended_by_whoever_knows_which() {
    let control = Running::start().await;
    let made = begin(&control, &an_override("/a", json!({"mode": "off"}), 600.0)).await;
    let (etag, id) = (
        made.header("etag").unwrap(),
        made.json()["id"].as_str().unwrap().to_owned(),
    );
    let path = format!("/api/overrides/{id}");
    control
        .send("DELETE", &path, &[("If-Match", "\"another\"")], "")
        .await
        .is_problem(412);
    control
        .delete("/api/overrides/0000000000000000")
        .await
        .is_problem(404);
    let read = control.get(&path).await;
    assert_eq!(
        (read.header("etag"), read.json()),
        (Some(etag), made.json())
    );
    let ended = control
        .send(
            "DELETE",
            &format!("{path}?author=bob&reason=over"),
            &[("If-Match", etag)],
            "",
        )
        .await;
    assert_eq!(
        (ended.status, &ended.json()["id"]),
        (200, &id.clone().into()),
        "{ended:?}"
    );
    assert_eq!(
        control.get("/api/config/svc/a").await.json()["source"],
        "default"
    );
    control.delete(&path).await.is_problem(404);
    control.get(&path).await.is_problem(404);
    let newest = control.get("/api/revisions/svc?limit=1").await.json()["revisions"][0].clone();
    assert_eq!(
        (&newest["action"], &newest["author"]),
        (&"override_ended".into(), &"bob".into())
    );
}

#[tokio::test]
async fn a_second_one_replaces_the_first_only_where_that_is_said() {
    let control = Running::start().await;
    let first = begin(
        &control,
        &an_override("/p/:id", json!({"mode": "off"}), 600.0),
    )
    .await;
    let etag = first.header("etag").unwrap();
    let new = an_override("/p/{name}", json!({"ttl_seconds": 5}), 600.0);
    begin(&control, &new).await.is_problem(409);
    let with = async |headers: &[(&str, &str)]| {
        let headers = [&[("Content-Type", "application/json")], headers].concat();
        control
            .send("POST", "/api/overrides", &headers, &new.to_string())
            .await
    };
    with(&[("If-None-Match", "*")]).await.is_problem(412);
    with(&[("If-Match", "\"another\"")]).await.is_problem(412);
    let second = with(&[("If-Match", etag)]).await;
    assert_eq!(second.status, 201, "{second:?}");
    assert_eq!(
        with(&[("If-Match", etag)]).await.status,
        412,
        "the first is gone"
    );
    assert_eq!(with(&[("If-Match", "*")]).await.status, 201);
    assert_eq!(listed(&control).await.len(), 1);
    let config = control.get("/api/config/svc/p/1").await.json();
    assert_eq!(
        (&config["ttl_seconds"], &config["cache_enabled"]),
        (&5.into(), &true.into())
    );
}

#[tokio::test]
async fn what_it_can_not_be_is_said_and_changes_nothing() {
    let control = Running::start().await;
    control
        .put(
            "/api/policies/svc/auto",
            r#"{"mode":"auto","min_ttl_seconds":100}"#,
        )
        .await;
    let good = an_override("/a", json!({"mode": "off"}), 60.0);
    let with = |field: &str, value: Value| {
        let mut bad = good.clone();
        bad[field] = value;
        bad
    };
    let without = |field: &str| {
        let mut bad = good.clone();
        bad.as_object_mut().unwrap().remove(field);
        bad
    };
    for (bad, words, status) in [
        (with("reason", "".into()), "reason", 422),
        (with("reason", "a\nb".into()), "one line", 422),
        (with("author", "a".repeat(101).into()), "author", 422),
        (without("reason"), "reason", 422),
        (without("duration_seconds"), "duration_seconds", 422),
        (
            with("expires_at_seconds", (now() + 60).into()),
            "either",
            422,
        ),
        (with("duration_seconds", 0.into()), "30 days", 422),
        (with("duration_seconds", (-5).into()), "30 days", 422),
        (with("duration_seconds", 1e308.into()), "30 days", 422),
        (with("duration_seconds", 2_592_001.into()), "30 days", 422),
        (with("policy", json!({})), "sets nothing", 422),
        (with("policy", json!({"mode": "auto"})), "on or off", 422),
        (
            with("policy", json!({"ttl_seconds": -1})),
            "ttl_seconds",
            422,
        ),
        (
            with("policy", json!({"tll_seconds": 1})),
            "tll_seconds",
            422,
        ),
        (with("endpoint", "/../a".into()), "dot segment", 422),
        (with("service_name", "s c".into()), "service", 400),
        (with("until", 5.into()), "until", 422),
        (
            an_override("/auto", json!({"ttl_seconds": 5}), 60.0),
            "min_ttl_seconds",
            422,
        ),
    ] {
        let answer = begin(&control, &bad).await;
        answer.is_problem(status);
        assert!(answer.body.contains(words), "{words}: {answer:?}");
    }
    let mut past = without("duration_seconds");
    past["expires_at_seconds"] = (now() - 5).into();
    begin(&control, &past).await.is_problem(422);
    assert!(listed(&control).await.is_empty());
    assert_eq!(control.get("/api/config/svc").await.json()["version"], 1);
    past["expires_at_seconds"] = (now() + 60).into();
    assert_eq!(begin(&control, &past).await.status, 201);
}

also_over_postgres!(
    it_holds_over_a_policy_until_its_time_is_over_and_nobody_must_end_it,
    it_holds_over_a_decision_and_where_nothing_is_set,
    a_restart_knows_it_and_ends_what_ended_meanwhile_before_it_answers,
    it_can_be_ended_by_whoever_knows_which,
    a_second_one_replaces_the_first_only_where_that_is_said,
    what_it_can_not_be_is_said_and_changes_nothing,
);
