//! Who did what.

use std::sync::Arc;

use axum::extract::{Json, State};
use larder_http::Problem;
use larder_model::Service;
use larder_model::api::{AuditHead, AuditList};

use super::changes::{Page, next_before, unread};
use crate::access::{Caller, Services};
use crate::audit::Row;
use crate::plane::Plane;
use crate::target::{Asked, bad};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    service: Option<String>,
    before: Option<u64>,
    limit: Option<u32>,
}

/// The audit trail, newest first, of all services or of one. Refused requests are of none.
#[utoipa::path(get, path = "/api/audit", tag = "audit",
    params(("service" = Option<String>, Query), ("before" = Option<u64>, Query, description = "only those with a smaller sequence"),
           ("limit" = Option<u32>, Query, description = "50 if left out, at most 500")),
    responses((status = OK, body = AuditList), (status = BAD_REQUEST, description = "no service"),
              (status = SERVICE_UNAVAILABLE, description = "the database does not answer")))]
pub(super) async fn list(
    State(plane): State<Arc<Plane>>,
    caller: Caller,
    Asked(filter): Asked<Filter>,
) -> Result<Json<AuditList>, Problem> {
    let service = filter.service.as_deref().map(Service::new).transpose();
    let service = service.map_err(bad)?;
    service.iter().try_for_each(|one| caller.must_see(one))?;
    let (before, limit) = Page::new(filter.before, filter.limit).bounds();
    let rows = seen(&plane, &caller, before, service.as_ref(), limit).await;
    let rows = rows.map_err(unread)?;
    let last = rows.last().map(|row| row.sequence);
    Ok(Json(AuditList {
        next_before: next_before(last, rows.len(), limit),
        entries: rows.into_iter().map(|row| row.describe()).collect(),
    }))
}

/// What a caller may see of the trail, newest first: of all services with what is of none, or of his own alone.
pub(crate) async fn seen(
    plane: &Plane,
    caller: &Caller,
    before: u64,
    only: Option<&Service>,
    limit: u32,
) -> Result<Vec<Row>, sqlx::Error> {
    let database = plane.registry.database();
    let names = match (only, &*caller.services) {
        (Some(only), _) => vec![only.as_str().to_owned()],
        (None, Services::All) => return database.audit_before(before, None, limit).await,
        (None, own) => own.names(),
    };
    let mut rows = Vec::new();
    for name in names {
        rows.extend(database.audit_before(before, Some(&name), limit).await?);
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.sequence));
    rows.truncate(limit as usize);
    Ok(rows)
}

/// Where the audit trail ends, as this control plane wrote it. Who keeps this elsewhere finds a trail that was cut or written
/// anew, by `larder audit verify --head`.
#[utoipa::path(get, path = "/api/audit/head", tag = "audit", responses((status = OK, body = AuditHead)))]
pub(super) async fn head(State(plane): State<Arc<Plane>>) -> Json<AuditHead> {
    Json(plane.registry.audit_head())
}
