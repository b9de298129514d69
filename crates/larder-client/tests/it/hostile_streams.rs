//! A stream that lies changes nothing and takes no memory.

use std::time::Duration;

use larder_core::api::Via;
use larder_testing::alone::{is_alone, resident};
use serde_json::{Value, json};

use crate::relay::{Answer, BEGIN, Relay, stream_of};
use crate::{Control, PATIENCE, client, is_on, ttl, until};

/// What `/a` has in all of this.
const GOOD: u64 = 60;

/// The service's policies, with another TTL for `/a`.
async fn document(control: &Control, ttl: Value) -> Value {
    let mut config = control.get("/api/config/svc").await;
    config["version"] = 99.into();
    config["policies"][0]["ttl_seconds"] = ttl;
    config
}

fn policies(id: &str, document: &str) -> String {
    format!("event: policies\nid: {id}\ndata: {document}\n\n")
}

/// The last good policies stay; the control plane that stands behind is asked meanwhile, so that it stays that way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lying_stream_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let control = Control::start_with(&folder.path().join("control.db"), 0, |settings| {
        settings.streams.drain = Duration::from_millis(500);
    })
    .await;
    control.put("/a", json!({"ttl_seconds": GOOD})).await;
    let whole = document(&control, 5.into()).await.to_string();
    let broken = document(&control, (-1).into()).await.to_string();
    let mut other = document(&control, 5.into()).await;
    other["service_name"] = "other".into();
    let broken_utf8 = |text: &str| {
        let mut bytes = stream_of(&format!("{BEGIN}{}", policies("x-1", text)));
        let at = bytes.windows(6).position(|part| part == b"reason").unwrap();
        bytes[at + 10] = 0xff;
        bytes
    };
    let of = |events: &str| stream_of(&format!("{BEGIN}{events}"));
    let forged = whole.replacen(
        "a policy caches",
        "a\r\n\r\nevent: policies\r\ndata: {}\r\n\r\n",
        1,
    );
    assert_ne!(forged, whole);
    let lies = [
        ("broken UTF-8", broken_utf8(&whole)),
        ("a line forged in a reason", of(&policies("x-1", &forged))),
        ("cut", of(&policies("x-1", &whole[..whole.len() / 2]))),
        (
            "no end of the event",
            of(&format!("event: policies\nid: x-1\ndata: {whole}\n")),
        ),
        (
            "another name",
            of(&format!("event: Policies\nid: x-1\ndata: {whole}\n\n")),
        ),
        ("not JSON", of(&policies("x-1", "<html>"))),
        (
            "another service's",
            of(&policies("x-1", &other.to_string())),
        ),
        ("a TTL that can't be", of(&policies("x-1", &broken))),
        ("no id", of(&format!("event: policies\ndata: {broken}\n\n"))),
        (
            "unchanged, and what",
            of("event: unchanged\nid: x-9\ndata: {}\n\n"),
        ),
        (
            "events of a later version",
            of("event: invalidate\ndata: {\"all\":true}\n\n: x\n\n"),
        ),
        ("no beginning", stream_of(&policies("x-1", &whole))),
        (
            "bytes",
            [stream_of(BEGIN), vec![0xff; 10_000], b"\n\n".to_vec()].concat(),
        ),
    ];
    let mut all = Vec::new();
    for (name, bytes) in lies {
        // Good policies first; then the lie comes.
        let relay = Relay::start(control.port, Answer::Pass).await;
        let client = client(relay.port, None);
        until(PATIENCE, "good", async || {
            client.status().via == Via::Stream && ttl(&client, "/a") == GOOD
        })
        .await;
        relay.set(Answer::Silence(bytes));
        all.push((name, client, relay));
    }
    // All streams end; the next ones lie.
    let port = control.port;
    control.stop().await;
    let control = Control::start(&folder.path().join("control.db"), port).await;
    for (name, client, relay) in &all {
        until(Duration::from_secs(60), name, async || relay.asked() >= 2).await;
        assert_eq!(
            (ttl(client, "/a"), is_on(client, "/a")),
            (GOOD, true),
            "{name}"
        );
    }
    // Time in which it would have been put in force.
    tokio::time::sleep(Duration::from_millis(500)).await;
    for (name, client, _) in &all {
        assert_eq!(ttl(client, "/a"), GOOD, "{name}");
        assert_eq!(client.status().version, Some(1), "{name}");
    }
    // The lie bites: the same without it is put in force.
    let relay = Relay::start(port, Answer::Silence(of(&policies("x-1", &whole)))).await;
    let client = client(relay.port, None);
    until(PATIENCE, "in force", async || ttl(&client, "/a") == 5).await;
    drop(control);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_put_in_force_is_parked_shown_and_not_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    let control = Control::start(&folder.path().join("control.db"), 0).await;
    control.put("/a", json!({"ttl_seconds": GOOD})).await;
    let bad = document(&control, (-1).into()).await.to_string();
    let begin = BEGIN.replace("10", "1");
    let lie = stream_of(&format!("{begin}{}", policies("x-99", &bad)));
    let relay = Relay::start(control.port, Answer::Silence(lie)).await;
    let state = folder.path().join("state");
    let client = client(relay.port, Some(&state));
    until(PATIENCE, "parked", async || {
        client.status().rejected.is_some()
    })
    .await;
    assert_eq!(client.status().version, None);
    until(PATIENCE, "another is asked for", async || {
        relay.asked() >= 2
    })
    .await;
    let last = relay.last();
    assert!(
        last.contains("last-event-id: x-99\r\n"),
        "it says what it has: {last}"
    );
    relay.set(Answer::Pass);
    until(PATIENCE, "good", async || ttl(&client, "/a") == GOOD).await;
    assert_eq!(client.status().rejected, None);
    let file = state.join("policies/svc.json");
    until(PATIENCE, "kept", async || file.exists()).await;
    let kept = std::fs::read_to_string(&file).unwrap();
    assert!(
        !kept.contains("x-99"),
        "nothing is kept that was not in force"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_version_is_told_to_the_control_plane() {
    let folder = tempfile::tempdir().unwrap();
    let control = Control::start_with(&folder.path().join("control.db"), 0, |settings| {
        settings.streams.heartbeat = Duration::from_millis(500);
    })
    .await;
    control.put("/a", json!({"ttl_seconds": GOOD})).await;
    let relay = Relay::start(control.port, Answer::Pass).await;
    let client = client(relay.port, None);
    until(PATIENCE, "good", async || ttl(&client, "/a") == GOOD).await;
    let etag = control
        .http
        .get(control.url("/api/config/svc"))
        .send()
        .await
        .unwrap();
    let etag = etag.headers()["etag"]
        .to_str()
        .unwrap()
        .trim_matches('"')
        .to_owned();
    let (database, _) = etag.rsplit_once('-').unwrap();
    let bad = document(&control, (-1).into()).await.to_string();
    let lie = stream_of(&format!(
        "{BEGIN}{}",
        policies(&format!("{database}-2"), &bad)
    ));
    relay.set(Answer::Silence(lie));
    // The stream that is open is lost; the next one tells of version 2, which can't be.
    relay.silence();
    control.put("/b", json!({})).await;
    until(Duration::from_secs(60), "rejected", async || {
        client.status().rejected.is_some()
    })
    .await;
    assert!(client.status().rejected.unwrap().contains("ttl_seconds"));
    assert!(client.status().trouble.unwrap().contains("ttl_seconds"));
    assert_eq!(
        (ttl(&client, "/a"), client.status().version),
        (GOOD, Some(1))
    );
    until(PATIENCE, "told", async || {
        let list = control.get("/api/instances?service=svc").await;
        let one = &list["instances"][0];
        one["state"] == "rejected"
            && one["version"] == 1
            && one["current_version"] == 2
            && one["rejected"]["reason"]
                .as_str()
                .unwrap()
                .contains("ttl_seconds")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endless_line_takes_no_memory() {
    if !is_alone("hostile_streams::an_endless_line_takes_no_memory") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let control = Control::start(&folder.path().join("control.db"), 0).await;
    control.put("/a", json!({"ttl_seconds": GOOD})).await;
    let before = resident();
    for (first, again) in [
        ("data: ", vec![b'x'; 1 << 20]),
        ("", b"data: x\n".repeat(1 << 17)),
    ] {
        let first = stream_of(&format!("{BEGIN}{first}"));
        let relay = Relay::start(control.port, Answer::Endless(first, again)).await;
        let client = client(relay.port, None);
        until(Duration::from_secs(30), "given up, and asked", async || {
            ttl(&client, "/a") == GOOD && relay.asked() >= 2
        })
        .await;
        let grown = resident().saturating_sub(before);
        assert!(grown < 96 << 20, "grew by {grown} bytes");
    }
}
