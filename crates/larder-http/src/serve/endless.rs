//! Answers without an end. hyper keeps 16 KiB of buffers for a connection as long as it lasts; a stream that is silent most of
//! the time has no use for them, and there may be tens of thousands. So once the head of such an answer is on its way, the
//! socket is taken from hyper, and the body is written to it here.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::body::Body as AxumBody;
use axum::response::Response;
use bytes::{Buf as _, Bytes};
use http::{HeaderValue, Method, Version, header};
use http_body::{Body, Frame};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::Limits;
use super::stream::{PacedStream, SharedPace};

/// What ends the chunks of a body (RFC 9112 section 7.1).
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Marks an answer that goes on for as long as its client wants, such as a stream of events: put it among the
/// response's extensions. Over HTTP/1.1 its connection then keeps nothing but the socket and the body, and is closed when
/// the body ends; a client that says anything more is left. [`Limits::write_timeout`] holds as for all others.
///
/// ```
/// use axum::body::Body;
/// use axum::response::Response;
/// use larder_http::Endless;
///
/// fn answer(events: Body) -> Response {
///     let mut response = Response::new(events);
///     response.extensions_mut().insert(Endless);
///     response
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endless;

/// Where an endless answer waits for its head to be sent.
#[derive(Clone, Default)]
pub(super) struct Handover(Arc<Slot>);

#[derive(Default)]
struct Slot {
    /// How far it is, so that all other answers cost no lock.
    step: AtomicU8,
    parts: Mutex<Parts>,
}

/// An endless answer waits for its head to be sent.
const AWAITED: u8 = 1;
/// Its head is sent.
const READY: u8 = 2;

#[derive(Default)]
struct Parts {
    body: Option<AxumBody>,
    stream: Option<TcpStream>,
}

impl Handover {
    /// Keeps the body of an endless answer back, if this is one.
    pub(super) fn keep_back(&self, response: &mut Response, method: &Method, version: Version) {
        let is_endless = response.extensions_mut().remove::<Endless>().is_some();
        if !is_endless || version != Version::HTTP_11 || method == Method::HEAD {
            return;
        }
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
        let body = std::mem::replace(response.body_mut(), AxumBody::new(Silent));
        self.lock().body = Some(body);
        self.0.step.store(AWAITED, Ordering::Release);
    }

    /// All that was to be written has been: hands the socket over, if an endless answer waits for it.
    pub(super) fn flushed(&self, stream: &mut Option<TcpStream>) {
        if self.0.step.load(Ordering::Acquire) == AWAITED {
            self.lock().stream = stream.take();
            self.0.step.store(READY, Ordering::Release);
        }
    }

    /// The socket and the body, once they are to be served by [`serve`].
    pub(super) fn take(&self) -> Option<(TcpStream, AxumBody)> {
        if self.0.step.load(Ordering::Acquire) != READY {
            return None;
        }
        let mut parts = self.lock();
        let stream = parts.stream.take()?;
        Some((stream, parts.body.take()?))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Parts> {
        self.0.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What hyper is given in the place of a body that is kept back.
struct Silent;

impl Body for Silent {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Pending
    }
}

/// Writes an endless answer's body, until it ends, or its client does.
pub(super) async fn serve(
    stream: TcpStream,
    mut body: AxumBody,
    limits: &Limits,
) -> io::Result<()> {
    let pace = SharedPace::new();
    // Never idle: only its client's slowness ends it.
    pace.lock().begin_request(false);
    let mut stream = PacedStream::new(stream, pace.clone(), Handover::default());
    loop {
        let frame = tokio::select! {
            frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)) => frame,
            () = stream.leaves() => return Ok(()),
        };
        let data = frame.transpose().map_err(io::Error::other)?;
        let data = data.map(|frame| frame.into_data().unwrap_or_default());
        let is_last = data.is_none();
        tokio::select! {
            biased;
            written = write(&mut stream, data) => written?,
            () = pace.clone().overdue(limits) => return Err(io::ErrorKind::TimedOut.into()),
        }
        if is_last {
            return stream.shutdown().await;
        }
    }
}

/// Writes a chunk, or the end of all. An empty one would be the end.
async fn write(stream: &mut PacedStream, data: Option<Bytes>) -> io::Result<()> {
    match data {
        None => stream.write_all(LAST_CHUNK).await?,
        Some(data) if data.is_empty() => {}
        Some(data) => {
            let length = format!("{:x}\r\n", data.len());
            let mut chunk = length.as_bytes().chain(data).chain(&b"\r\n"[..]);
            stream.write_all_buf(&mut chunk).await?;
        }
    }
    stream.flush().await
}
