//! What the dashboard follows: that something changed.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, header};
use larder_http::{Endless, Problem};

use super::stream::HEADERS;
use crate::plane::Plane;
use crate::streams::retry_after;

/// Says that something which the dashboard shows changed, as server-sent events (`changed`): at most once a second, and at least
/// every 10 s. What it is, the pages and the other routes tell.
#[utoipa::path(get, path = "/api/events", tag = "overview",
    responses((status = OK, description = "a stream without an end", content_type = "text/event-stream", body = String),
              (status = SERVICE_UNAVAILABLE, description = "200 look already: come again after Retry-After")))]
pub(super) async fn events(State(plane): State<Arc<Plane>>) -> Response {
    match plane.live.watch(plane.streams.ending()) {
        Some(body) => (Extension(Endless), HEADERS, body).into_response(),
        None => {
            let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE)
                .detail("as many look at the dashboard as may: it asks again and again");
            ([(header::RETRY_AFTER, retry_after().to_string())], problem).into_response()
        }
    }
}
