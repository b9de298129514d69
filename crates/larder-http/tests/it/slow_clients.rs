//! Nobody can keep a connection by being slow (SF-13).

use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::routing::{get, post};
use larder_http::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::client::{closes_within, connect, get as get_it, read_one, read_to_end};
use crate::{PATIENCE, Server};

const SHORT: Duration = Duration::from_millis(300);
const LARGE: usize = 64 << 20;
const MEDIUM: usize = 8 << 20;
const PIECE: usize = 512 << 10;

fn router() -> Router {
    Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/medium", get(|| async { vec![b'x'; MEDIUM] }))
        .route("/large", get(|| async { vec![b'x'; LARGE] }))
        .route(
            "/",
            post(|body: Bytes| async move { body.len().to_string() }),
        )
}

#[tokio::test]
async fn a_half_sent_head_is_not_waited_for() {
    let half = b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ";

    let naive = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = naive.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(naive, router()).await });
    let mut stream = connect(address).await;
    stream.write_all(half).await.unwrap();
    assert!(
        !closes_within(&mut stream, SHORT * 5).await,
        "axum::serve waits"
    );

    let limits = Limits {
        head_timeout: SHORT,
        ..Limits::default()
    };
    let server = Server::start(router(), limits).await;
    for half in [
        &half[..],
        b"",
        b"G",
        b"PRI * HTTP/2.0\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut stream = connect(server.address).await;
        stream.write_all(half).await.unwrap();
        assert!(closes_within(&mut stream, PATIENCE).await, "{half:?}");
    }
}

#[tokio::test]
async fn a_head_that_trickles_has_no_more_time() {
    let limits = Limits {
        head_timeout: SHORT * 3,
        ..Limits::default()
    };
    let server = Server::start(router(), limits).await;
    // The second request of a connection has the same time as the first.
    let mut stream = connect(server.address).await;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(read_one(&mut stream).await.body, "hello");
    let (mut read, mut write) = stream.into_split();
    let trickle = tokio::spawn(async move {
        write.write_all(b"GET / HTTP/1.1\r\nX: ").await.unwrap();
        while write.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let begin = Instant::now();
    let mut sink = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, read.read_to_end(&mut sink))
        .await
        .expect("still open");
    assert!(begin.elapsed() < SHORT * 30);
    trickle.abort();
}

#[tokio::test]
async fn a_body_has_its_time_however_steadily_it_trickles() {
    let limits = Limits {
        body_timeout: SHORT,
        ..Limits::default()
    };
    let server = Server::start(router(), limits).await;
    let answer = trickle_a_body(&server, 20_000, 100).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("application/problem+json"), "{answer}");
}

#[tokio::test]
async fn a_body_slower_than_the_least_rate_is_not_waited_for() {
    let limits = Limits {
        body_grace: SHORT,
        ..Limits::default()
    };
    let server = Server::start(router(), limits).await;
    // 10 bytes every 20 ms: 500 a second, where 1,024 are the least.
    let begin = Instant::now();
    let answer = trickle_a_body(&server, 20_000, 10).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "long before body_timeout"
    );
    // With the rate off, the same body is taken.
    let limits = Limits {
        body_bytes_per_second: 1,
        body_grace: PATIENCE,
        ..Limits::default()
    };
    let server = Server::start(router(), limits).await;
    let answer = trickle_a_body(&server, 300, 10).await;
    assert!(answer.ends_with("300"), "{answer}");
}

/// Sends a body piece by piece, every 20 ms, and reads the answer, whenever it comes.
async fn trickle_a_body(server: &Server, length: usize, piece: usize) -> String {
    let stream = connect(server.address).await;
    let (mut read, mut write) = stream.into_split();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    write.write_all(head.as_bytes()).await.unwrap();
    let trickle = tokio::spawn(async move {
        for _ in 0..length / piece {
            if write.write_all(&vec![b'x'; piece]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        write
    });
    let mut answer = vec![0; 4_096];
    let mut length = 0;
    let read_answer = async {
        while let Ok(more @ 1..) = read.read(&mut answer[length..]).await {
            length += more;
        }
    };
    tokio::time::timeout(PATIENCE, read_answer)
        .await
        .expect("no answer");
    trickle.abort();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let limits = Limits {
        idle_timeout: SHORT,
        ..Limits::default()
    };
    let server = Server::start(router(), limits).await;
    let mut stream = connect(server.address).await;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(read_one(&mut stream).await.status, 200);
    assert_eq!(read_to_end(&mut stream).await, "");
}

#[tokio::test]
async fn an_idle_connection_is_kept_for_longer_than_a_head_may_take() {
    let limits = Limits {
        head_timeout: SHORT,
        ..Limits::default()
    };
    let server = Server::start(router(), limits).await;
    let mut stream = connect(server.address).await;
    for _ in 0..2 {
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        assert_eq!(read_one(&mut stream).await.body, "hello");
        assert!(!closes_within(&mut stream, SHORT * 3).await);
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_its_answer_is_dropped() {
    let limits = Limits {
        write_timeout: SHORT,
        connections: 1,
        ..Limits::default()
    };
    let server = Server::start(router(), limits).await;
    let mut stream = connect(server.address).await;
    stream
        .write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    // The next one gets its place, while it still takes nothing.
    assert_eq!(get_it(server.address, "/", &[]).await.body, "hello");
    let mut taken = Vec::new();
    let read = stream.read_to_end(&mut taken);
    let _ = tokio::time::timeout(PATIENCE, read)
        .await
        .expect("still open");
    assert!(taken.len() < LARGE, "all of it came");
}

/// Asks for something, and takes so much of the answer every 20 ms; how much came in all.
async fn take(server: &Server, path: &str, bytes: usize) -> usize {
    let mut stream = connect(server.address).await;
    let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut piece = vec![0; bytes];
    let mut taken = 0;
    let take_all = async {
        while let Ok(bytes @ 1..) = stream.read(&mut piece).await {
            taken += bytes;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, take_all)
        .await
        .expect("still open");
    taken
}

/// Takes an answer that is larger than that, in one of five attempts: a client on a machine that stands still for a moment takes
/// nothing then, and is rightly dropped.
async fn takes_all(server: &Server, path: &str, bytes: usize, least: usize) {
    let mut taken = Vec::new();
    while taken.len() < 5 {
        taken.push(take(server, path, bytes).await);
        if taken.last().is_some_and(|taken| *taken > least) {
            return;
        }
    }
    panic!("{taken:?}");
}

#[tokio::test]
async fn a_client_that_takes_its_answer_slower_than_the_least_rate_is_dropped() {
    let limits = Limits {
        write_timeout: SHORT * 2,
        write_bytes_per_second: 1 << 30,
        ..Limits::default()
    };
    let server = Server::start(router(), limits.clone()).await;
    let taken = take(&server, "/large", PIECE).await;
    assert!(taken < LARGE, "all of it came");

    let limits = Limits {
        write_bytes_per_second: 1 << 20,
        ..limits
    };
    let server = Server::start(router(), limits).await;
    takes_all(&server, "/large", PIECE, LARGE).await;
}

#[tokio::test]
async fn an_answer_may_take_longer_to_be_taken_than_a_connection_may_lie_idle() {
    let limits = Limits {
        idle_timeout: SHORT,
        ..Limits::default()
    };
    let server = Server::start(router(), limits).await;
    takes_all(&server, "/large", PIECE, LARGE).await;
}

#[tokio::test]
async fn a_client_that_takes_little_at_a_time_is_seen_to_take_it() {
    let limits = Limits {
        write_timeout: SHORT,
        ..Limits::default()
    };
    let server = Server::start(router(), limits).await;
    takes_all(&server, "/medium", 64 << 10, MEDIUM).await;
}
