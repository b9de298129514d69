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

/// No tag of ours is longer, nor a position.
const MAX_ID: usize = 256;

pub(super) const HEADERS: [(header::HeaderName, &str); 3] = [
    (header::CONTENT_TYPE, "text/event-stream"),
    (header::CACHE_CONTROL, "no-store, no-transform"),
    // nginx would keep events back until it has a page of them.
    (header::HeaderName::from_static("x-accel-buffering"), "no"),
];

/// All policies of a service that are in force, and again each time that they change, as server-sent events: `begin` with
/// the interval of heartbeats (comments); `policies` with the document of `/api/config/{service}` and its ETag without the
/// quotes as id; `unchanged` in its place for who has that version; `invalidate` with what is to be invalidated, and `;` and its
/// position as id; `drain` before the end, whose `retry` says after how many milliseconds to come again.
///
/// `Last-Event-ID` is the version that the caller has, and behind a `;` up to which position it has heard of invalidations; the
/// header `Larder-Invalidations` says the latter, too. Where either is there, the stream says behind the policies where it stands:
/// `invalidations`, and whether there is a `gap`, so that everything of the service is to be invalidated. An empty position stands
/// where the service does now.
#[utoipa::path(get, path = "/api/stream/{service}", tag = "config",
    params(("service" = String, Path), ("Last-Event-ID" = Option<String>, Header, description = "the version that the caller has"),
           ("Larder-Invalidations" = Option<String>, Header, description = "up to where the caller knows of invalidations")),
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
    let (known, position) = known(request.headers());
    let latest = || plane.registry.event(&service);
    plane.invalidations.catch_up_with(position).await;
    // All are one where the server does not say.
    let address = address(request.extensions()).unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    match plane.streams.open(&service, address, known, latest) {
        Ok(stream) => {
            let head = plane.registry.audit_head().sequence;
            let feed = plane.invalidations.follow(&service, position, head);
            let body = held.until_over(stream.with(feed).into_body());
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

/// The version that a client has, and its position in the invalidations if it says that it knows of them. What can't be a tag
/// counts for none: the client gets what holds.
fn known(headers: &HeaderMap) -> (Option<&str>, Option<&str>) {
    let text = |name| {
        let value = headers.get(name)?.to_str().ok()?;
        (value.len() <= MAX_ID).then_some(value)
    };
    let named = text("larder-invalidations");
    match text("last-event-id") {
        Some(id) => match id.split_once(';') {
            Some((tag, position)) => (Some(tag), named.or(Some(position))),
            None => (Some(id), named),
        },
        None => (None, named),
    }
}

fn refuse(refused: Refused) -> Response {
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE).detail(refused.to_string());
    let mut response = problem.into_response();
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after()));
    response
}
