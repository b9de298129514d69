//! The audit trail.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use larder_http::Problem;
use larder_model::api::AuditEntry;

use super::figures::{json, time, who};
use super::{Frame, show};
use crate::access::Caller;
use crate::plane::Plane;
use crate::routes::{next_before, seen_of_audit, unread};
use crate::target::Asked;

#[derive(Template)]
#[template(path = "audit.html")]
struct Audit {
    frame: Frame,
    head: String,
    entries: Vec<Row>,
    next_before: Option<u64>,
}

struct Row {
    sequence: u64,
    when: String,
    who: String,
    from: String,
    what: String,
    of: String,
    before: String,
    after: String,
    why: String,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Shown {
    before: Option<u64>,
}

/// So many entries are in a page.
const PAGE: u32 = 50;

pub(super) async fn audit(
    State(plane): State<Arc<Plane>>,
    caller: Caller,
    shown: Result<Asked<Shown>, Problem>,
) -> Response {
    let before = match shown {
        Ok(Asked(shown)) => shown.before.unwrap_or(u64::MAX),
        Err(problem) => return problem.into_response(),
    };
    let rows = match seen_of_audit(&plane, &caller, before, None, PAGE).await {
        Ok(rows) => rows,
        Err(error) => return unread(error).into_response(),
    };
    let last = rows.last().map(|row| row.sequence);
    let page = Audit {
        frame: Frame::of("/ui/audit", &caller),
        head: plane.registry.audit_head().to_string(),
        next_before: next_before(last, rows.len(), PAGE),
        entries: rows
            .into_iter()
            .map(|entry| row(entry.describe()))
            .collect(),
    };
    show(StatusCode::OK, &page)
}

fn row(entry: AuditEntry) -> Row {
    let (service, target) = (entry.service_name, entry.target);
    let of: Vec<String> = target.into_iter().chain(service).collect();
    Row {
        sequence: entry.sequence,
        when: time(entry.at_seconds),
        who: who(&entry.actor, entry.actor_verified),
        from: entry.address.unwrap_or_default(),
        what: entry.action.replace('_', " "),
        of: of.join(" of "),
        before: json(entry.before.as_ref()),
        after: json(entry.after.as_ref()),
        why: entry.reason,
    }
}
