//! Every request is answered: one whose handler panics, and at shutdown those under way, but not for ever.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use larder_http::Limits;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::client::{connect, read_to_end};
use crate::{PATIENCE, Server};

/// A handler that has begun, and ends when it is let.
#[derive(Clone, Default)]
struct Gate {
    begun: Arc<Notify>,
    let_go: Arc<Notify>,
}

impl Gate {
    fn router(&self) -> Router {
        let gate = self.clone();
        let wait = move || async move {
            gate.begun.notify_one();
            gate.let_go.notified().await;
            "done"
        };
        Router::new().route("/", get(wait))
    }
}

#[tokio::test]
async fn what_is_being_answered_is_answered() {
    let gate = Gate::default();
    let server = Server::start(gate.router(), Limits::default()).await;
    let mut busy = connect(server.address).await;
    let mut idle = connect(server.address).await;
    busy.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    gate.begun.notified().await;
    server.stop.send(()).unwrap();
    assert_eq!(read_to_end(&mut idle).await, "");
    let refused = async {
        while TcpStream::connect(server.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, refused).await.expect("still accepting");
    gate.let_go.notify_one();
    assert!(read_to_end(&mut busy).await.ends_with("done"));
    timeout(PATIENCE, server.ended)
        .await
        .expect("still running")
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn what_does_not_end_is_dropped() {
    let gate = Gate::default();
    let limits = Limits {
        shutdown_timeout: Duration::from_millis(200),
        ..Limits::default()
    };
    let server = Server::start(gate.router(), limits).await;
    let mut busy = connect(server.address).await;
    busy.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    gate.begun.notified().await;
    let begin = Instant::now();
    server.stop.send(()).unwrap();
    timeout(PATIENCE, server.ended)
        .await
        .expect("still running")
        .unwrap()
        .unwrap();
    assert!(begin.elapsed() < PATIENCE / 2);
    assert_eq!(read_to_end(&mut busy).await, "");
}

#[tokio::test]
async fn a_server_that_is_dropped_gives_its_address_back() {
    let server = Server::start(Gate::default().router(), Limits::default()).await;
    let mut stream = connect(server.address).await;
    server.ended.abort();
    let begin = Instant::now();
    while tokio::net::TcpListener::bind(server.address).await.is_err() {
        assert!(begin.elapsed() < PATIENCE, "the address is still taken");
        tokio::task::yield_now().await;
    }
    assert_eq!(read_to_end(&mut stream).await, "");
}

#[tokio::test]
async fn a_handler_that_panics_is_answered_for() {
    async fn panics() {
        panic!("of the test's own");
    }
    let router = Router::new().route("/", get(panics));
    let server = Server::start(router, Limits::default()).await;
    for _ in 0..2 {
        let answer = crate::client::get(server.address, "/", &[]).await;
        assert!(answer.status == 500 && answer.is_problem(), "{answer:?}");
        assert!(!answer.body.contains("of the test's own"));
    }
}
