//! A cached text inside an answer.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body as AxumBody;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, header};
use http_body::{Body, Frame, SizeHint};
use larder_core::Json;

/// A JSON text between two others, as an answer of `application/json`: `{"cached":true,"products":` … `}`. The text is not
/// copied: it is sent from where the cache has it.
pub struct Enclosed {
    /// In the order in which they are sent.
    parts: [Bytes; 3],
    next: usize,
}

impl Enclosed {
    /// A text, with what stands before and behind it.
    #[must_use]
    pub fn new(before: impl Into<Bytes>, text: Json, after: impl Into<Bytes>) -> Self {
        Self {
            parts: [before.into(), text.into_bytes(), after.into()],
            next: 0,
        }
    }

    fn left(&self) -> &[Bytes] {
        self.parts.get(self.next..).unwrap_or_default()
    }
}

impl Body for Enclosed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        let part = this.parts.get_mut(this.next).map(std::mem::take);
        this.next += 1;
        Poll::Ready(part.map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.left().is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left().iter().map(|part| part.len() as u64).sum())
    }
}

impl IntoResponse for Enclosed {
    fn into_response(self) -> Response {
        let mut response = Response::new(AxumBody::new(self));
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_parts_are_sent_in_order_and_their_length_is_known() {
        let text = Json::parse(Bytes::from_static(b"[1]")).unwrap();
        let response = Enclosed::new("{\"a\":", text, "}").into_response();
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
        assert_eq!(response.body().size_hint().exact(), Some(9));
        let whole = axum::body::to_bytes(response.into_body(), 100).await;
        assert_eq!(whole.unwrap(), r#"{"a":[1]}"#);
    }

    #[tokio::test]
    async fn what_is_left_is_told_while_it_is_sent() {
        let text = Json::parse(Bytes::from_static(b"[1]")).unwrap();
        let mut body = Enclosed::new("", text, "}");
        let mut frames = Vec::new();
        while !body.is_end_stream() {
            let before = body.size_hint().exact().unwrap();
            let frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
            let data = frame.unwrap().unwrap().into_data().unwrap();
            let after = body.size_hint().exact().unwrap();
            assert_eq!(before - after, data.len() as u64);
            frames.push(data);
        }
        assert_eq!(frames, ["", "[1]", "}"]);
    }
}
