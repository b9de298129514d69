//! What holds, for clients: answered from memory.

use std::sync::Arc;

use axum::extract::{Json, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, StatusCode, header};
use larder_model::api::{EndpointConfig, ServiceConfig};

use crate::plane::Plane;
use crate::registry::{Published, Tags};
use crate::target::{OfEndpoint, OfService};

const CACHE_CONTROL: (header::HeaderName, &str) = (header::CACHE_CONTROL, "private, no-cache");

/// Where the service's invalidations stand, for those who can't follow its stream.
const POSITION: header::HeaderName = header::HeaderName::from_static("larder-invalidations");

/// The policy in force for an endpoint, or for the endpoint that a concrete path belongs to.
#[utoipa::path(get, path = "/api/config/{service}/{*endpoint}", tag = "config",
    params(("service" = String, Path), ("endpoint" = String, Path, description = "a route template or a concrete path"),
           ("method" = Option<String>, Query, description = "GET if left out")),
    responses((status = OK, body = EndpointConfig), (status = BAD_REQUEST, description = "no service or no endpoint")))]
pub(super) async fn of_endpoint(
    State(plane): State<Arc<Plane>>,
    OfEndpoint(service, endpoint): OfEndpoint,
) -> Response {
    let config = plane.registry.config(&service, &endpoint);
    ([CACHE_CONTROL], Json(config)).into_response()
}

/// All policies of a service that are in force, with their version as `ETag`; and as `Larder-Invalidations` where its
/// invalidations stand.
#[utoipa::path(get, path = "/api/config/{service}", tag = "config",
    params(("service" = String, Path), ("If-None-Match" = Option<String>, Header)),
    responses((status = OK, body = ServiceConfig), (status = NOT_MODIFIED, description = "the caller has this version"),
              (status = BAD_REQUEST, description = "no service")))]
pub(super) async fn of_service(
    State(plane): State<Arc<Plane>>,
    OfService(service): OfService,
    headers: HeaderMap,
) -> Response {
    let Published { etag, document } = plane.registry.published(&service);
    let known = headers
        .get(header::IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok());
    let head = plane.registry.audit_head().sequence;
    let position = plane.invalidations.now(&service, head);
    let validators = [
        CACHE_CONTROL,
        (header::ETAG, etag.as_str()),
        (POSITION, &position),
    ];
    if known.is_some_and(|known| Tags(known.to_owned()).has(Some(&etag))) {
        return (StatusCode::NOT_MODIFIED, validators).into_response();
    }
    let json = [(header::CONTENT_TYPE, "application/json")];
    (validators, json, document).into_response()
}
