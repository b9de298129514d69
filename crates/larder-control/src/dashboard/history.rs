//! What held before, for one service; and back to it.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use larder_http::Problem;
use larder_model::Service;
use larder_model::api::{Action, Difference, Kind, Revision, ServiceState};

use super::figures::{json, time, who};
use super::{Frame, href_of, missing, show};
use crate::access::Caller;
use crate::plane::Plane;
use crate::registry::differences;
use crate::routes::{next_before, unread};
use crate::target::{Asked, OfService};

#[derive(Template)]
#[template(path = "history.html")]
struct History {
    frame: Frame,
    service: String,
    service_href: String,
    /// That of the policies that are set.
    etag: String,
    diff: Option<Diff>,
    revisions: Vec<Row>,
    next_before: Option<u64>,
}

/// What a revision changed.
struct Diff {
    number: u64,
    rollback: String,
    /// Whether it is not the latest.
    can_roll_back: bool,
    changes: Vec<Change>,
}

struct Change {
    endpoint: String,
    kind: &'static str,
    before: String,
    after: String,
}

struct Row {
    number: u64,
    when: String,
    what: &'static str,
    who: String,
    why: String,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Shown {
    before: Option<u64>,
    of: Option<u64>,
}

/// So many revisions are in a page.
const PAGE: u32 = 50;

pub(super) async fn history(
    State(plane): State<Arc<Plane>>,
    caller: Caller,
    target: Result<OfService, Problem>,
    shown: Result<Asked<Shown>, Problem>,
) -> Response {
    let page = async {
        let OfService(service) = target?;
        let Asked(shown) = shown?;
        made(&plane, &caller, &service, &shown).await
    };
    page.await.unwrap_or_else(|problem| problem.into_response())
}

async fn made(
    plane: &Plane,
    caller: &Caller,
    service: &Service,
    shown: &Shown,
) -> Result<Response, Problem> {
    let before = shown.before.unwrap_or(u64::MAX);
    let database = plane.registry.database();
    let revisions = database.revisions_before(service, before, PAGE).await;
    let revisions = revisions.map_err(unread)?;
    let snapshot = plane.registry.service(service);
    let latest = snapshot.as_ref().map_or(0, |snapshot| snapshot.version());
    let diff = match shown.of {
        None => None,
        Some(number) => match diff(plane, service, number, latest).await? {
            Some(diff) => Some(diff),
            None => {
                return Ok(missing(
                    caller,
                    "That revision never was, or was too old to be kept",
                ));
            }
        },
    };
    let last = revisions.last().map(|revision| revision.number);
    let page = History {
        frame: Frame::of("", caller),
        service: service.as_str().to_owned(),
        service_href: href_of(service),
        etag: plane.registry.policies_etag(snapshot.as_deref()),
        diff,
        next_before: next_before(last, revisions.len(), PAGE),
        revisions: revisions.into_iter().map(row).collect(),
    };
    Ok(show(StatusCode::OK, &page))
}

async fn diff(
    plane: &Plane,
    service: &Service,
    number: u64,
    latest: u64,
) -> Result<Option<Diff>, Problem> {
    let database = plane.registry.database();
    let Some(new) = database.revision(service, number).await.map_err(unread)? else {
        return Ok(None);
    };
    let before = database.revisions_before(service, number, 1).await;
    let old = match before.map_err(unread)?.first() {
        Some(before) => database
            .revision(service, before.number)
            .await
            .map_err(unread)?,
        None => None,
    };
    let changes = differences(&state(old), &state(Some(new)));
    Ok(Some(Diff {
        number,
        rollback: format!("/api/revisions/{}/{number}/rollback", service.as_str()),
        can_roll_back: number < latest,
        changes: changes.into_iter().map(change).collect(),
    }))
}

fn state(revision: Option<Revision>) -> ServiceState {
    revision
        .and_then(|revision| revision.snapshot)
        .unwrap_or_default()
}

fn change(difference: Difference) -> Change {
    Change {
        endpoint: difference.endpoint,
        kind: match difference.kind {
            Kind::Policy => "policy",
            Kind::Override => "override",
            Kind::Decision => "decision",
        },
        before: json(difference.before.as_ref()),
        after: json(difference.after.as_ref()),
    }
}

fn row(revision: Revision) -> Row {
    Row {
        number: revision.number,
        when: time(revision.at_seconds),
        what: what(revision.action),
        who: who(&revision.author, revision.author_verified),
        why: revision.reason,
    }
}

fn what(action: Action) -> &'static str {
    match action {
        Action::PolicySet => "policy set",
        Action::PolicyRemoved => "policy removed",
        Action::PoliciesReplaced => "policies replaced",
        Action::RolledBack => "rolled back",
        Action::OverrideBegan => "override began",
        Action::OverrideEnded => "override ended",
        Action::OverrideExpired => "override over",
        Action::Decided => "decided",
    }
}
