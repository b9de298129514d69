//! What a client sends is bounded (SF-13).

use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::ConnectInfo;
use axum::routing::{get, post};
use larder_http::Limits;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use crate::Server;
use crate::client::{closes_within, connect, get as get_it, read_one, request, send};

fn router() -> Router {
    Router::new()
        .route("/", get(|| async { "hello" }))
        .route(
            "/",
            post(|body: Bytes| async move { body.len().to_string() }),
        )
        .route(
            "/me",
            get(
                |ConnectInfo(peer): ConnectInfo<std::net::SocketAddr>| async move {
                    peer.ip().to_string()
                },
            ),
        )
}

#[tokio::test]
async fn a_head_has_at_most_16_kib_and_64_headers() {
    let server = Server::start(router(), Limits::default()).await;
    let long = |bytes: usize| format!("X-Long: {}", "x".repeat(bytes));
    assert_eq!(
        get_it(server.address, "/", &[&long(15_000)]).await.status,
        200
    );
    assert_eq!(
        get_it(server.address, "/", &[&long(17_000)]).await.status,
        431
    );
    assert_eq!(
        get_it(server.address, "/", &[&long(1 << 20)]).await.status,
        431
    );
    // Beside Host and Connection.
    assert_eq!(
        get_it(server.address, "/", &["X-Many: 1"; 62]).await.status,
        200
    );
    assert_eq!(
        get_it(server.address, "/", &["X-Many: 1"; 63]).await.status,
        431
    );
}

#[tokio::test]
async fn a_body_has_at_most_1_mib() {
    let server = Server::start(router(), Limits::default()).await;
    let most = "x".repeat(1 << 20);
    assert_eq!(
        request(server.address, "POST", "/", &[], &most).await.body,
        most.len().to_string()
    );
    let announced = send(
        server.address,
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1048577\r\n\r\n",
    )
    .await;
    assert_eq!(announced.status, 413);
    assert!(announced.is_problem(), "{announced:?}");
}

#[tokio::test]
async fn a_body_that_does_not_say_how_large_it_is_has_at_most_1_mib_too() {
    let server = Server::start(router(), Limits::default()).await;
    let head =
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("{:x}\r\n{}\r\n", 1 << 18, "x".repeat(1 << 18));
    let whole = send(
        server.address,
        format!("{head}{}0\r\n\r\n", chunk.repeat(4)),
    )
    .await;
    assert_eq!(whole.body, (1 << 20).to_string());
    // One byte more, and the end is never sent.
    let answer = send(
        server.address,
        format!("{head}{}1\r\nx\r\n", chunk.repeat(4)),
    )
    .await;
    assert_eq!(answer.status, 413);
    assert!(answer.is_problem(), "{answer:?}");
}

#[tokio::test]
async fn who_sends_what_he_must_not_waits_for_his_refusal_and_nobody_with_him() {
    let delay = Duration::from_millis(200);
    let limits = Limits {
        refusal_delay: delay,
        ..Limits::default()
    };
    let server = Server::start(router(), limits).await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n";
    let chunk = format!("{:x}\r\n{}\r\n", 1 << 18, "x".repeat(1 << 18));
    let refused = [
        (413, format!("{head}Content-Length: 1048577\r\n\r\n")),
        (
            413,
            format!(
                "{head}Transfer-Encoding: chunked\r\n\r\n{}",
                chunk.repeat(5)
            ),
        ),
        (431, format!("{head}{}\r\n", "X-Many: 1\r\n".repeat(65))),
        (400, format!("{head}Host: b\r\n\r\n")),
    ];
    for (status, request) in refused {
        let begin = Instant::now();
        assert_eq!(send(server.address, request).await.status, status);
        assert!(begin.elapsed() >= delay, "{status}: {:?}", begin.elapsed());
    }

    let limits = Limits {
        refusal_delay: Duration::from_secs(3_600),
        ..Limits::default()
    };
    let server = Server::start(router(), limits).await;
    let mut refused = connect(server.address).await;
    let request = format!("{head}Content-Length: 1048577\r\n\r\n");
    refused.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(get_it(server.address, "/", &[]).await.status, 200);
    let answered = timeout(delay, refused.peek(&mut [0])).await;
    assert!(answered.is_err(), "it waits still");
}

#[tokio::test]
async fn connections_past_the_bound_wait() {
    let limits = Limits {
        connections: 2,
        ..Limits::default()
    };
    let server = Server::start(router(), limits).await;
    let mut first = connect(server.address).await;
    let _second = connect(server.address).await;
    let hello = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    first.write_all(hello).await.unwrap();
    assert_eq!(read_one(&mut first).await.status, 200);
    let mut third = connect(server.address).await;
    third.write_all(hello).await.unwrap();
    let mut byte = [0];
    let wait = Duration::from_millis(300);
    let answered = timeout(wait, third.peek(&mut byte)).await;
    assert!(answered.is_err(), "the third is not accepted yet");
    drop(first);
    assert_eq!(read_one(&mut third).await.status, 200);
    assert!(!closes_within(&mut third, wait).await);
}

#[tokio::test]
async fn a_handler_sees_the_client_s_address() {
    let server = Server::start(router(), Limits::default()).await;
    assert_eq!(get_it(server.address, "/me", &[]).await.body, "127.0.0.1");
}
