//! A connection's bytes, noted as they come and go.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use larder_core::{Clock as _, CoarseClock};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::Limits;
use super::endless::Handover;
use super::pace::Pace;

/// A connection's progress, told by its stream and by its requests, watched by its task.
#[derive(Clone)]
pub(super) struct SharedPace(Arc<Mutex<Pace>>);

/// Exact enough for deadlines of seconds, and asked several times in a request.
pub(super) fn now() -> Duration {
    CoarseClock.now()
}

impl SharedPace {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Pace::new(now()))))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Pace> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends when the connection has taken too long with anything.
    pub(super) async fn overdue(self, limits: &Limits) {
        // No deadline that arises later is nearer than this, so none is missed by sleeping so long.
        let nearest = limits
            .head_timeout
            .min(limits.idle_timeout)
            .min(limits.write_timeout);
        loop {
            let left = match self.lock().deadline(limits) {
                Some(deadline) => deadline.saturating_sub(now()),
                None => nearest,
            };
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(nearest)).await;
        }
    }
}

/// So much of what is written may wait in the kernel to be sent. Without a bound megabytes do, and there is room for
/// more only when a third of them is gone: a client that takes its answer slowly would seem to take nothing for minutes.
#[cfg(target_os = "linux")]
const UNSENT_BYTES: u32 = 64 << 10;

pub(super) struct PacedStream {
    /// `None` once it was handed over: whoever reads or writes here is not waited for any more.
    stream: Option<TcpStream>,
    pace: SharedPace,
    handover: Handover,
}

impl PacedStream {
    /// A socket that refuses a setting works all the same.
    pub(super) fn new(stream: TcpStream, pace: SharedPace, handover: Handover) -> Self {
        // Answers are small and written whole: waiting for more to send would only delay them.
        let _ = stream.set_nodelay(true);
        #[cfg(target_os = "linux")]
        let _ = socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES);
        Self {
            stream: Some(stream),
            pace,
            handover,
        }
    }

    /// Ends when the client closes the connection, or says anything.
    pub(super) async fn leaves(&self) {
        let Some(stream) = &self.stream else {
            return;
        };
        let is_nothing = |read: io::Result<usize>| {
            read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        };
        while stream.readable().await.is_ok() && is_nothing(stream.try_read(&mut [0; 64])) {}
    }

    fn note_write(&self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Pending => self.pace.lock().write_blocked(now()),
            Poll::Ready(Ok(bytes)) => self.pace.lock().wrote(*bytes, now()),
            Poll::Ready(Err(_)) => {}
        }
    }
}

impl AsyncRead for PacedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(stream) = &mut this.stream else {
            return Poll::Pending;
        };
        let before = buffer.filled().len();
        let read = Pin::new(stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            this.pace.lock().received(now());
        }
        read
    }
}

impl AsyncWrite for PacedStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let Some(stream) = &mut this.stream else {
            return Poll::Pending;
        };
        let written = Pin::new(stream).poll_write(cx, bytes);
        this.note_write(&written);
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let Some(stream) = &mut this.stream else {
            return Poll::Pending;
        };
        let written = Pin::new(stream).poll_write_vectored(cx, buffers);
        this.note_write(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream
            .as_ref()
            .is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Asked for when all was written, and only then.
        this.pace.lock().flushed(now());
        let Some(stream) = &mut this.stream else {
            return Poll::Pending;
        };
        let flushed = Pin::new(stream).poll_flush(cx);
        this.handover.flushed(&mut this.stream);
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Some(stream) => Pin::new(stream).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}
