//! A request names one host, the same everywhere.

use axum::Router;
use axum::routing::get;
use larder_http::Limits;
use tokio::net::TcpListener;

use crate::Server;
use crate::client::send;

/// Each with what axum alone would answer, and what the answer is here.
const CASES: [(&str, u16, u16); 10] = [
    ("GET / HTTP/1.1\r\nHost: a\r\n", 200, 200),
    ("GET / HTTP/1.1\r\nHost: a:3000\r\n", 200, 200),
    ("GET / HTTP/1.0\r\n", 200, 200),
    ("GET http://a/ HTTP/1.1\r\nHost: A\r\n", 200, 200),
    ("GET / HTTP/1.1\r\n", 200, 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n", 200, 400),
    ("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n", 200, 400),
    ("GET http://a/ HTTP/1.1\r\nHost: b\r\n", 200, 400),
    ("GET / HTTP/1.1\r\nHost: \r\n", 200, 400),
    ("GET / HTTP/1.1\r\nHost: u@a\r\n", 200, 400),
];

#[tokio::test]
async fn none_two_and_different_hosts_are_refused() {
    let router = Router::new().route("/", get(|| async { "hello" }));
    let naive = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let naive_address = naive.local_addr().unwrap();
    let naive_router = router.clone();
    tokio::spawn(async move { axum::serve(naive, naive_router).await });
    let server = Server::start(router, Limits::default()).await;
    for (head, naive, ours) in CASES {
        let bytes = format!("{head}Connection: close\r\n\r\n");
        assert_eq!(
            send(naive_address, &bytes).await.status,
            naive,
            "axum: {head}"
        );
        let answer = send(server.address, &bytes).await;
        assert_eq!(answer.status, ours, "{head}");
        assert!(ours == 200 || answer.is_problem(), "{answer:?}");
    }
}
