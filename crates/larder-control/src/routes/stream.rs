//! What holds, for clients that follow it: told as soon as it changes.

use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use larder_http::{Endless, Problem};

use crate::plane::Plane;
use crate::streams::{Refused, retry_after};
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
    request: Request,
) -> Response {
    let (known, position) = known(request.headers());
    let latest = || plane.registry.event(&service);
    // All are one where the server does not say.
    let address = address(request.extensions()).unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    match plane.streams.open(&service, address, known, latest) {
        Ok(stream) => {
            let head = plane.registry.audit_head().sequence;
            let feed = plane.invalidations.follow(&service, position, head);
            let body = stream.with(feed).into_body();
            (Extension(Endless), HEADERS, body).into_response()
        }
        Err(refused) => {
            plane.metrics.streams_refused.inc();
            refuse(refused)
        }
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
