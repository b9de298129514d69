//! Policies for a limited time.

use std::sync::Arc;

use axum::extract::{Json, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, StatusCode, Uri, header};
use larder_http::Problem;
use larder_model::Service;
use larder_model::api::{Because, NewOverride, Override, OverrideList};

use super::changes::{cause, made, preconditions, problem, unsaid};
use super::overview::Filter;
use crate::access::Caller;
use crate::json::Body;
use crate::moment::Moment;
use crate::plane::Plane;
use crate::registry::ChangeError;
use crate::target::{Asked, Peer, bad, id_of};

/// The overrides in force, of all services or of one.
#[utoipa::path(get, path = "/api/overrides", tag = "overrides", params(("service" = Option<String>, Query)),
    responses((status = OK, body = OverrideList), (status = BAD_REQUEST, description = "no service")))]
pub(super) async fn list(
    State(plane): State<Arc<Plane>>,
    caller: Caller,
    Asked(filter): Asked<Filter>,
) -> Result<Json<OverrideList>, Problem> {
    let only = filter.only(&caller)?;
    let services = plane.registry.services();
    let wanted = services
        .values()
        .filter(|snapshot| only.as_ref().is_none_or(|only| only == snapshot.service()));
    let wanted = wanted.filter(|snapshot| caller.sees(snapshot.service().as_str()));
    let overrides = wanted.flat_map(|snapshot| snapshot.overrides()).collect();
    Ok(Json(OverrideList { overrides }))
}

/// An override that is in force.
#[utoipa::path(get, path = "/api/overrides/{id}", tag = "overrides", params(("id" = String, Path)),
    responses((status = OK, body = Override), (status = NOT_FOUND, description = "it ended, or never was")))]
pub(super) async fn one(
    State(plane): State<Arc<Plane>>,
    caller: Caller,
    uri: Uri,
) -> Result<Response, Problem> {
    let over = seen(&plane, &caller, id_of(uri.path()))?;
    let etag = plane.registry.etag_of_override(&over.id);
    Ok(([(header::ETAG, etag)], Json(over)).into_response())
}

/// Begins an override: a policy for a limited time, over what is set or decided for the endpoint. Where one is in force
/// already, `If-Match` with its `ETag` or `*` replaces it.
#[utoipa::path(post, path = "/api/overrides", tag = "overrides", request_body = NewOverride,
    params(("If-Match" = Option<String>, Header), ("If-None-Match" = Option<String>, Header)),
    responses((status = CREATED, body = Override), (status = BAD_REQUEST, description = "not JSON, no service"),
              (status = CONFLICT, description = "one is in force for this endpoint"),
              (status = PRECONDITION_FAILED, description = "the one in force is another"),
              (status = UNPROCESSABLE_ENTITY, description = "no policy, no reason, no time")))]
pub(super) async fn begin(
    State(plane): State<Arc<Plane>>,
    caller: Caller,
    peer: Peer,
    headers: HeaderMap,
    Body(mut new): Body<NewOverride>,
) -> Result<Response, Problem> {
    let service = Service::new(&new.service_name).map_err(bad)?;
    caller.must_see(&service)?;
    let reason = std::mem::take(&mut new.reason);
    let cause = cause(new.author.take(), Some(reason), peer)?;
    let cause = cause.with_a_reason().map_err(unsaid)?;
    let preconditions = preconditions(&headers)?;
    let begin = async move {
        let registry = &plane.registry;
        let begin = registry.begin_override(&service, new, &preconditions, &cause, Moment::now());
        let (over, etag) = begin.await?;
        plane.metrics.policy_changes.inc();
        tracing::info!(service = service.as_str(), endpoint = %over.endpoint, id = %over.id, "override began");
        Ok((over, etag))
    };
    let (over, etag) = made(begin).await?;
    let headers = [
        (header::ETAG, etag),
        (header::LOCATION, format!("/api/overrides/{}", over.id)),
    ];
    Ok((StatusCode::CREATED, headers, Json(over)).into_response())
}

/// Ends an override; answers what it was.
#[utoipa::path(delete, path = "/api/overrides/{id}", tag = "overrides",
    params(("id" = String, Path), ("author" = Option<String>, Query), ("reason" = Option<String>, Query), ("If-Match" = Option<String>, Header)),
    responses((status = OK, body = Override), (status = NOT_FOUND, description = "it ended, or never was"),
              (status = PRECONDITION_FAILED, description = "it is another")))]
pub(super) async fn end(
    State(plane): State<Arc<Plane>>,
    uri: Uri,
    Asked(because): Asked<Because>,
    caller: Caller,
    peer: Peer,
    headers: HeaderMap,
) -> Result<Json<Override>, Problem> {
    let id = seen(&plane, &caller, id_of(uri.path()))?.id;
    let cause = cause(because.author, because.reason, peer)?;
    let preconditions = preconditions(&headers)?;
    let end = async move {
        let over = plane
            .registry
            .end_override(&id, &preconditions, &cause)
            .await?;
        plane.metrics.policy_changes.inc();
        tracing::info!(service = %over.service_name, endpoint = %over.endpoint, id = %over.id, "override ended");
        Ok(over)
    };
    made(end).await.map(Json)
}

/// The override in force that is called so, if the caller may know of its service.
fn seen(plane: &Plane, caller: &Caller, id: &str) -> Result<Override, Problem> {
    let over = plane.registry.override_in_force(id);
    let over = over.filter(|over| caller.sees(&over.service_name));
    over.ok_or_else(|| problem(ChangeError::NoOverride))
}
