//! Policies, as somebody sets them.

use std::sync::Arc;

use axum::extract::{Json, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderName, StatusCode, header};
use larder_http::Problem;
use larder_model::PolicyPatch;
use larder_model::api::{EndpointConfig, PolicyDocument, PolicyList};

use crate::json::Body;
use crate::plane::Plane;
use crate::registry::{ChangeError, Preconditions, Tags};
use crate::target::{OfEndpoint, OfService};

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

/// The policies of a service.
#[utoipa::path(get, path = "/api/policies/{service}", tag = "policies", params(("service" = String, Path)),
    responses((status = OK, body = PolicyList), (status = BAD_REQUEST, description = "no service")))]
pub(super) async fn list(
    State(plane): State<Arc<Plane>>,
    OfService(service): OfService,
) -> Json<PolicyList> {
    let list = plane.registry.service(&service).map(|one| one.list());
    Json(list.unwrap_or_else(|| PolicyList {
        service_name: service.as_str().to_owned(),
        version: 0,
        policies: Vec::new(),
    }))
}

/// Sets an endpoint's policy in place of the one it had; answers what is now in force.
#[utoipa::path(put, path = "/api/policies/{service}/{*endpoint}", tag = "policies", request_body = PolicyPatch,
    params(("service" = String, Path), ("endpoint" = String, Path, description = "a route template"), ("method" = Option<String>, Query),
           ("If-Match" = Option<String>, Header), ("If-None-Match" = Option<String>, Header)),
    responses((status = OK, body = EndpointConfig), (status = BAD_REQUEST, description = "not JSON, no service, no endpoint"),
              (status = PRECONDITION_FAILED, description = "the policy is another"), (status = PAYLOAD_TOO_LARGE, description = "more than 1 MiB"),
              (status = UNSUPPORTED_MEDIA_TYPE, description = "not application/json"), (status = UNPROCESSABLE_ENTITY, description = "no policy")))]
pub(super) async fn put(
    State(plane): State<Arc<Plane>>,
    OfEndpoint(service, endpoint): OfEndpoint,
    headers: HeaderMap,
    Body(patch): Body<PolicyPatch>,
) -> Result<Response, Problem> {
    let preconditions = preconditions(&headers)?;
    let put = async move {
        let registry = &plane.registry;
        let put = registry.put(&service, &endpoint, patch, &preconditions);
        let (config, etag) = put.await?;
        plane.metrics.policy_changes.inc();
        tracing::info!(service = service.as_str(), %endpoint, version = config.version, "policy set");
        Ok((config, etag))
    };
    let (config, etag) = to_its_end(put).await?;
    Ok(([(header::ETAG, etag)], Json(config)).into_response())
}

/// Removes an endpoint's policy.
#[utoipa::path(delete, path = "/api/policies/{service}/{*endpoint}", tag = "policies",
    params(("service" = String, Path), ("endpoint" = String, Path), ("method" = Option<String>, Query), ("If-Match" = Option<String>, Header)),
    responses((status = NO_CONTENT, description = "it is removed"), (status = NOT_FOUND, description = "there was none"),
              (status = PRECONDITION_FAILED, description = "the policy is another")))]
pub(super) async fn delete(
    State(plane): State<Arc<Plane>>,
    OfEndpoint(service, endpoint): OfEndpoint,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let preconditions = preconditions(&headers)?;
    let delete = async move {
        let registry = &plane.registry;
        registry.delete(&service, &endpoint, &preconditions).await?;
        plane.metrics.policy_changes.inc();
        tracing::info!(service = service.as_str(), %endpoint, "policy removed");
        Ok(())
    };
    to_its_end(delete).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes a change, also if its client goes away, with whom the handler ends: else it could be in the database and not
/// in force.
async fn to_its_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, ChangeError>> + Send + 'static,
) -> Result<T, Problem> {
    let made = tokio::spawn(change).await;
    let made = made.map_err(|error| {
        tracing::error!(%error, "a change of a policy came to no end");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR)
            .detail("the change failed: the control plane's log says why")
    })?;
    made.map_err(problem)
}

fn preconditions(headers: &HeaderMap) -> Result<Preconditions, Problem> {
    let tags = |name: HeaderName| -> Result<Option<Tags>, Problem> {
        let Some(value) = headers.get(&name) else {
            return Ok(None);
        };
        let text = value.to_str().map_err(|_| {
            Problem::new(StatusCode::BAD_REQUEST)
                .detail("If-Match and If-None-Match take * or what came as ETag")
        })?;
        Ok(Some(Tags(text.to_owned())))
    };
    Ok(Preconditions {
        if_match: tags(header::IF_MATCH)?,
        if_none_match: tags(header::IF_NONE_MATCH)?,
    })
}

fn problem(error: ChangeError) -> Problem {
    let status = match &error {
        ChangeError::Policy(_) => StatusCode::UNPROCESSABLE_ENTITY,
        ChangeError::Precondition => StatusCode::PRECONDITION_FAILED,
        ChangeError::Absent => StatusCode::NOT_FOUND,
        ChangeError::Full(_) => StatusCode::CONFLICT,
        ChangeError::Database(source) => {
            tracing::error!(error = %source, "the database did not take a change");
            StatusCode::SERVICE_UNAVAILABLE
        }
    };
    Problem::new(status).detail(larder_model::escape(&error.to_string()).into_owned())
}
