//! A control plane that is stopped, killed and started again: processes of its own.

use std::time::Duration;

use larder_control::{ControlPlane, Settings};
use larder_core::api::Via;
use larder_testing::process::{Process, in_role, listen, role, say};
use larder_testing::redis::free_port;
use rustix::process::Signal;
use serde_json::json;
use tokio::net::TcpListener;

use crate::{PATIENCE, client, is_on, ttl, until};

const PORT: &str = "LARDER_TEST_CONTROL_PORT";

#[test]
fn serves_in_a_process_of_its_own() {
    let Some(folder) = role("control plane") else {
        return;
    };
    let port: u16 = std::env::var(PORT).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut settings = Settings::new(folder.join("control.db"));
        settings.streams.heartbeat = Duration::from_millis(200);
        let control = ControlPlane::open(settings).await.unwrap();
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        say("serves");
        let stopped = async {
            tokio::task::spawn_blocking(listen).await.unwrap();
        };
        control.run(listener, stopped).await.unwrap();
    });
}

fn start(folder: &std::path::Path, port: u16) -> Process {
    let mut command = in_role(
        "stopped::serves_in_a_process_of_its_own",
        "control plane",
        folder,
    );
    command.env(PORT, port.to_string());
    let mut process = Process::spawn(command);
    process.expect("serves");
    process
}

async fn put(port: u16, endpoint: &str, policy: serde_json::Value) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]);
    let url = format!("http://127.0.0.1:{port}/api/policies/svc{endpoint}");
    let answer = http
        .build()
        .unwrap()
        .put(url)
        .json(&policy)
        .send()
        .await
        .unwrap();
    assert!(answer.status().is_success(), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_hold_while_it_is_stopped_and_killed_and_across_their_own_restart() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let port = free_port();
    let process = start(folder.path(), port);
    put(port, "/a", json!({"ttl_seconds": 60})).await;
    put(port, "/b", json!({"mode": "off"})).await;
    let first = client(port, Some(&state));
    let has_all = |client: &larder_client::Client| ttl(client, "/a") == 60 && !is_on(client, "/b");
    until(PATIENCE, "known", async || {
        has_all(&first) && first.status().via == Via::Stream
    })
    .await;

    process.signal(Signal::STOP);
    until(Duration::from_secs(20), "noticed", async || {
        !first.status().connected
    })
    .await;
    assert!(has_all(&first));
    let second = client(port, Some(&state));
    assert!(
        has_all(&second) && second.status().from_disk,
        "at once, from the disk"
    );
    second.close().await;

    process.signal(Signal::CONT);
    until(Duration::from_secs(20), "a stream again", async || {
        first.status().connected && first.status().via == Via::Stream
    })
    .await;
    put(port, "/a", json!({"ttl_seconds": 30})).await;
    until(PATIENCE, "changed", async || ttl(&first, "/a") == 30).await;

    // Killed in the midst of it.
    process.signal(Signal::KILL);
    until(PATIENCE, "noticed", async || !first.status().connected).await;
    assert_eq!((ttl(&first, "/a"), is_on(&first, "/b")), (30, false));
    drop(process);
    let third = client(port, Some(&state));
    assert_eq!((ttl(&third, "/a"), is_on(&third, "/b")), (30, false));

    let _process = start(folder.path(), port);
    put(port, "/a", json!({"ttl_seconds": 15})).await;
    for client in [&first, &third] {
        until(PATIENCE, "changed", async || ttl(client, "/a") == 15).await;
        until(PATIENCE, "over a stream", async || {
            client.status().via == Via::Stream
        })
        .await;
    }
}
