//! One connection, from its first byte to its last.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body as AxumBody;
use axum::extract::ConnectInfo;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use http::{Request, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tower::Service as _;

use super::answer::{PacedBody, Turn};
use super::body::{Arrival, BoundedBody};
use super::door::Entered;
use super::endless::{self, Handover};
use super::stream::{PacedStream, SharedPace};
use super::{Limits, head};
use crate::Problem;

/// How often an HTTP/2 client that is being answered is asked whether it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// hyper's least size for its buffer.
const LEAST_HEAD_BYTES: usize = 8_192;

/// The headers that hyper's parser has room for without being told: more costs time at each request, and fewer are
/// counted afterwards.
const PARSER_HEADERS: usize = 100;

/// What all connections have in common.
pub(super) struct Connections {
    router: Router,
    limits: Arc<Limits>,
    builder: Arc<auto::Builder<TokioExecutor>>,
    handshake: Handshake,
    pub(super) is_closing: watch::Receiver<bool>,
}

/// What a connection begins with: nothing, or TLS.
#[derive(Clone, Default)]
pub(super) struct Handshake {
    #[cfg(feature = "tls")]
    pub(super) tls: Option<tokio_rustls::TlsAcceptor>,
}

impl Connections {
    pub(super) fn new(
        router: Router,
        limits: Arc<Limits>,
        handshake: Handshake,
        is_closing: watch::Receiver<bool>,
    ) -> Self {
        Self {
            router,
            builder: Arc::new(builder(&limits)),
            limits,
            handshake,
            is_closing,
        }
    }

    /// Serves one connection to its end.
    pub(super) fn run(&self, entered: Entered) -> impl Future<Output = ()> + Send + use<> {
        let Entered {
            stream,
            peer,
            place,
        } = entered;
        let pace = SharedPace::new();
        let handover = Handover::default();
        let answering = Answering {
            router: self.router.clone(),
            limits: Arc::clone(&self.limits),
            pace: pace.clone(),
            handover: handover.clone(),
            is_over_tls: false,
            peer,
        };
        let driven = Driven {
            answering,
            builder: Arc::clone(&self.builder),
            is_closing: self.is_closing.clone(),
        };
        let handshake = self.handshake.clone();
        async move {
            let _place = place;
            let stream = PacedStream::new(stream, pace, handover);
            begin(handshake, stream, driven).await;
        }
    }
}

/// Shakes hands, and serves what comes then.
async fn begin(handshake: Handshake, stream: PacedStream, driven: Driven) {
    #[cfg(feature = "tls")]
    if let Some(tls) = handshake.tls {
        return Box::pin(driven.over_tls(&tls, stream)).await;
    }
    let _ = handshake;
    let (peer, limits) = (driven.answering.peer, Arc::clone(&driven.answering.limits));
    // In a box, so that what an endless answer has no use for is given back.
    let handed_over = Box::pin(driven.drive(stream)).await;
    if let Some((stream, body)) = handed_over
        && let Err(error) = endless::serve(stream, body, &limits).await
    {
        tracing::debug!(%peer, %error, "endless answer ended");
    }
}

/// A connection that is about to be served.
pub(super) struct Driven {
    pub(super) answering: Answering,
    builder: Arc<auto::Builder<TokioExecutor>>,
    pub(super) is_closing: watch::Receiver<bool>,
}

impl Driven {
    /// Serves it until it ends, or an endless answer is handed over.
    pub(super) async fn drive(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Option<(TcpStream, AxumBody)> {
        let Self {
            answering,
            builder,
            mut is_closing,
        } = self;
        let (peer, handover) = (answering.peer, answering.handover.clone());
        let (pace, limits) = (answering.pace.clone(), Arc::clone(&answering.limits));
        let service = service_fn(move |request| answering.clone().answer(request));
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let mut overdue = std::pin::pin!(pace.overdue(&limits));
        let mut is_told = false;
        loop {
            let step = poll_fn(|cx| {
                let ended = connection.as_mut().poll(cx).map(Step::Ended);
                match handover.take() {
                    Some((stream, body)) => Poll::Ready(Step::HandedOver(stream, body)),
                    None => ended,
                }
            });
            tokio::select! {
                step = step => match step {
                    Step::HandedOver(stream, body) => return Some((stream, body)),
                    Step::Ended(Ok(())) => return None,
                    Step::Ended(Err(error)) => {
                        tracing::debug!(%peer, %error, "connection ended");
                        return None;
                    }
                },
                () = &mut overdue => {
                    tracing::debug!(%peer, "connection took too long and is closed");
                    return None;
                }
                _ = is_closing.wait_for(|is_closing| *is_closing), if !is_told => {
                    is_told = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// How far a connection has come.
enum Step {
    Ended(Result<(), Box<dyn std::error::Error + Send + Sync>>),
    /// An endless answer's head is sent; the rest is not hyper's.
    HandedOver(TcpStream, AxumBody),
}

fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let head_bytes = usize::try_from(limits.head_bytes).unwrap_or(usize::MAX);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        // The connection's own pace has all time-outs: hyper's would take a timer for each request.
        .header_read_timeout(None)
        .max_buf_size(head_bytes.max(LEAST_HEAD_BYTES));
    if limits.headers > PARSER_HEADERS {
        builder.http1().max_headers(limits.headers);
    }
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(limits.head_bytes);
    builder
}

/// What the requests of one connection have in common.
#[derive(Clone)]
pub(super) struct Answering {
    router: Router,
    pub(super) limits: Arc<Limits>,
    pace: SharedPace,
    handover: Handover,
    pub(super) is_over_tls: bool,
    pub(super) peer: SocketAddr,
}

impl Answering {
    async fn answer(
        self,
        request: Request<Incoming>,
    ) -> Result<http::Response<PacedBody>, Infallible> {
        let turn = Turn::begin(self.pace.clone(), request.version());
        let (handover, is_over_tls) = (self.handover.clone(), self.is_over_tls);
        let (method, version) = (request.method().clone(), request.version());
        let mut response = match head::check(&request, &self.limits) {
            Ok(()) => self.route(request).await,
            Err(problem) => {
                drop(request);
                refuse(problem, &self.limits).await
            }
        };
        // What is sealed is written by who seals it.
        if !is_over_tls {
            handover.keep_back(&mut response, &method, version);
        }
        Ok(response.map(|body| PacedBody::new(body, turn)))
    }

    async fn route(mut self, mut request: Request<Incoming>) -> Response {
        request.extensions_mut().insert(ConnectInfo(self.peer));
        #[cfg(feature = "tls")]
        if self.is_over_tls {
            request.extensions_mut().insert(super::OverTls);
        }
        if request.body().is_end_stream() {
            return self.call(request.map(|_| AxumBody::empty())).await;
        }
        let (parts, body) = request.into_parts();
        let (body, arrival) = BoundedBody::new(body, Arc::clone(&self.limits));
        let request = Request::from_parts(parts, AxumBody::new(body));
        let response = self.call(request).await;
        match arrival.get() {
            Arrival::Fine => response,
            Arrival::TooLarge => refuse(too_large(&self.limits), &self.limits).await,
            Arrival::TooSlow => Problem::new(StatusCode::REQUEST_TIMEOUT)
                .detail("the request's body took too long: send it faster")
                .into_response(),
        }
    }

    /// A handler that panics is answered for, so that its client isn't left with a connection that just ends.
    async fn call(&mut self, request: Request<AxumBody>) -> Response {
        let answered = AssertUnwindSafe(self.router.call(request)).catch_unwind();
        match answered.await {
            Ok(Ok(response)) => response,
            Err(_panic) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR)
                .detail("the service failed to answer this request: its log says why")
                .into_response(),
        }
    }
}

/// Answers who sent what he must not, later than he could be.
async fn refuse(problem: Problem, limits: &Limits) -> Response {
    tokio::time::sleep(limits.refusal_delay).await;
    problem.into_response()
}

pub(super) fn too_large(limits: &Limits) -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE).detail(format!(
        "the request's body is larger than the {} bytes allowed",
        limits.body_bytes
    ))
}
