//! Answers without an end: what is made of them comes at once, and they end with their client.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use larder_http::{Endless, Limits};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;

use crate::client::{closes_within, connect, read_one, read_to_end};
use crate::{PATIENCE, Server};

const SHORT: Duration = Duration::from_millis(300);

/// Where what is said to the answer of the last request comes from; it closes when that answer is dropped.
type Speaker = Arc<Mutex<Option<mpsc::Sender<Bytes>>>>;

async fn endless(State(speaker): State<Speaker>) -> Response {
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    *speaker.lock().await = Some(sender);
    let pieces = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let piece = receiver.recv().await?;
        Some((Ok::<_, std::io::Error>(piece), receiver))
    });
    (Extension(Endless), Body::from_stream(pieces)).into_response()
}

async fn start(limits: Limits) -> (Server, Speaker) {
    let speaker = Speaker::default();
    let router = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/endless", get(endless))
        .with_state(Arc::clone(&speaker));
    (Server::start(router, limits).await, speaker)
}

async fn speaker_of(speaker: &Speaker) -> mpsc::Sender<Bytes> {
    timeout(PATIENCE, async {
        loop {
            if let Some(sender) = speaker.lock().await.take() {
                return sender;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap()
}

fn ask(line: &str) -> String {
    format!("{line}\r\nHost: a\r\n\r\n")
}

/// A connection over which this was asked.
async fn asked(server: &Server, line: &str) -> TcpStream {
    let mut stream = connect(server.address).await;
    stream.write_all(ask(line).as_bytes()).await.unwrap();
    stream
}

/// Reads until this has come.
async fn read_until(stream: &mut TcpStream, what: &str) -> String {
    let mut text = String::new();
    while !text.contains(what) {
        let mut piece = [0; 1_024];
        let read = timeout(PATIENCE, stream.read(&mut piece))
            .await
            .unwrap()
            .unwrap();
        assert!(read > 0, "it ended: {text:?}");
        text.push_str(std::str::from_utf8(&piece[..read]).unwrap());
    }
    text
}

#[tokio::test]
async fn what_is_said_comes_at_once_and_the_end_closes() {
    let (server, speaker) = start(Limits::default()).await;
    let mut stream = asked(&server, "GET / HTTP/1.1").await;
    assert_eq!(read_one(&mut stream).await.body, "hello");
    stream
        .write_all(ask("GET /endless HTTP/1.1").as_bytes())
        .await
        .unwrap();
    let said = speaker_of(&speaker).await;
    let head = read_until(&mut stream, "\r\n\r\n")
        .await
        .to_ascii_lowercase();
    assert!(
        head.contains("transfer-encoding: chunked\r\n") && head.contains("connection: close\r\n"),
        "{head}"
    );
    for piece in ["one", "two", "", "three"] {
        said.send(piece.into()).await.unwrap();
        if !piece.is_empty() {
            let chunk = format!("{:x}\r\n{piece}\r\n", piece.len());
            assert_eq!(
                read_until(&mut stream, &format!("{piece}\r\n")).await,
                chunk
            );
        }
    }
    drop(said);
    assert_eq!(read_to_end(&mut stream).await, "0\r\n\r\n");
}

#[tokio::test]
async fn it_ends_with_its_client() {
    let (server, speaker) = start(Limits::default()).await;
    for says_more in [false, true] {
        let mut stream = asked(&server, "GET /endless HTTP/1.1").await;
        let said = speaker_of(&speaker).await;
        read_until(&mut stream, "\r\n\r\n").await;
        if says_more {
            stream.write_all(b"x").await.unwrap();
            assert!(closes_within(&mut stream, PATIENCE).await);
        } else {
            drop(stream);
        }
        timeout(PATIENCE, said.closed()).await.unwrap();
    }
}

#[tokio::test]
async fn a_silent_one_is_not_idle_and_a_client_that_takes_nothing_is_closed() {
    let limits = Limits {
        idle_timeout: SHORT,
        head_timeout: SHORT,
        write_timeout: SHORT,
        ..Limits::default()
    };
    let (server, speaker) = start(limits).await;
    let mut stream = asked(&server, "GET /endless HTTP/1.1").await;
    let said = speaker_of(&speaker).await;
    assert!(
        !closes_within(&mut stream, SHORT * 4).await,
        "it is silent, not idle"
    );
    let large = Bytes::from(vec![b'x'; 64 << 20]);
    said.send(large).await.unwrap();
    timeout(PATIENCE, said.closed()).await.unwrap();
}

#[tokio::test]
async fn other_requests_for_one_are_answered_as_they_can_be() {
    let (server, speaker) = start(Limits::default()).await;
    let mut stream = asked(&server, "HEAD /endless HTTP/1.1").await;
    let said = speaker_of(&speaker).await;
    read_until(&mut stream, "\r\n\r\n").await;
    timeout(PATIENCE, said.closed()).await.unwrap();
    stream
        .write_all(ask("GET / HTTP/1.1").as_bytes())
        .await
        .unwrap();
    assert!(
        read_until(&mut stream, "hello").await.contains("200 OK"),
        "the connection goes on"
    );

    let mut stream = asked(&server, "GET /endless HTTP/1.0").await;
    let said = speaker_of(&speaker).await;
    said.send("one".into()).await.unwrap();
    assert!(
        read_until(&mut stream, "one")
            .await
            .ends_with("\r\n\r\none"),
        "without chunks"
    );
    drop(said);
    assert_eq!(read_to_end(&mut stream).await, "");
}

#[tokio::test]
async fn at_the_end_of_the_server_it_has_the_time_that_others_have() {
    let limits = Limits {
        shutdown_timeout: SHORT,
        ..Limits::default()
    };
    let (server, speaker) = start(limits).await;
    let mut stream = asked(&server, "GET /endless HTTP/1.1").await;
    let said = speaker_of(&speaker).await;
    read_until(&mut stream, "\r\n\r\n").await;
    drop(server.stop);
    timeout(PATIENCE, server.ended)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    timeout(PATIENCE, said.closed()).await.unwrap();
}
