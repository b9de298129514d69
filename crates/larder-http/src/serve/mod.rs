//! An accept loop for axum routers in which nobody can wait for ever: every phase of a connection has a deadline,
//! every size a bound.
//!
//! `axum::serve` installs no timer, so that half-sent headers keep a connection open without end, and takes requests
//! whose `Host` is missing, doubled, or another than the URI's. Here:
//!
//! - a request's head arrives whole within [`Limits::head_timeout`] of its first byte, and is at most
//!   [`Limits::head_bytes`] long with at most [`Limits::headers`] headers (else 431);
//! - its body arrives within [`Limits::body_timeout`] and not slower than [`Limits::body_bytes_per_second`] (else
//!   408), and is at most [`Limits::body_bytes`] long (else 413);
//! - it names one host, the same everywhere (else 400);
//! - what is refused for its head or its size is told so after [`Limits::refusal_delay`];
//! - a connection that nothing happens on is closed after [`Limits::idle_timeout`], one whose client takes nothing
//!   of the answer after [`Limits::write_timeout`], one whose client takes it slower than
//!   [`Limits::write_bytes_per_second`] that long after it fell behind;
//! - a handler that panics is answered with 500;
//! - an answer without an end ([`Endless`]) costs its socket and its body;
//! - past [`Limits::connections`], new ones wait to be accepted; when the process runs out of descriptors, too.
//!
//! Errors of the accept loop's own are `application/problem+json`; a head that is no HTTP, or too large, gets a bare
//! status.

mod answer;
mod body;
mod connection;
mod door;
mod endless;
mod head;
mod pace;
mod stream;
#[cfg(feature = "tls")]
mod tls;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use connection::{Connections, Handshake};
use door::Door;
pub use endless::Endless;
#[cfg(feature = "tls")]
pub use tls::{OverTls, rustls, serve_tls};

/// What one client may take. The default is meant for a server that anybody can reach.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at once; further ones wait to be accepted. Default: 10,000.
    pub connections: usize,
    /// From the first byte of a request's head to its last; for the first request from the connection's begin.
    /// Default: 10 s.
    pub head_timeout: Duration,
    /// The size of a request's head, in bytes; at least 8,192. Default: 16 KiB.
    pub head_bytes: u32,
    /// The headers of a request. Default: 64.
    pub headers: usize,
    /// From the moment that a body is asked for until it is whole. Default: 30 s.
    pub body_timeout: Duration,
    /// How fast a body must arrive, in bytes per second, after a first [`Limits::body_grace`]. Default: 1,024.
    pub body_bytes_per_second: u32,
    /// How long a body may be slower than [`Limits::body_bytes_per_second`]. Default: 5 s.
    pub body_grace: Duration,
    /// The size of a request's body, in bytes. Default: 1 MiB.
    pub body_bytes: u64,
    /// How long a request that is refused for its head or the size of its body waits for that answer: who sends the same again
    /// at once, and again, would take a processor. Default: 1 s.
    pub refusal_delay: Duration,
    /// How long a connection may lie idle between two requests. Default: 75 s.
    pub idle_timeout: Duration,
    /// How long a client may take nothing of an answer, or less than [`Limits::write_bytes_per_second`].
    /// Default: 30 s.
    pub write_timeout: Duration,
    /// How fast a client must take answers, in bytes per second, as soon as they wait for it. Default: 1,024.
    pub write_bytes_per_second: u32,
    /// Requests at once on one HTTP/2 connection. Default: 100.
    pub streams: u32,
    /// How long requests that are being answered may go on once `shutdown` has come. Default: 10 s.
    pub shutdown_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            head_timeout: Duration::from_secs(10),
            head_bytes: 16 << 10,
            headers: 64,
            body_timeout: Duration::from_secs(30),
            body_bytes_per_second: 1_024,
            body_grace: Duration::from_secs(5),
            body_bytes: 1 << 20,
            refusal_delay: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(30),
            write_bytes_per_second: 1_024,
            streams: 100,
            shutdown_timeout: Duration::from_secs(10),
        }
    }
}

/// Serves a router over HTTP/1 and HTTP/2 (with prior knowledge) until `shutdown` comes; then takes no new
/// connection, lets the requests that are being answered end within [`Limits::shutdown_timeout`], and drops the rest.
///
/// Handlers get the client's address by axum's `ConnectInfo<SocketAddr>`. Upgrades (WebSockets) are not offered. Where the
/// future is dropped, the listener and all connections end as soon as the runtime comes to it.
///
/// ```no_run
/// use axum::{Router, routing::get};
/// use larder_http::{Limits, serve};
///
/// # async fn example() -> std::io::Result<()> {
/// let router = Router::new().route("/", get(|| async { "hello" }));
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
/// serve(listener, router, Limits::default(), std::future::pending()).await
/// # }
/// ```
///
/// # Errors
/// One if the runtime ends first. What goes wrong with one connection ends that connection, and the listener's errors are
/// waited out.
pub fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> impl Future<Output = io::Result<()>> + Send {
    let shutdown = shutdown.boxed();
    accepting(listener, router, limits, Handshake::default(), shutdown).boxed()
}

/// Accepts in a task of its own: what drives a program's main future is a thread beside those of the runtime, which they would
/// have to wake for each connection, and share the processors with. Boxed where it is called, as is `shutdown`: a caller's crate
/// then compiles none of it.
async fn accepting(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    handshake: Handshake,
    shutdown: BoxFuture<'static, ()>,
) -> io::Result<()> {
    // Is told to end with this future.
    let mut task = JoinSet::new();
    task.spawn(accept(listener, router, limits, handshake, shutdown));
    match task.join_next().await {
        Some(Ok(ended)) => ended,
        Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Some(Err(_)) | None => Err(io::Error::other("the runtime has ended")),
    }
}

async fn accept(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    handshake: Handshake,
    mut shutdown: BoxFuture<'static, ()>,
) -> io::Result<()> {
    let limits = Arc::new(limits);
    let (closing, is_closing) = watch::channel(false);
    let connections = Connections::new(router, Arc::clone(&limits), handshake, is_closing);
    let mut door = Door::new(listener, limits.connections);
    let mut open = JoinSet::new();
    loop {
        while open.try_join_next().is_some() {}
        let entered = tokio::select! {
            biased;
            () = &mut shutdown => break,
            entered = door.next() => entered,
        };
        open.spawn(connections.run(entered));
    }
    drop(door);
    drop(connections);
    closing.send_replace(true);
    finish(open, limits.shutdown_timeout).await;
    Ok(())
}

/// Lets open connections end, for a time.
async fn finish(mut open: JoinSet<()>, timeout: Duration) {
    let all_ended = async { while open.join_next().await.is_some() {} };
    if tokio::time::timeout(timeout, all_ended).await.is_err() {
        let dropped = open.len();
        tracing::warn!(
            dropped,
            "connections were still busy at shutdown and are dropped"
        );
    }
}
