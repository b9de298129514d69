//! What services measured is taken in, checked and bounded.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::Running;

fn window(sequence: u64, window: serde_json::Value) -> String {
    json!({"windows": [{"service_name": "svc", "endpoint": "/a", "window": window, "instance": "i-1", "boot": 1, "sequence": sequence}]})
        .to_string()
}

#[tokio::test]
async fn signals_and_windows_show_up_per_endpoint() {
    let control = Running::start().await;
    let one = control
        .post(
            "/api/signals",
            r#"{"service_name":"svc","endpoint":"/p/7","latency_ms":800,"status":"success"}"#,
        )
        .await;
    assert_eq!(
        (one.status, one.json()),
        (200, json!({"status": "received"}))
    );
    let batch = r#"{"signals":[
        {"service_name":"svc","endpoint":"/p/8","latency_ms":2,"status":"success","cache":"hit","bytes":100},
        {"service_name":"svc","endpoint":"POST /p","latency_ms":5,"status":"error"}]}"#;
    assert_eq!(
        control.post("/api/signals/batch", batch).await.json(),
        json!({"status": "received"})
    );
    for sequence in [1, 2, 2] {
        control
            .post("/api/signals/batch", &window(sequence, json!({"hits": 10})))
            .await;
    }
    let list = control.get("/api/endpoints?service=svc").await.json();
    let endpoint = |method: &str, path: &str| {
        let all = list["endpoints"].as_array().unwrap();
        all.iter()
            .find(|one| one["method"] == method && one["endpoint"] == path)
            .unwrap_or_else(|| panic!("{list}"))
    };
    assert_eq!(endpoint("GET", "/p/{id}")["origin_ms_mean"], 800.0);
    assert_eq!(endpoint("GET", "/p/{id}")["window"]["hits"], 1);
    assert_eq!(endpoint("POST", "/p")["window"]["errors"], 1);
    assert_eq!(endpoint("GET", "/a")["window"]["hits"], 20);
    assert_eq!(
        control.get("/api/endpoints?service=other").await.json()["endpoints"],
        json!([])
    );
}

#[tokio::test]
async fn more_signals_than_one_may_send_are_refused_and_do_not_count() {
    let control = Running::start().await;
    let one = r#"{"service_name":"svc","endpoint":"/p/7","latency_ms":8,"status":"success"}"#;
    let each = 5_000;
    let batch = format!(r#"{{"signals":[{}]}}"#, vec![one; each].join(","));
    let mut taken = 0;
    let refused = loop {
        let asked = Instant::now();
        let answer = control.post("/api/signals/batch", &batch).await;
        if answer.status != 200 {
            let took = asked.elapsed();
            assert!(took >= Duration::from_millis(50), "in no hurry: {took:?}");
            break answer;
        }
        taken += each;
        assert!(taken < 10_000_000, "there is no bound");
    };
    refused.is_problem(429);
    assert!(refused.header("retry-after").is_some());
    let detail = refused.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("signals"), "{detail}");
    let list = control.get("/api/endpoints?service=svc").await.json();
    let counted = list["endpoints"][0]["window"]["misses"].as_u64();
    let counted = counted.filter(|count| *count > 0);
    let bypassed = list["endpoints"][0]["window"]["bypasses"].as_u64();
    assert_eq!(counted.or(bypassed), Some(taken as u64), "{list}");
    // What else a service asks for goes on.
    assert_eq!(control.get("/api/config/svc").await.status, 200);
}

#[tokio::test]
async fn forged_figures_are_refused_and_change_nothing() {
    let control = Running::start().await;
    for (body, status) in [
        (window(1, json!({"hits": -1})), 422),
        (window(1, json!({"hits": u64::MAX})), 422),
        (window(1, json!({"hits": 1, "hit_ms_sum": 1e308})), 422),
        (window(1, json!({"hits": 1, "hit_ms_sum": -1.0})), 422),
        (window(1, json!({"misses": 1, "origin_count": 5, "origin_ms_sum": 1.0})), 422),
        (window(1, json!({"errors": 5})), 422),
        (window(1, json!({"sketch": "AAAA"})), 422),
        (window(1, json!({"hits": 1})).replace("i-1", "i 1"), 422),
        (window(1, json!({"hits": 1})).replace("\"hits\":1", "\"hits\":1e400"), 400),
        (window(1, json!({"hits": 1})).replace("\"hits\":1", "\"hits\":NaN"), 400),
        (r#"{"signals":[{"service_name":"svc","endpoint":"/a","latency_ms":-1,"status":"success"}]}"#.into(), 422),
        (r#"{"signals":[{"service_name":"","endpoint":"/a","latency_ms":1,"status":"success"}]}"#.into(), 422),
        (r#"{"signals":[{"service_name":"svc","endpoint":"/a","latency_ms":1,"status":"fine"}]}"#.into(), 422),
        (r#"{"signals":[{"service_name":"svc","endpoint":"/%z","latency_ms":1,"status":"error"}]}"#.into(), 422),
        ("not json".into(), 400),
    ] {
        control.post("/api/signals/batch", &body).await.is_problem(status);
    }
    assert_eq!(
        control.get("/api/endpoints").await.json()["endpoints"],
        json!([])
    );
}

#[tokio::test]
async fn metrics_stay_small_and_hold_no_text_from_outside() {
    let control = Running::start().await;
    for part in 0..10 {
        let signal = |index| json!({"service_name": format!("canary-{part}-{index}"), "endpoint": format!("/canary-{index}"), "latency_ms": 1, "status": "success"});
        let signals: Vec<_> = (0..1_000).map(signal).collect();
        control
            .post(
                "/api/signals/batch",
                &json!({"signals": signals}).to_string(),
            )
            .await;
    }
    let metrics = control.get("/metrics").await;
    assert_eq!(metrics.status, 200);
    assert!(
        metrics.body.len() < 10_000 && !metrics.body.contains("canary"),
        "{}",
        metrics.body
    );
    let count = |name: &str| {
        let line = metrics
            .body
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(count("larder_control_signals_total"), 1_000);
    assert_eq!(count("larder_control_signals_dropped_total"), 9_000);
}
