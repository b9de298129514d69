//! Which version each instance has in force.

use std::sync::Arc;

use axum::extract::{Json, State};
use http::StatusCode;
use larder_http::Problem;
use larder_model::Service;
use larder_model::api::{InstanceList, InstanceReport, InstanceSummary, Received};

use super::overview::Filter;
use crate::access::{Caller, not_there};
use crate::instances::ReportError;
use crate::json::Body;
use crate::plane::Plane;
use crate::target::Asked;

/// The instances that were heard of in the last hour, of all services or of one: which version each has in force, since
/// when, and over what it came.
#[utoipa::path(get, path = "/api/instances", tag = "instances", params(("service" = Option<String>, Query)),
    responses((status = OK, body = InstanceList), (status = BAD_REQUEST, description = "no service")))]
pub(super) async fn list(
    State(plane): State<Arc<Plane>>,
    caller: Caller,
    Asked(filter): Asked<Filter>,
) -> Result<Json<InstanceList>, Problem> {
    let only = filter.only(&caller)?;
    let mut instances = known(&plane, only.as_ref());
    instances.retain(|one| caller.sees(&one.service_name));
    Ok(Json(InstanceList { instances }))
}

/// How all instances that were heard of lately, or those of one service, stand.
pub(crate) fn known(plane: &Plane, only: Option<&Service>) -> Vec<InstanceSummary> {
    let current = |service: &_| {
        let version = plane
            .registry
            .service(service)
            .map_or(0, |one| one.version());
        (version, plane.registry.etag(version))
    };
    plane.instances.list(only, crate::auto::now(), current)
}

/// An instance says which version it has in force.
#[utoipa::path(post, path = "/api/instances", tag = "instances", request_body = InstanceReport,
    responses((status = OK, body = Received), (status = BAD_REQUEST, description = "not JSON"),
              (status = UNPROCESSABLE_ENTITY, description = "what can't be"),
              (status = SERVICE_UNAVAILABLE, description = "there are as many instances as may be")))]
pub(super) async fn report(
    State(plane): State<Arc<Plane>>,
    caller: Caller,
    Body(report): Body<InstanceReport>,
) -> Result<Json<Received>, Problem> {
    if !caller.sees(&report.service_name) {
        return Err(not_there());
    }
    let for_others = plane.exchange.is_there().then(|| report.clone());
    let taken = plane.instances.take(report, crate::auto::now());
    taken.map_err(|error| {
        let status = match error {
            ReportError::Full => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Problem::new(status).detail(larder_model::escape(&error.to_string()).into_owned())
    })?;
    plane.invalidations.poke();
    if let Some(report) = for_others {
        plane.exchange.instance(report);
    }
    Ok(Json(Received {
        status: "received".to_owned(),
    }))
}
