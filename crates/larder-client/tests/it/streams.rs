//! A change is acted on as soon as the stream tells of it; what takes the stream away makes it slower, and nothing worse.

use std::time::{Duration, Instant};

use larder_core::api::Via;
use larder_testing::stalls::Stalls;
use serde_json::json;

use crate::relay::{Answer, BEGIN, Relay, stream_of};
use crate::{Control, PATIENCE, SOON, client, ttl, until};

/// The mark is 250 ms on a quiet machine.
const AT_ONCE: Duration = Duration::from_millis(2_500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_acted_on_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let control = Control::start(&folder.path().join("control.db"), 0).await;
    let client = client(control.port, None);
    until(SOON, "a stream", async || {
        client.status().via == Via::Stream
    })
    .await;
    let mut took = Vec::new();
    let stalls = Stalls::watch();
    for seconds in 100..150 {
        let began = Instant::now();
        control.put("/a", json!({"ttl_seconds": seconds})).await;
        while ttl(&client, "/a") != seconds {
            assert!(began.elapsed() < PATIENCE, "it is never acted on");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        took.push(began.elapsed());
    }
    took.sort_unstable();
    let (middle, most) = (took[took.len() / 2], took[took.len() - 1]);
    println!(
        "a change is acted on after {middle:?} (median), {most:?} (the slowest of {})",
        took.len()
    );
    assert!(most < AT_ONCE + stalls.end(), "not within {AT_ONCE:?}");
    // Who asks for changes waits longer than that; and so does the one, or the two, that a machine stood still for.
    assert!(took[46] < Duration::from_secs(1), "{took:?}");
    let status = client.status();
    assert_eq!(
        (status.via, status.connected, status.trouble),
        (Via::Stream, true, None)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_there_is_no_stream_the_control_plane_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let control = Control::start(&folder.path().join("control.db"), 0).await;
    control.put("/a", json!({"ttl_seconds": 60})).await;
    let status = |line: &str| {
        Answer::Bytes(format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n").into_bytes())
    };
    let html = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>".to_vec();
    let kept_back = stream_of("");
    let mut all = Vec::new();
    for (name, answer) in [
        ("an older control plane", status("404 Not Found")),
        (
            "no room",
            status("503 Service Unavailable\r\nRetry-After: 100"),
        ),
        (
            "a redirect",
            status("307 Temporary Redirect\r\nLocation: /"),
        ),
        ("a page", Answer::Silence(html)),
        (
            "a proxy that keeps everything back",
            Answer::Silence(kept_back),
        ),
        ("a proxy that says nothing", Answer::Silence(Vec::new())),
        ("a proxy that closes", Answer::Bytes(Vec::new())),
    ] {
        let relay = Relay::start(control.port, answer).await;
        all.push((name, client(relay.port, None), relay));
    }
    for (name, client, _) in &all {
        let within = SOON + Duration::from_secs(1);
        until(within, name, async || ttl(client, "/a") == 60).await;
        assert_eq!(client.status().via, Via::Poll, "{name}");
    }
    control.put("/a", json!({"ttl_seconds": 30})).await;
    for (name, client, relay) in &all {
        until(SOON, name, async || ttl(client, "/a") == 30).await;
        assert_eq!(client.status().trouble, None, "{name}");
        // The last one can't be told from a control plane that is away for a moment.
        let most = if *name == "a proxy that closes" {
            10
        } else {
            1
        };
        assert!(
            relay.asked() <= most,
            "{name}: {} streams were asked for",
            relay.asked()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_lost_is_noticed_by_its_silence() {
    let folder = tempfile::tempdir().unwrap();
    let control = Control::start_with(&folder.path().join("control.db"), 0, |settings| {
        settings.streams.heartbeat = Duration::from_millis(500);
    })
    .await;
    let relay = Relay::start(control.port, Answer::Pass).await;
    let client = client(relay.port, None);
    control.put("/a", json!({"ttl_seconds": 60})).await;
    until(SOON, "over the stream", async || ttl(&client, "/a") == 60).await;
    let before = relay.asked();
    relay.silence();
    control.put("/a", json!({"ttl_seconds": 30})).await;
    until(SOON, "another is asked for", async || {
        relay.asked() > before
    })
    .await;
    until(SOON, "told over it", async || {
        ttl(&client, "/a") == 30 && client.status().via == Via::Stream
    })
    .await;
    let last = relay.last();
    assert!(
        last.contains("last-event-id: "),
        "it says what it has: {last}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_ends_in_its_time_is_opened_again_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let control = Control::start_with(&folder.path().join("control.db"), 0, |settings| {
        settings.streams.age = Duration::from_millis(1_500);
    })
    .await;
    let relay = Relay::start(control.port, Answer::Pass).await;
    let client = client(relay.port, None);
    until(Duration::from_secs(20), "opened again", async || {
        relay.asked() >= 4
    })
    .await;
    control.put("/a", json!({"ttl_seconds": 60})).await;
    until(AT_ONCE, "acted on", async || ttl(&client, "/a") == 60).await;
    assert_eq!(client.status().via, Via::Stream);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_end_at_once_are_opened_less_and_less_often() {
    let folder = tempfile::tempdir().unwrap();
    let control = Control::start(&folder.path().join("control.db"), 0).await;
    let drain = "event: drain\nretry: 0\ndata: {}\n\n";
    let at_once = stream_of(&format!("{BEGIN}{drain}"));
    let broken = stream_of(BEGIN);
    for answer in [at_once, broken] {
        let relay = Relay::start(control.port, Answer::Bytes(answer)).await;
        let client = client(relay.port, None);
        until(SOON, "opened again", async || relay.asked() >= 3).await;
        let begun = Instant::now();
        control.put("/a", json!({"ttl_seconds": 60})).await;
        until(SOON, "asked", async || ttl(&client, "/a") == 60).await;
        // So long they are counted.
        tokio::time::sleep(Duration::from_secs(4).saturating_sub(begun.elapsed())).await;
        assert!(relay.asked() <= 8, "{} streams in some 5 s", relay.asked());
        relay.set(Answer::Pass);
        until(Duration::from_secs(30), "a stream", async || {
            client.status().via == Via::Stream
        })
        .await;
        control.delete("/a").await;
    }
}
