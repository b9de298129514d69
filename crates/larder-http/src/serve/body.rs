//! A request's body that is neither too large nor too slow.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use super::Limits;
use super::pace::earned_time;

/// How a body's arrival went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    Fine,
    TooLarge,
    TooSlow,
}

/// Tells how a body's arrival went, after the handler had the body.
pub(super) struct ArrivalNote(Arc<AtomicU8>);

impl ArrivalNote {
    pub(super) fn get(&self) -> Arrival {
        match self.0.load(Ordering::Relaxed) {
            TOO_LARGE => Arrival::TooLarge,
            TOO_SLOW => Arrival::TooSlow,
            _ => Arrival::Fine,
        }
    }
}

const TOO_LARGE: u8 = 1;
const TOO_SLOW: u8 = 2;

#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the body is too large")]
    TooLarge,
    #[error("the body took too long")]
    TooSlow,
    #[error(transparent)]
    Broken(#[from] hyper::Error),
}

pub(super) struct BoundedBody {
    body: Incoming,
    limits: Arc<Limits>,
    note: Arc<AtomicU8>,
    received: u64,
    /// From the moment that the body was asked for.
    patience: Option<Patience>,
}

struct Patience {
    begin: Instant,
    sleep: Pin<Box<Sleep>>,
}

impl BoundedBody {
    pub(super) fn new(body: Incoming, limits: Arc<Limits>) -> (Self, ArrivalNote) {
        let note = Arc::new(AtomicU8::new(0));
        let arrival = ArrivalNote(Arc::clone(&note));
        let body = Self {
            body,
            limits,
            note,
            received: 0,
            patience: None,
        };
        (body, arrival)
    }

    fn count(&mut self, frame: &Frame<Bytes>) -> Result<(), BodyError> {
        let bytes = frame.data_ref().map_or(0, Buf::remaining) as u64;
        self.received = self.received.saturating_add(bytes);
        if self.received > self.limits.body_bytes {
            self.note.store(TOO_LARGE, Ordering::Relaxed);
            return Err(BodyError::TooLarge);
        }
        Ok(())
    }

    /// Ready when the body has taken too long.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let allowed = allowed_time(&self.limits, self.received);
        let patience = self.patience.get_or_insert_with(|| {
            let begin = Instant::now();
            let sleep = Box::pin(sleep_until(begin + allowed));
            Patience { begin, sleep }
        });
        let deadline = patience.begin + allowed;
        if patience.sleep.deadline() != deadline {
            patience.sleep.as_mut().reset(deadline);
        }
        patience.sleep.as_mut().poll(cx)
    }
}

/// How long a body may take of which so much has arrived.
fn allowed_time(limits: &Limits, received: u64) -> Duration {
    limits
        .body_grace
        .saturating_add(earned_time(received, limits.body_bytes_per_second))
        .min(limits.body_timeout)
}

impl Body for BoundedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        // Asked before the bytes are: a body that trickles is never waited for, and is overdue all the same.
        if this.poll_patience(cx).is_ready() {
            this.note.store(TOO_SLOW, Ordering::Relaxed);
            return Poll::Ready(Some(Err(BodyError::TooSlow)));
        }
        let Some(frame) = ready!(Pin::new(&mut this.body).poll_frame(cx)) else {
            return Poll::Ready(None);
        };
        let frame = frame?;
        this.count(&frame)?;
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_earn_time_up_to_the_whole_of_it() {
        let limits = Limits::default();
        let allowed = |received| allowed_time(&limits, received).as_secs();
        assert_eq!(
            [allowed(0), allowed(10 << 10), allowed(1 << 20)],
            [5, 15, 30]
        );
    }
}
