//! `auto`: what was measured becomes a decision, with its reason.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Running;

async fn report(control: &Running, endpoint: &str, latency_ms: f64) {
    let signal = json!({"service_name": "svc", "endpoint": endpoint, "latency_ms": latency_ms, "status": "success", "cache": "miss"});
    let batch = json!({"signals": vec![signal; 40]});
    assert_eq!(
        control
            .post("/api/signals/batch", &batch.to_string())
            .await
            .status,
        200
    );
}

async fn decided(control: &Running, path: &str) -> Value {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let config = control.get(path).await.json();
        if config["reason"].as_str().unwrap().contains("ms on average") {
            return config;
        }
        assert!(Instant::now() < deadline, "{config}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn slow_origins_are_cached_fast_and_unsafe_ones_are_not_and_a_restart_remembers() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("control.db");
    let control = Running::start_on(&database).await;
    for endpoint in ["slow/:id", "fast", "order?method=POST"] {
        let put = control
            .put(
                &format!("/api/policies/svc/{endpoint}"),
                r#"{"mode":"auto","ttl_seconds":30}"#,
            )
            .await;
        assert_eq!(
            (put.status, &put.json()["cache_enabled"]),
            (200, &false.into())
        );
    }
    let undecided = control.get("/api/config/svc/slow/1").await.json();
    assert_eq!(
        (&undecided["source"], &undecided["mode"]),
        (&"auto".into(), &"auto".into())
    );
    let etag = control
        .get("/api/config/svc")
        .await
        .header("etag")
        .unwrap()
        .to_owned();

    report(&control, "/slow/1", 800.0).await;
    report(&control, "/fast", 2.0).await;
    report(&control, "POST /order", 900.0).await;
    let slow = decided(&control, "/api/config/svc/slow/2").await;
    assert_eq!(
        (
            &slow["cache_enabled"],
            &slow["source"],
            &slow["ttl_seconds"]
        ),
        (&true.into(), &"auto".into(), &30.into())
    );
    assert!(
        slow["reason"].as_str().unwrap().contains("800.0 ms"),
        "{slow}"
    );
    assert_eq!(
        decided(&control, "/api/config/svc/fast").await["cache_enabled"],
        false
    );
    assert_eq!(
        control
            .get("/api/config/svc/order?method=POST")
            .await
            .json()["cache_enabled"],
        false
    );
    assert_ne!(
        control.get("/api/config/svc").await.header("etag").unwrap(),
        etag
    );
    control.stop().await;

    let control = Running::start_on(&database).await;
    assert_eq!(
        control.get("/api/config/svc/slow/2").await.json()["cache_enabled"],
        true
    );
}

#[tokio::test]
async fn without_the_policy_auto_nothing_is_decided() {
    let control = Running::start().await;
    control
        .put("/api/policies/svc/a", r#"{"mode":"off"}"#)
        .await;
    control
        .put("/api/policies/svc/probe", r#"{"mode":"auto"}"#)
        .await;
    report(&control, "/a", 800.0).await;
    report(&control, "/probe", 800.0).await;
    decided(&control, "/api/config/svc/probe").await;
    let config = control.get("/api/config/svc/a").await.json();
    assert_eq!(
        (&config["cache_enabled"], &config["source"]),
        (&false.into(), &"policy".into())
    );
}
