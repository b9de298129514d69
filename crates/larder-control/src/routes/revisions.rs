//! What held before: revisions, what differs between them, and back to one of them.

use std::sync::Arc;

use axum::extract::{Json, State};
use axum::response::Response;
use http::HeaderMap;
use larder_http::Problem;
use larder_model::Service;
use larder_model::api::{Because, Replaced, Revision, RevisionDiff, RevisionList, ServiceState};

use super::changes::{Page, cause, next_before, problem, unread};
use super::policies::{Tried, replaced};
use crate::json::Body;
use crate::plane::Plane;
use crate::registry::{ChangeError, Replacement, differences};
use crate::target::{Asked, OfRevision, OfService, Peer};

/// The revisions of a service, newest first: each change of its policies, overrides and decisions made one.
#[utoipa::path(get, path = "/api/revisions/{service}", tag = "revisions",
    params(("service" = String, Path), ("before" = Option<u64>, Query, description = "only those with a smaller number"),
           ("limit" = Option<u32>, Query, description = "50 if left out, at most 500")),
    responses((status = OK, body = RevisionList), (status = BAD_REQUEST, description = "no service"),
              (status = SERVICE_UNAVAILABLE, description = "the database does not answer")))]
pub(super) async fn list(
    State(plane): State<Arc<Plane>>,
    OfService(service): OfService,
    Asked(page): Asked<Page>,
) -> Result<Json<RevisionList>, Problem> {
    let (before, limit) = page.bounds();
    let database = plane.registry.database();
    let revisions = database.revisions_before(&service, before, limit).await;
    let revisions = revisions.map_err(unread)?;
    let last = revisions.last().map(|revision| revision.number);
    Ok(Json(RevisionList {
        service_name: service.as_str().to_owned(),
        next_before: next_before(last, revisions.len(), limit),
        revisions,
    }))
}

/// One revision, with all that was set and decided in it.
#[utoipa::path(get, path = "/api/revisions/{service}/{number}", tag = "revisions",
    params(("service" = String, Path), ("number" = u64, Path)),
    responses((status = OK, body = Revision), (status = NOT_FOUND, description = "it never was, or was too old to be kept")))]
pub(super) async fn one(
    State(plane): State<Arc<Plane>>,
    OfRevision(service, number): OfRevision,
) -> Result<Json<Revision>, Problem> {
    revision(&plane, &service, number).await.map(Json)
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Between {
    from: Option<u64>,
    to: Option<u64>,
}

/// What differs between two revisions: from the one before, to the newest, if left out. Revision 0 is before the first.
#[utoipa::path(get, path = "/api/revisions/{service}/diff", tag = "revisions",
    params(("service" = String, Path), ("from" = Option<u64>, Query), ("to" = Option<u64>, Query)),
    responses((status = OK, body = RevisionDiff), (status = NOT_FOUND, description = "one of them never was, or was too old to be kept")))]
pub(super) async fn diff(
    State(plane): State<Arc<Plane>>,
    OfService(service): OfService,
    Asked(between): Asked<Between>,
) -> Result<Json<RevisionDiff>, Problem> {
    let to = match between.to {
        Some(to) => to,
        None => before(&plane, &service, u64::MAX).await?,
    };
    let from = match between.from {
        Some(from) => from,
        None => before(&plane, &service, to).await?,
    };
    let (old, new) = (
        state(&plane, &service, from).await?,
        state(&plane, &service, to).await?,
    );
    Ok(Json(RevisionDiff {
        service_name: service.as_str().to_owned(),
        from,
        to,
        changes: differences(&old, &new),
    }))
}

/// Brings the policies of a revision back, as a new revision; answers what that changed. Overrides stay as they are, and
/// decisions are made anew. `dry_run=true` only answers what it would change. `If-Match` takes the `ETag` of the service's
/// policies.
#[utoipa::path(post, path = "/api/revisions/{service}/{number}/rollback", tag = "revisions", request_body = Because,
    params(("service" = String, Path), ("number" = u64, Path), ("dry_run" = Option<bool>, Query), ("If-Match" = Option<String>, Header)),
    responses((status = OK, body = Replaced), (status = NOT_FOUND, description = "it never was, or was too old to be kept"),
              (status = PRECONDITION_FAILED, description = "the policies are others")))]
pub(super) async fn rollback(
    State(plane): State<Arc<Plane>>,
    OfRevision(service, number): OfRevision,
    Asked(tried): Asked<Tried>,
    peer: Peer,
    headers: HeaderMap,
    Body(because): Body<Because>,
) -> Result<Response, Problem> {
    let cause = cause(because.author, because.reason, peer)?;
    let replacement = Replacement::Revision(number);
    replaced(plane, service, replacement, tried, headers, cause).await
}

/// The number of the revision before this one; 0 if there is none.
async fn before(plane: &Plane, service: &Service, number: u64) -> Result<u64, Problem> {
    let database = plane.registry.database();
    let revisions = database.revisions_before(service, number, 1).await;
    let revisions = revisions.map_err(unread)?;
    Ok(revisions.first().map_or(0, |revision| revision.number))
}

async fn state(plane: &Plane, service: &Service, number: u64) -> Result<ServiceState, Problem> {
    if number == 0 {
        return Ok(ServiceState::default());
    }
    let revision = revision(plane, service, number).await?;
    Ok(revision.snapshot.unwrap_or_default())
}

async fn revision(plane: &Plane, service: &Service, number: u64) -> Result<Revision, Problem> {
    let revision = plane.registry.database().revision(service, number).await;
    let revision = revision.map_err(unread)?;
    revision.ok_or_else(|| problem(ChangeError::NoRevision(number)))
}
