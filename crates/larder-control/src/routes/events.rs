//! What the dashboard follows: that something changed.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use http::{StatusCode, header};
use larder_http::{Endless, Problem};

use super::stream::HEADERS;
use crate::access::{Caller, Who};
use crate::plane::Plane;
use crate::streams::retry_after;

/// How often it is looked whether a session is over.
const LOOK: Duration = Duration::from_secs(5);

/// Says that something which the dashboard shows changed, as server-sent events (`changed`): at most once a second, and at least
/// every 10 s. What it is, the pages and the other routes tell.
#[utoipa::path(get, path = "/api/events", tag = "overview",
    responses((status = OK, description = "a stream without an end", content_type = "text/event-stream", body = String),
              (status = SERVICE_UNAVAILABLE, description = "200 look already: come again after Retry-After")))]
pub(super) async fn events(State(plane): State<Arc<Plane>>, caller: Caller) -> Response {
    match plane.live.watch(plane.streams.ending()) {
        Some(body) => {
            let over = Box::pin(over(plane, caller));
            let body = Body::from_stream(body.into_data_stream().take_until(over));
            (Extension(Endless), HEADERS, body).into_response()
        }
        None => {
            let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE)
                .detail("as many look at the dashboard as may: it asks again and again");
            ([(header::RETRY_AFTER, retry_after().to_string())], problem).into_response()
        }
    }
}

/// Waits until the caller's key is revoked, or his session is over.
async fn over(plane: Arc<Plane>, caller: Caller) {
    match &caller.who {
        Who::Key(key) => key.over().await,
        Who::User(user) => loop {
            tokio::time::sleep(LOOK).await;
            if plane.access.has_ended(&user.ticket).await {
                return;
            }
        },
        Who::Nobody | Who::Local => std::future::pending().await,
    }
}
