//! What holds, for clients that follow it: told as soon as it changes.

use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use larder_http::{Endless, Problem};

use crate::access::{Caller, Key, StreamOfKey, Who};
use crate::plane::Plane;
use crate::streams::{Refused, StreamLimits, retry_after};
use crate::target::{OfService, address};

/// No tag of ours is longer.
const MAX_TAG: usize = 128;

const HEADERS: [(header::HeaderName, &str); 3] = [
    (header::CONTENT_TYPE, "text/event-stream"),
    (header::CACHE_CONTROL, "no-store, no-transform"),
    // nginx would keep events back until it has a page of them.
    (header::HeaderName::from_static("x-accel-buffering"), "no"),
];

/// All policies of a service that are in force, and again each time that they change, as server-sent events: `begin` with
/// the interval of heartbeats (comments); `policies` with the document of `/api/config/{service}` and its ETag without the
/// quotes as id; `unchanged` in its place for who has that version; `drain` before the end, whose `retry` says after how
/// many milliseconds to come again.
#[utoipa::path(get, path = "/api/stream/{service}", tag = "config",
    params(("service" = String, Path), ("Last-Event-ID" = Option<String>, Header, description = "the version that the caller has")),
    responses((status = OK, description = "a stream without an end", content_type = "text/event-stream", body = String),
              (status = BAD_REQUEST, description = "no service"),
              (status = SERVICE_UNAVAILABLE, description = "there are as many streams as may be: come again after Retry-After")))]
pub(super) async fn of_service(
    State(plane): State<Arc<Plane>>,
    OfService(service): OfService,
    caller: Caller,
    request: Request,
) -> Response {
    let Some(held) = Held::of(&caller, plane.streams.limits()) else {
        plane.metrics.streams_refused.inc();
        return refuse(Refused::OfKey);
    };
    let known = last_event_id(request.headers());
    let latest = || plane.registry.event(&service);
    // All are one where the server does not say.
    let address = address(request.extensions()).unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    match plane.streams.open(&service, address, known, latest) {
        Ok(stream) => {
            let body = held.until_over(stream.into_body());
            (Extension(Endless), HEADERS, body).into_response()
        }
        Err(refused) => {
            plane.metrics.streams_refused.inc();
            refuse(refused)
        }
    }
}

/// What a stream holds of the key that it was opened with.
enum Held {
    Nothing,
    Key { key: Key, place: StreamOfKey },
}

impl Held {
    /// `None`: the key has as many streams as it may have.
    fn of(caller: &Caller, limits: &StreamLimits) -> Option<Self> {
        match &caller.who {
            // The guard lets no session have one.
            Who::Nobody | Who::Local | Who::User(_) => Some(Self::Nothing),
            Who::Key(key) => Some(Self::Key {
                place: key.stream(limits.per_key)?,
                key: key.clone(),
            }),
        }
    }

    /// The stream until the key is revoked, or its time is over.
    fn until_over(self, stream: Body) -> Body {
        let Self::Key { key, place } = self else {
            return stream;
        };
        let over = key.over();
        let pieces = stream.into_data_stream().take_until(Box::pin(over));
        Body::from_stream(pieces.map(move |piece| {
            let _held = &place;
            piece
        }))
    }
}

/// What can't be a tag counts for none: the client gets what holds.
fn last_event_id(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get("last-event-id")?.to_str().ok()?;
    (id.len() <= MAX_TAG).then_some(id)
}

fn refuse(refused: Refused) -> Response {
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE).detail(refused.to_string());
    let mut response = problem.into_response();
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after()));
    response
}
