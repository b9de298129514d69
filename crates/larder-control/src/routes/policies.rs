//! Policies, as somebody sets them.

use std::sync::Arc;

use axum::extract::{Json, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, StatusCode, header};
use larder_http::Problem;
use larder_model::api::{EndpointConfig, PolicyDocument, PolicyList, PolicyReplacement, Replaced};
use larder_model::{PolicyPatch, Service};

use super::changes::{cause, made, preconditions, problem};
use crate::cause::Cause;
use crate::json::Body;
use crate::plane::Plane;
use crate::registry::{ChangeError, Replacement};
use crate::target::{Asked, OfChange, OfEndpoint, OfService, Peer};

/// The policy that was set for exactly this endpoint.
#[utoipa::path(get, path = "/api/policies/{service}/{*endpoint}", tag = "policies",
    params(("service" = String, Path), ("endpoint" = String, Path), ("method" = Option<String>, Query)),
    responses((status = OK, body = PolicyDocument), (status = NOT_FOUND, description = "none was set")))]
pub(super) async fn get(
    State(plane): State<Arc<Plane>>,
    OfEndpoint(service, endpoint): OfEndpoint,
) -> Result<Response, Problem> {
    let snapshot = plane.registry.service(&service);
    let policy = snapshot
        .and_then(|snapshot| snapshot.policy(&endpoint))
        .ok_or_else(|| problem(ChangeError::Absent))?;
    let etag = plane.registry.etag(policy.version);
    Ok(([(header::ETAG, etag)], Json(policy)).into_response())
}

/// The policies of a service. The `ETag` is of them all: decisions and overrides don't change it.
#[utoipa::path(get, path = "/api/policies/{service}", tag = "policies", params(("service" = String, Path)),
    responses((status = OK, body = PolicyList), (status = BAD_REQUEST, description = "no service")))]
pub(super) async fn list(
    State(plane): State<Arc<Plane>>,
    OfService(service): OfService,
) -> Response {
    let snapshot = plane.registry.service(&service);
    let etag = plane.registry.policies_etag(snapshot.as_deref());
    let list = snapshot.map(|one| one.list());
    let list = list.unwrap_or_else(|| PolicyList {
        service_name: service.as_str().to_owned(),
        version: 0,
        policies: Vec::new(),
    });
    ([(header::ETAG, etag)], Json(list)).into_response()
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tried {
    #[serde(default)]
    dry_run: bool,
}

/// Gives a service these policies in place of all that it has, in one step; answers what that changed. `dry_run=true` only
/// answers what it would change. `If-Match` takes the `ETag` of the service's policies.
#[utoipa::path(put, path = "/api/policies/{service}", tag = "policies", request_body = PolicyReplacement,
    params(("service" = String, Path), ("dry_run" = Option<bool>, Query), ("If-Match" = Option<String>, Header)),
    responses((status = OK, body = Replaced), (status = BAD_REQUEST, description = "not JSON, no service"),
              (status = PRECONDITION_FAILED, description = "the policies are others"),
              (status = UNPROCESSABLE_ENTITY, description = "a policy that can't be, or two of an endpoint"),
              (status = TOO_MANY_REQUESTS, description = "60 times within a minute")))]
pub(super) async fn replace(
    State(plane): State<Arc<Plane>>,
    OfService(service): OfService,
    Asked(tried): Asked<Tried>,
    peer: Peer,
    headers: HeaderMap,
    Body(new): Body<PolicyReplacement>,
) -> Result<Response, Problem> {
    let cause = cause(new.author, new.reason, peer)?;
    let replacement = Replacement::Policies(new.policies);
    replaced(plane, service, replacement, tried, headers, cause).await
}

/// What came, or would come, of a replacement.
pub(super) async fn replaced(
    plane: Arc<Plane>,
    service: Service,
    replacement: Replacement,
    tried: Tried,
    headers: HeaderMap,
    cause: Cause,
) -> Result<Response, Problem> {
    let preconditions = preconditions(&headers)?;
    let replace = async move {
        let registry = &plane.registry;
        let replace =
            registry.replace(&service, replacement, &preconditions, &cause, tried.dry_run);
        let (replaced, etag) = replace.await?;
        if !replaced.dry_run && !replaced.changes.is_empty() {
            plane.metrics.policy_changes.inc();
            tracing::info!(
                service = service.as_str(),
                version = replaced.version,
                changes = replaced.changes.len(),
                "policies replaced"
            );
        }
        Ok((replaced, etag))
    };
    let (replaced, etag) = made(replace).await?;
    Ok(([(header::ETAG, etag)], Json(replaced)).into_response())
}

/// Sets an endpoint's policy in place of the one it had; answers what is now in force.
#[utoipa::path(put, path = "/api/policies/{service}/{*endpoint}", tag = "policies", request_body = PolicyPatch,
    params(("service" = String, Path), ("endpoint" = String, Path, description = "a route template"), ("method" = Option<String>, Query),
           ("author" = Option<String>, Query, description = "who; local if left out"), ("reason" = Option<String>, Query, description = "why, in one line"),
           ("If-Match" = Option<String>, Header), ("If-None-Match" = Option<String>, Header)),
    responses((status = OK, body = EndpointConfig), (status = BAD_REQUEST, description = "not JSON, no service, no endpoint"),
              (status = PRECONDITION_FAILED, description = "the policy is another"), (status = PAYLOAD_TOO_LARGE, description = "more than 1 MiB"),
              (status = UNSUPPORTED_MEDIA_TYPE, description = "not application/json"), (status = UNPROCESSABLE_ENTITY, description = "no policy")))]
pub(super) async fn put(
    State(plane): State<Arc<Plane>>,
    OfChange(service, endpoint, cause): OfChange,
    headers: HeaderMap,
    Body(patch): Body<PolicyPatch>,
) -> Result<Response, Problem> {
    let preconditions = preconditions(&headers)?;
    let put = async move {
        let registry = &plane.registry;
        let put = registry.put(&service, &endpoint, patch, &preconditions, &cause);
        let (config, etag) = put.await?;
        plane.metrics.policy_changes.inc();
        tracing::info!(service = service.as_str(), %endpoint, version = config.version, "policy set");
        Ok((config, etag))
    };
    let (config, etag) = made(put).await?;
    Ok(([(header::ETAG, etag)], Json(config)).into_response())
}

/// Removes an endpoint's policy.
#[utoipa::path(delete, path = "/api/policies/{service}/{*endpoint}", tag = "policies",
    params(("service" = String, Path), ("endpoint" = String, Path), ("method" = Option<String>, Query),
           ("author" = Option<String>, Query, description = "who; local if left out"), ("reason" = Option<String>, Query, description = "why, in one line"),
           ("If-Match" = Option<String>, Header)),
    responses((status = NO_CONTENT, description = "it is removed"), (status = NOT_FOUND, description = "there was none"),
              (status = PRECONDITION_FAILED, description = "the policy is another")))]
pub(super) async fn delete(
    State(plane): State<Arc<Plane>>,
    OfChange(service, endpoint, cause): OfChange,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let preconditions = preconditions(&headers)?;
    let delete = async move {
        let registry = &plane.registry;
        registry
            .delete(&service, &endpoint, &preconditions, &cause)
            .await?;
        plane.metrics.policy_changes.inc();
        tracing::info!(service = service.as_str(), %endpoint, "policy removed");
        Ok(())
    };
    made(delete).await?;
    Ok(StatusCode::NO_CONTENT)
}
