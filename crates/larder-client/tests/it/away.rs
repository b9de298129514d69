//! With the control plane away the last policies hold, also across a restart; before there were any, the defaults.

use std::time::Duration;

use serde_json::json;

use crate::{Control, PATIENCE, client, is_on, ttl, until};

#[tokio::test]
async fn policies_hold_while_it_is_away_and_across_a_restart_of_the_client() {
    let folder = tempfile::tempdir().unwrap();
    let (database, state) = (
        folder.path().join("control.db"),
        folder.path().join("state"),
    );
    let control = Control::start(&database, 0).await;
    control.put("/a", json!({"ttl_seconds": 60})).await;
    control.put("/b", json!({"mode": "off"})).await;
    let port = control.port;
    let first = client(port, Some(&state));
    until(PATIENCE, "known", async || {
        ttl(&first, "/a") == 60 && !is_on(&first, "/b")
    })
    .await;

    // Killed: its connections end without a word.
    drop(control);
    until(PATIENCE, "noticed", async || !first.status().connected).await;
    assert_eq!((ttl(&first, "/a"), is_on(&first, "/b")), (60, false));
    first.close().await;

    // At once, since nobody could have answered yet.
    let second = client(port, Some(&state));
    assert_eq!((ttl(&second, "/a"), is_on(&second, "/b")), (60, false));
    assert!(second.status().from_disk);

    // It comes back, with a change.
    let control = Control::start(&database, port).await;
    control.put("/a", json!({"ttl_seconds": 30})).await;
    until(PATIENCE, "changed", async || ttl(&second, "/a") == 30).await;
    assert!(!second.status().from_disk);

    // Stopped in order: the same.
    control.stop().await;
    until(PATIENCE, "noticed", async || !second.status().connected).await;
    assert_eq!((ttl(&second, "/a"), is_on(&second, "/b")), (30, false));
}

#[tokio::test]
async fn from_the_start_the_defaults_hold_until_it_comes() {
    let folder = tempfile::tempdir().unwrap();
    let port = larder_testing::redis::free_port();
    let client = client(port, Some(&folder.path().join("state")));
    until(PATIENCE, "tried", async || {
        client.status().trouble.is_some()
    })
    .await;
    assert_eq!((ttl(&client, "/a"), is_on(&client, "/a")), (77, true));
    let control = Control::start(&folder.path().join("control.db"), port).await;
    control.put("/a", json!({"ttl_seconds": 5})).await;
    until(PATIENCE, "it came", async || ttl(&client, "/a") == 5).await;
    assert_eq!(client.status().trouble, None);
}

#[tokio::test]
async fn a_server_that_takes_connections_and_says_nothing_is_away() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(silent.local_addr().unwrap().port(), None);
    until(Duration::from_secs(8), "tried", async || {
        client.status().trouble.is_some()
    })
    .await;
    assert_eq!(ttl(&client, "/a"), 77);
    let began = std::time::Instant::now();
    client.close().await;
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "closing waits for nobody"
    );
}

#[tokio::test]
async fn what_was_kept_and_damaged_is_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let (database, state) = (
        folder.path().join("control.db"),
        folder.path().join("state"),
    );
    let control = Control::start(&database, 0).await;
    control.put("/a", json!({"ttl_seconds": 60})).await;
    let file = state.join("policies/svc.json");
    let first = client(control.port, Some(&state));
    until(PATIENCE, "kept", async || file.exists()).await;
    first.close().await;
    let port = control.port;
    drop(control);
    let text = std::fs::read_to_string(&file).unwrap();
    for damaged in [
        &text[..text.len() / 2],
        "",
        &text.replace("60", "-60"),
        &text.replace("\"svc\"", "\"other\""),
    ] {
        std::fs::write(&file, damaged).unwrap();
        let client = client(port, Some(&state));
        assert_eq!(ttl(&client, "/a"), 77, "{damaged}");
    }
}
