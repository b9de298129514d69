//! A connection's bytes, noted as they come and go.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::Limits;
use super::pace::Pace;

/// A connection's progress, told by its stream and by its requests, watched by its task.
#[derive(Clone)]
pub(super) struct SharedPace(Arc<Mutex<Pace>>);

impl SharedPace {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Pace::new(Instant::now()))))
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
            let now = Instant::now();
            let deadline = self.lock().deadline(limits);
            if deadline.is_some_and(|deadline| deadline <= now) {
                return;
            }
            match deadline.into_iter().chain(now.checked_add(nearest)).min() {
                Some(wake) => sleep_until(wake).await,
                None => std::future::pending().await,
            }
        }
    }
}

pub(super) struct PacedStream {
    stream: TcpStream,
    pace: SharedPace,
}

impl PacedStream {
    pub(super) fn new(stream: TcpStream, pace: SharedPace) -> Self {
        Self { stream, pace }
    }

    fn note_write<T>(&self, written: &Poll<io::Result<T>>) {
        match written {
            Poll::Pending => self.pace.lock().write_blocked(Instant::now()),
            Poll::Ready(_) => self.pace.lock().wrote(),
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
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            this.pace.lock().received(Instant::now());
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
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.note_write(&written);
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, buffers);
        this.note_write(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
