//! What there is, and how it is.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Json, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use larder_http::Problem;
use larder_model::Service;
use larder_model::api::{MeasuredList, ServiceList, ServiceSummary};

use super::instances::known;
use crate::access::Caller;
use crate::dashboard;
use crate::measured::REACH;
use crate::plane::Plane;
use crate::proxies::Client;
use crate::target::{Asked, bad};

const PAGE: &str = "\
Larder's control plane

GET    /api/services                            services that have policies or were measured
GET    /api/policies/{service}                  its policies
PUT    /api/policies/{service}/{endpoint}       set one, such as {\"mode\":\"on\",\"ttl_seconds\":60}
DELETE /api/policies/{service}/{endpoint}       remove one
GET    /api/overrides                           policies for a limited time
GET    /api/revisions/{service}                 what was set and decided before
GET    /api/audit                               who did what
GET    /api/config/{service}/{endpoint}         what is in force, and why
GET    /api/explain/{service}/{endpoint}        what was decided, from what, and what would flip it
GET    /api/endpoints                           what was measured in the last minutes
GET    /api/rollups/{service}                   what was measured in the last day by minute, or 90 days by hour
GET    /api/instances                           which version each instance of a service has in force
POST   /api/invalidate                          what is cached, away: a key, pattern, endpoint, tag, service
GET    /api/invalidations                       the latest of that, and what is pending
GET    /api/keys/{service}                      what lies in the store that the control plane has
GET    /api/api-keys, /api/users                    who may do what
GET    /api/stream/{service}                    its policies, and each change of them (server-sent events)
POST   /api/signals                             report a request
GET    /healthz, /readyz, /metrics              is it well
GET    /openapi.json                            all of this, for programs
";

/// All services.
#[utoipa::path(get, path = "/api/services", tag = "overview", responses((status = OK, body = ServiceList)))]
pub(super) async fn services(State(plane): State<Arc<Plane>>, caller: Caller) -> Json<ServiceList> {
    let mut services = BTreeMap::new();
    let all = plane.registry.services();
    for (name, snapshot) in all.iter().filter(|(name, _)| caller.sees(name)) {
        let summary = ServiceSummary {
            service_name: name.clone(),
            version: snapshot.version(),
            policies: snapshot.policies() as u64,
            endpoints: 0,
        };
        services.insert(name.clone(), summary);
    }
    let measured = plane.measured.services();
    for (name, endpoints) in measured.into_iter().filter(|(name, _)| caller.sees(name)) {
        let summary = services.entry(name.clone()).or_insert(ServiceSummary {
            service_name: name,
            version: 0,
            policies: 0,
            endpoints: 0,
        });
        summary.endpoints = endpoints;
    }
    Json(ServiceList {
        services: services.into_values().collect(),
    })
}

/// Of which service something is asked for; of all if left out.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Filter {
    service: Option<String>,
}

impl Filter {
    /// # Errors
    /// What is no name of a service, or names one that the caller may not know of.
    pub(crate) fn only(&self, caller: &Caller) -> Result<Option<Service>, Problem> {
        let only = self.service.as_deref().map(Service::new).transpose();
        let only = only.map_err(bad)?;
        only.iter().try_for_each(|only| caller.must_see(only))?;
        Ok(only)
    }
}

/// What was measured lately, of all services or of one.
#[utoipa::path(get, path = "/api/endpoints", tag = "overview", params(("service" = Option<String>, Query)),
    responses((status = OK, body = MeasuredList), (status = BAD_REQUEST, description = "no service")))]
pub(super) async fn endpoints(
    State(plane): State<Arc<Plane>>,
    caller: Caller,
    Asked(filter): Asked<Filter>,
) -> Result<Json<MeasuredList>, Problem> {
    let only = filter.only(&caller)?;
    let mut endpoints = plane.measured.list(only.as_ref(), crate::auto::now());
    endpoints.retain(|one| caller.sees(&one.service_name));
    Ok(Json(MeasuredList {
        window_seconds: REACH.as_secs(),
        endpoints,
    }))
}

/// Whether the process lives.
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = OK, body = String)))]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether it can do its work: its database answers.
#[utoipa::path(get, path = "/readyz", tag = "health",
    responses((status = OK, body = String), (status = SERVICE_UNAVAILABLE, description = "the database does not answer")))]
pub(super) async fn readyz(State(plane): State<Arc<Plane>>) -> Result<&'static str, Problem> {
    if plane.registry.is_reachable().await {
        return Ok("ok\n");
    }
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE)
        .retry_after(super::changes::RETRY_AFTER)
        .detail("the database does not answer; policies are still served from memory"))
}

/// What it counts, for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "health",
    responses((status = OK, body = String, content_type = "application/openmetrics-text")))]
pub(super) async fn metrics(State(plane): State<Arc<Plane>>) -> Response {
    let policies: usize = plane
        .registry
        .services()
        .values()
        .map(|one| one.policies())
        .sum();
    let endpoints: u64 = plane
        .measured
        .services()
        .iter()
        .map(|(_, count)| count)
        .sum();
    plane
        .metrics
        .policies
        .set(i64::try_from(policies).unwrap_or(i64::MAX));
    plane
        .metrics
        .endpoints
        .set(i64::try_from(endpoints).unwrap_or(i64::MAX));
    let streams = i64::try_from(plane.streams.count());
    plane.metrics.streams.set(streams.unwrap_or(i64::MAX));
    plane.metrics.count_instances(&known(&plane, None));
    plane.metrics.leader.set(plane.leading.holds().into());
    let form = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, form)], plane.metrics.encode()).into_response()
}

/// The dashboard for browsers; for others, where things are.
pub(super) async fn page(
    State(plane): State<Arc<Plane>>,
    caller: Caller,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
) -> Response {
    if dashboard::wants_page(&headers) {
        return dashboard::fleet(&plane, &caller, client.is_sealed, &headers).await;
    }
    PAGE.into_response()
}

/// A document that is JSON already.
pub(super) async fn json(document: Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], document).into_response()
}
