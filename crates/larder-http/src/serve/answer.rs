//! An answer, from its request's begin until the last of it is handed over.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body as AxumBody;
use bytes::Bytes;
use http::Version;
use http_body::{Body, Frame, SizeHint};

use super::stream::{SharedPace, now};

/// In HTTP/2 a client says how much of an answer it has room for. Larger pieces than this would seem to be taken when
/// their first byte is.
const PIECE_BYTES: usize = 16 << 10;

/// A request that is being answered, until the last of its answer is on its way.
pub(super) struct Turn {
    pace: SharedPace,
    is_multiplexed: bool,
    /// The length of the piece that waits for the client.
    offered: Option<usize>,
}

impl Turn {
    pub(super) fn begin(pace: SharedPace, version: Version) -> Self {
        let is_multiplexed = version == Version::HTTP_2;
        pace.lock().begin_request(is_multiplexed);
        Self {
            pace,
            is_multiplexed,
            offered: None,
        }
    }

    /// The next piece is there; the one before was taken.
    fn offer(&mut self, bytes: usize) {
        let mut pace = self.pace.lock();
        match self.offered.replace(bytes) {
            Some(before) => pace.took_offer(before, now()),
            None => pace.begin_offer(now()),
        }
    }

    /// What was offered was taken, or given up, and nothing more is there.
    fn end_offer(&mut self) {
        if let Some(bytes) = self.offered.take() {
            self.pace.lock().end_offer(bytes, now());
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.end_offer();
        self.pace.lock().end_request(now());
    }
}

/// An answer's body. In HTTP/1 what waits for the client is seen at the socket; in HTTP/2 it is seen here, since no
/// more is asked for until the client has room.
pub(super) struct PacedBody {
    body: AxumBody,
    /// What is left of the body's last frame.
    rest: Bytes,
    turn: Turn,
}

impl PacedBody {
    pub(super) fn new(body: AxumBody, turn: Turn) -> Self {
        Self {
            body,
            rest: Bytes::new(),
            turn,
        }
    }

    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                none => return none,
            }
        }
        let length = self.rest.len().min(PIECE_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }
}

impl Body for PacedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        if !this.turn.is_multiplexed {
            return Pin::new(&mut this.body).poll_frame(cx);
        }
        let piece = this.poll_piece(cx);
        match &piece {
            Poll::Ready(Some(Ok(frame))) => this.turn.offer(frame.data_ref().map_or(0, Bytes::len)),
            _ => this.turn.end_offer(),
        }
        piece
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        if let Some(most) = hint.upper() {
            hint.set_upper(most.saturating_add(rest));
        }
        hint.set_lower(hint.lower().saturating_add(rest));
        hint
    }
}
