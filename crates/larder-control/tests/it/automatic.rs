//! `auto`: what was measured becomes a decision, with its reason, its figures, and what would flip it.

use std::time::{Duration, Instant};

use larder_decide::KeyLog;
use larder_model::{Outcome, PER_SECOND, Window};
use serde_json::{Value, json};

use crate::Running;

/// How long a decision may take: a tick is a tenth of a second here.
const SOON: Duration = Duration::from_secs(20);
const MINUTE: u32 = 60 * PER_SECOND;

/// A window of a minute in which ten keys were asked for each three seconds, and the origin answered each time.
pub(crate) fn window(endpoint: &str, latency_ms: u64, sequence: u64, has_changed: bool) -> Value {
    let mut window = Window::default();
    let mut keys = KeyLog::new(0);
    for at in (0..MINUTE).step_by(75) {
        for key in 0..10_u32 {
            let hash = key.wrapping_mul(2_654_435_769);
            keys.saw(hash, at);
            let body = if has_changed { at as u16 } else { 7 };
            keys.answered(hash, body, None, at);
            let latency = Duration::from_micros(1_000 * latency_ms + u64::from(key) * 10);
            window.count(Outcome::Bypass, Some(latency), false, 0);
        }
    }
    json!({"service_name": "svc", "endpoint": endpoint, "window": window, "evidence": keys.take(1.0, MINUTE),
        "length_ms": 60_000, "ended_ago_ms": 0, "instance": "i-1", "boot": 1, "sequence": sequence})
}

pub(crate) async fn report(control: &Running, windows: Vec<Value>) {
    let batch = json!({"windows": windows});
    let answer = control.post("/api/signals/batch", &batch.to_string()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// Waits until an endpoint's reason has these words.
async fn decided(control: &Running, path: &str, words: &str) -> Value {
    let deadline = Instant::now() + SOON;
    loop {
        let config = control.get(path).await.json();
        if config["reason"].as_str().unwrap().contains(words) {
            return config;
        }
        assert!(Instant::now() < deadline, "{config}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn auto(control: &Running, endpoint: &str, mode: &str) {
    let path = format!("/api/policies/svc/{endpoint}");
    let policy = json!({"mode": mode, "ttl_seconds": 30}).to_string();
    let put = control.put(&path, &policy).await;
    assert_eq!(
        (put.status, &put.json()["cache_enabled"]),
        (200, &false.into())
    );
}

/// An endpoint of a slow origin, for which it was decided to cache it.
pub(crate) async fn slow(control: &Running, endpoint: &str) -> Value {
    auto(control, endpoint, "auto").await;
    report(
        control,
        vec![window(&format!("/{endpoint}"), 800, 1, false)],
    )
    .await;
    let path = format!("/api/config/svc/{endpoint}");
    decided(control, &path, "ms on average").await
}

#[tokio::test]
async fn slow_origins_are_cached_fast_and_unsafe_ones_are_not_and_a_restart_remembers() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("control.db");
    let control = Running::start_on(&database).await;
    for endpoint in ["slow/:id", "fast", "volatile", "order?method=POST"] {
        auto(&control, endpoint, "auto").await;
    }
    let undecided = control.get("/api/config/svc/slow/1").await.json();
    assert_eq!(
        (&undecided["source"], &undecided["mode"]),
        (&"auto".into(), &"auto".into())
    );
    assert_eq!(
        undecided["watch"],
        json!({"key_share": 1.0, "check_share": 0.0})
    );
    let etag = control
        .get("/api/config/svc")
        .await
        .header("etag")
        .unwrap()
        .to_owned();

    report(
        &control,
        vec![
            window("/slow/1", 800, 1, false),
            window("/fast", 0, 2, false),
            window("/volatile", 800, 3, true),
            window("POST /order", 900, 4, false),
        ],
    )
    .await;
    let slow = decided(&control, "/api/config/svc/slow/2", "800 ms on average").await;
    assert_eq!(
        (&slow["cache_enabled"], &slow["source"]),
        (&true.into(), &"auto".into())
    );
    let ttl = slow["ttl_seconds"].as_f64().unwrap();
    assert!((5.0..=30.0).contains(&ttl), "{slow}");
    let share = slow["watch"]["check_share"].as_f64().unwrap();
    assert!((0.0009..=0.02).contains(&share), "{slow}");
    let fast = decided(&control, "/api/config/svc/fast", "is not worth it").await;
    assert_eq!(fast["cache_enabled"], false);
    let volatile = decided(&control, "/api/config/svc/volatile", "changes about every").await;
    assert_eq!(volatile["cache_enabled"], false);
    let order = control
        .get("/api/config/svc/order?method=POST")
        .await
        .json();
    assert_eq!(
        (&order["cache_enabled"], &order["watch"]),
        (&false.into(), &Value::Null)
    );
    assert_ne!(
        control.get("/api/config/svc").await.header("etag").unwrap(),
        etag
    );
    control.stop().await;

    let control = Running::start_on(&database).await;
    let again = control.get("/api/config/svc/slow/2").await.json();
    assert_eq!(
        (&again["cache_enabled"], &again["ttl_seconds"]),
        (&true.into(), &slow["ttl_seconds"])
    );
    // Its state went on, too: nothing is learned anew.
    let explained = explain_until(&control, "slow/2", |it| !it["decision"].is_null()).await;
    assert!(
        explained["decision"]["figures"]["origin_answers"]
            .as_f64()
            .unwrap()
            > 100.0
    );
}

/// Waits until an explanation is so.
async fn explain_until(control: &Running, endpoint: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + SOON;
    loop {
        let explained = control
            .get(&format!("/api/explain/svc/{endpoint}"))
            .await
            .json();
        if is_so(&explained) {
            return explained;
        }
        assert!(Instant::now() < deadline, "{explained}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_decision_is_explained_with_its_figures_what_would_flip_it_and_what_was_before() {
    let control = Running::start().await;
    auto(&control, "p/:id", "auto").await;
    let nothing = control.get("/api/explain/svc/p/7").await.json();
    assert_eq!(
        (&nothing["decision"], &nothing["mode"]),
        (&Value::Null, &"auto".into())
    );
    let reported = Instant::now();
    report(&control, vec![window("/p/7", 800, 1, false)]).await;
    let is_on = |it: &Value| it["decision"]["cache_enabled"] == true;
    let explained = explain_until(&control, "p/7", is_on).await;
    // What was measured loses its weight slowly: half of it in seven minutes.
    let least = 200.0 * (-reported.elapsed().as_secs_f64() / 420.0).exp2() - 0.001;
    let decision = &explained["decision"];
    assert_eq!(
        (&decision["replays"], &decision["engine_version"]),
        (&true.into(), &larder_decide::VERSION.into())
    );
    assert_eq!(explained["endpoint"], "/p/{id}");
    let figures = &decision["figures"];
    let answers = figures["origin_answers"].as_f64().unwrap();
    assert!((least..=200.0).contains(&answers), "{least} {answers}");
    assert!(
        figures["ghost_hit_ratio_30s"].as_f64().unwrap() > 0.5,
        "{figures}"
    );
    let flips = decision["flips"].as_array().unwrap();
    assert!(
        flips.iter().any(|flip| flip["figure"] == "origin_ms_high"),
        "{flips:?}"
    );
    let record = decision["record"].as_str().unwrap();
    assert!(record.len() > 100);
    let history = explained["history"].as_array().unwrap();
    assert!(
        history.iter().any(|past| past["code"] == "pays"),
        "{history:?}"
    );
    let before = control.get("/api/explain/svc/p/7?at=1000").await.json();
    assert_eq!(
        (&before["decision"], &before["history"]),
        (&Value::Null, &json!([]))
    );
    control
        .get("/api/explain/svc/p/7?at=yesterday")
        .await
        .is_problem(400);
}

#[tokio::test]
async fn a_shadow_is_off_and_says_what_it_would_do() {
    let control = Running::start().await;
    auto(&control, "p", "shadow").await;
    report(&control, vec![window("/p", 800, 1, false)]).await;
    let config = decided(&control, "/api/config/svc/p", "would be on for").await;
    assert_eq!(
        (&config["cache_enabled"], &config["mode"]),
        (&false.into(), &"shadow".into())
    );
    assert_eq!(config["watch"]["check_share"], 0.0);
}

#[tokio::test]
async fn requests_without_keys_decide_nothing_and_say_so() {
    let control = Running::start().await;
    auto(&control, "a", "auto").await;
    let signal = json!({"service_name": "svc", "endpoint": "/a", "latency_ms": 800, "status": "success", "cache": "miss"});
    let batch = json!({"signals": vec![signal; 40]});
    control.post("/api/signals/batch", &batch.to_string()).await;
    let config = decided(&control, "/api/config/svc/a", "carry no keys").await;
    assert_eq!(config["cache_enabled"], false);
}

#[tokio::test]
async fn without_the_policy_auto_nothing_is_decided() {
    let control = Running::start().await;
    control
        .put("/api/policies/svc/a", r#"{"mode":"off"}"#)
        .await;
    auto(&control, "probe", "auto").await;
    report(
        &control,
        vec![window("/a", 800, 1, false), window("/probe", 800, 2, false)],
    )
    .await;
    decided(&control, "/api/config/svc/probe", "ms on average").await;
    let config = control.get("/api/config/svc/a").await.json();
    assert_eq!(
        (&config["cache_enabled"], &config["source"]),
        (&false.into(), &"policy".into())
    );
    assert_eq!(config["watch"], Value::Null);
}

#[tokio::test]
async fn a_policy_that_changes_keeps_what_was_decided() {
    let control = Running::start().await;
    auto(&control, "a", "auto").await;
    report(&control, vec![window("/a", 800, 1, false)]).await;
    decided(&control, "/api/config/svc/a", "ms on average").await;
    let shorter = control
        .put(
            "/api/policies/svc/a",
            r#"{"mode":"auto","max_ttl_seconds":2}"#,
        )
        .await
        .json();
    assert_eq!(
        (&shorter["cache_enabled"], &shorter["ttl_seconds"]),
        (&true.into(), &2.into())
    );
    let off = control
        .put("/api/policies/svc/a", r#"{"mode":"off"}"#)
        .await
        .json();
    assert_eq!(off["cache_enabled"], false);
}

also_over_postgres!(
    slow_origins_are_cached_fast_and_unsafe_ones_are_not_and_a_restart_remembers,
    a_decision_is_explained_with_its_figures_what_would_flip_it_and_what_was_before,
    a_shadow_is_off_and_says_what_it_would_do,
    requests_without_keys_decide_nothing_and_say_so,
    without_the_policy_auto_nothing_is_decided,
    a_policy_that_changes_keeps_what_was_decided,
);
