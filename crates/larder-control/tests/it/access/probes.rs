//! Metrics and probes on a listener of their own.

use std::net::SocketAddr;

use larder_model::api::KeyRole::Read;
use larder_testing::redis::free_port;

use super::Keyed;
use crate::{Running, until};

/// An address that is free now, and that no other test takes.
fn free() -> SocketAddr {
    ([127, 0, 0, 1], free_port()).into()
}

#[tokio::test]
async fn apart_they_need_no_key_and_nothing_else_is_there() {
    let mut keyed = Keyed::new().await;
    let of_one = keyed.key(Read, &["svc"]).await.secret;
    let of_all = keyed.key(Read, &["*"]).await.secret;
    let apart = free();
    let control = keyed
        .start_with(|settings| settings.metrics = Some(apart))
        .await;
    control.get("/metrics").await.is_problem(401);
    control
        .with(Some(&of_one), "GET", "/metrics", "")
        .await
        .is_problem(403);
    assert_eq!(
        control
            .with(Some(&of_all), "GET", "/metrics", "")
            .await
            .status,
        200
    );
    for open in ["/healthz", "/readyz"] {
        assert_eq!(control.get(open).await.status, 200, "{open}");
    }

    until("it listens", async || {
        tokio::net::TcpStream::connect(apart).await.is_ok()
    })
    .await;
    let probes = Running::at(apart.port());
    let metrics = probes.get("/metrics").await;
    assert_eq!(metrics.status, 200, "{metrics:?}");
    assert!(metrics.body.contains("larder_control_denied_total"));
    assert_eq!(metrics.header("x-content-type-options"), Some("nosniff"));
    for (path, status) in [
        ("/healthz", 200),
        ("/readyz", 200),
        ("/api/services", 404),
        ("/", 404),
    ] {
        assert_eq!(probes.get(path).await.status, status, "{path}");
    }
    for (host, status) in [
        ("10.1.2.3:9100", 200),
        ("[::1]", 200),
        ("localhost", 200),
        ("rebound.example", 421),
        ("127.0.0.1.nip.io:9100", 421),
    ] {
        let head = format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        assert_eq!(probes.raw(head.as_bytes()).await.status, status, "{host}");
    }
}
