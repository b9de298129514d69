//! What was measured arrives, once, per endpoint, and never takes more than its share of memory.

use std::time::Duration;

use larder_core::{Event, Governor as _, Named, Outcome};
use larder_testing::alone::{is_alone, resident};
use serde_json::{Value, json};

use crate::{Control, PATIENCE, SOON, client, key, ttl, until};

async fn measured(control: &Control, endpoint: &str) -> Value {
    let list = control.get("/api/endpoints?service=svc").await;
    let all = list["endpoints"].as_array().unwrap();
    all.iter()
        .find(|one| one["endpoint"] == endpoint)
        .cloned()
        .unwrap_or(Value::Null)
}

/// Waits until so many misses arrived. Closing sends the last; but for no longer than two seconds.
async fn arrived(control: &Control, endpoint: &str, misses: u64) {
    until(PATIENCE, "it arrived", async || {
        measured(control, endpoint).await["window"]["misses"] == misses
    })
    .await;
}

fn miss(milliseconds: u64) -> Event {
    Event {
        latency: Some(Duration::from_millis(milliseconds)),
        ..Event::of(Outcome::Miss, 10)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_arrive_per_template_and_closing_sends_the_last() {
    let folder = tempfile::tempdir().unwrap();
    let control = Control::start(&folder.path().join("control.db"), 0).await;
    control.put("/named/:name", json!({"ttl_seconds": 9})).await;
    let client = client(control.port, None);
    until(SOON, "known", async || ttl(&client, "/named/x") == 9).await;
    for index in 0..1_000 {
        client.record(
            &key(&format!("/named/n{index}x")),
            Event::of(Outcome::Hit, 100),
        );
        client.record(&key(&format!("/p/{index}?page=2")), miss(40));
    }
    until(Duration::from_secs(8), "sent", async || {
        !measured(&control, "/named/{name}").await.is_null()
    })
    .await;
    client.close().await;
    assert_eq!(
        measured(&control, "/named/{name}").await["window"]["hits"],
        1_000
    );
    assert_eq!(
        measured(&control, "/named/{name}").await["window"]["bytes"],
        100_000
    );
    let p = measured(&control, "/p/{id}").await;
    assert_eq!(
        (
            &p["window"]["misses"],
            p["origin_ms_mean"].as_f64().map(f64::round)
        ),
        (&1_000.into(), Some(40.0))
    );
    // The last is given two seconds: on a machine that stands still it may not get through.
    for attempt in 0.. {
        let last = self::client(control.port, None);
        let path = format!("/last-{attempt}");
        last.record(&key(&path), miss(5));
        last.close().await;
        if measured(&control, &path).await["window"]["misses"] == 1 {
            break;
        }
        assert!(attempt < 5, "what is closed sends the last");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_only_invalidates_tells_so() {
    let folder = tempfile::tempdir().unwrap();
    let control = Control::start(&folder.path().join("control.db"), 0).await;
    for endpoint in ["/read/:id", "/other/:id"] {
        control.put(endpoint, json!({"mode": "auto"})).await;
    }
    let client = client(control.port, None);
    until(SOON, "watched", async || {
        client.gate(&key("/read/1")).is_watched
    })
    .await;
    client.note_invalidated(Named::Keys(&[key("/read/1")]));
    until(PATIENCE, "told", async || {
        !measured(&control, "/read/{id}").await.is_null()
    })
    .await;
    client.close().await;
    let told = measured(&control, "/read/{id}").await;
    assert_eq!(told["window"]["hits"], 0, "{told}");
    assert!(measured(&control, "/other/{id}").await.is_null());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_that_is_no_endpoint_keeps_no_other_window_from_arriving() {
    let folder = tempfile::tempdir().unwrap();
    let control = Control::start(&folder.path().join("control.db"), 0).await;
    let client = client(control.port, None);
    client.record(&key("/a"), miss(5));
    // Such a path is a key, but neither a path of a template nor one.
    let odd = key("/products/:-");
    assert!(odd.path().parse::<larder_core::Endpoint>().is_err());
    client.record(&odd, miss(5));
    arrived(&control, "other", 1).await;
    client.close().await;
    assert_eq!(client.status().dropped_windows, 0);
    assert_eq!(measured(&control, "/a").await["window"]["misses"], 1);
    assert_eq!(measured(&control, "other").await["window"]["misses"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_survive_changes_of_the_policies() {
    let folder = tempfile::tempdir().unwrap();
    let control = Control::start(&folder.path().join("control.db"), 0).await;
    control.put("/a", json!({"ttl_seconds": 1})).await;
    let client = client(control.port, None);
    until(SOON, "known", async || ttl(&client, "/a") == 1).await;
    client.record(&key("/a"), miss(5));
    control.put("/a", json!({"ttl_seconds": 2})).await;
    until(SOON, "changed", async || ttl(&client, "/a") == 2).await;
    client.record(&key("/a"), miss(5));
    control.delete("/a").await;
    until(SOON, "removed", async || ttl(&client, "/a") == 77).await;
    client.record(&key("/a"), miss(5));
    arrived(&control, "/a", 3).await;
    client.close().await;
    assert_eq!(measured(&control, "/a").await["window"]["misses"], 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_measured_waits_for_the_control_plane() {
    let folder = tempfile::tempdir().unwrap();
    let port = larder_testing::redis::free_port();
    let client = client(port, None);
    client.record(&key("/a"), miss(5));
    // Longer than until the first report, which nobody takes.
    tokio::time::sleep(Duration::from_millis(5_500)).await;
    client.record(&key("/a"), miss(5));
    let control = Control::start(&folder.path().join("control.db"), port).await;
    arrived(&control, "/a", 2).await;
    client.close().await;
    assert_eq!(measured(&control, "/a").await["window"]["misses"], 2);
    assert_eq!(client.status().dropped_windows, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_paths_take_no_memory() {
    if !is_alone("reports::a_million_paths_take_no_memory") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let control = Control::start(&folder.path().join("control.db"), 0).await;
    let client = client(control.port, None);
    let flood = |from: u64| {
        for index in from..from + 500_000 {
            // No identifiers that could be collapsed.
            client.record(
                &key(&format!("/flood/{index}-path-of-its-own")),
                Event::of(Outcome::Miss, 1),
            );
        }
    };
    flood(0);
    let before = resident();
    flood(500_000);
    let grown = resident().saturating_sub(before);
    assert!(grown < 16 << 20, "grew by {grown} bytes");
    let arrived = async || {
        let list = control.get("/api/endpoints?service=svc").await;
        let endpoints = list["endpoints"].as_array().unwrap();
        assert!(endpoints.len() <= 2_001, "{}", endpoints.len());
        let all = endpoints.iter();
        let all = all.map(|one| one["window"]["misses"].as_u64().unwrap());
        all.sum::<u64>()
    };
    // Nothing is lost, only its name.
    until(PATIENCE * 2, "all arrived", async || {
        arrived().await == 1_000_000
    })
    .await;
    client.close().await;
    assert_eq!(arrived().await, 1_000_000, "and nothing came twice");
}
