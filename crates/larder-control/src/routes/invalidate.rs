//! What is cached, away: in the store that the control plane has, and in every instance that follows the service.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Json, State};
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, Uri, header};
use larder_core::{Key, Pattern, Service, Target};
use larder_http::Problem;
use larder_model::api::{
    Invalidate, Invalidation, InvalidationList, InvalidationState, MissedInvalidations, Named,
};

use super::changes::{RETRY_AFTER, cause, to_its_end};
use super::overview::Filter;
use crate::access::Caller;
use crate::cause::Cause;
use crate::invalidations::{self, NotDone};
use crate::json::Body;
use crate::plane::Plane;
use crate::target::{Asked, OfService, Peer, bad, id_of};

/// An answer waits so long if nothing else is said, and no longer.
const WAIT: f64 = 2.0;
const MOST_WAIT: f64 = 30.0;
/// Who invalidates too often may again after this.
const MINUTE: Duration = Duration::from_secs(60);
/// So many are listed.
const MOST_LISTED: usize = 100;

/// Invalidates one of these: `key`, `pattern`, `endpoint`, `tag`; with none of them all of a service. The store that the control
/// plane has is told, and each instance that follows the service; the answer says what was done where, and what is pending: 200
/// if nothing is, else 202, and `GET /api/invalidations/{id}` tells later. `dry_run` only says what it would do.
#[utoipa::path(post, path = "/api/invalidate", tag = "invalidations", request_body = Invalidate,
    responses((status = OK, body = Invalidation, description = "done, or only tried"), (status = ACCEPTED, body = Invalidation, description = "some of it is pending"),
              (status = BAD_REQUEST, description = "not JSON, no service"), (status = CONFLICT, description = "the id is another one's"),
              (status = UNPROCESSABLE_ENTITY, description = "nothing that could be invalidated"),
              (status = TOO_MANY_REQUESTS, description = "60 of this service within a minute: come again after Retry-After"),
              (status = SERVICE_UNAVAILABLE, description = "the database does not take the entry of the audit trail, or does not say whether it did: come again after Retry-After, with the same id")))]
pub(super) async fn invalidate(
    State(plane): State<Arc<Plane>>,
    caller: Caller,
    peer: Peer,
    Body(asked): Body<Invalidate>,
) -> Result<Response, Response> {
    let read = read(asked, &caller, peer).map_err(Problem::into_response)?;
    let invalidation = match read.is_dry_run {
        true => dry_run(&plane, &read).await?,
        false => done(&plane, read).await?,
    };
    let status = match invalidation.state {
        InvalidationState::Pending => StatusCode::ACCEPTED,
        InvalidationState::Done | InvalidationState::DryRun => StatusCode::OK,
    };
    let mut response = (status, Json(&invalidation)).into_response();
    let location = format!("/api/invalidations/{}", invalidation.id);
    if let (false, Ok(location)) = (invalidation.id.is_empty(), location.parse()) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// The latest invalidations, newest first, of all services or of one: at most 100.
#[utoipa::path(get, path = "/api/invalidations", tag = "invalidations", params(("service" = Option<String>, Query)),
    responses((status = OK, body = InvalidationList), (status = BAD_REQUEST, description = "no service")))]
pub(super) async fn list(
    State(plane): State<Arc<Plane>>,
    caller: Caller,
    Asked(filter): Asked<Filter>,
) -> Result<Json<InvalidationList>, Problem> {
    let only = filter.only(&caller)?;
    let is_meant = |service: &Service| match &only {
        Some(only) => only == service,
        None => caller.sees(service.as_str()),
    };
    let latest = plane.invalidations.latest(is_meant, MOST_LISTED);
    let invalidations = latest.iter().map(|one| one.describe(&plane)).collect();
    Ok(Json(InvalidationList { invalidations }))
}

/// What came of an invalidation until now.
#[utoipa::path(get, path = "/api/invalidations/{id}", tag = "invalidations", params(("id" = String, Path)),
    responses((status = OK, body = Invalidation), (status = NOT_FOUND, description = "it never was, or too many came after it")))]
pub(super) async fn one(
    State(plane): State<Arc<Plane>>,
    caller: Caller,
    uri: Uri,
) -> Result<Json<Invalidation>, Problem> {
    let record = plane.invalidations.find(id_of(uri.path()));
    let record = record.filter(|record| caller.sees(record.service.as_str()));
    let record = record.ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND).detail(
            "there is no such invalidation: it never was, or too many of its service came after it",
        )
    })?;
    Ok(Json(record.describe(&plane)))
}

/// Where somebody is in the invalidations of a service.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Behind {
    after: Option<String>,
}

/// What was invalidated of a service behind a position, for those who can't follow its stream: `Larder-Invalidations`, which comes
/// with the service's policies, tells where the service stands. Without `after`: where one begins.
#[utoipa::path(get, path = "/api/invalidated/{service}", tag = "invalidations",
    params(("service" = String, Path), ("after" = Option<String>, Query, description = "up to where the caller knows them")),
    responses((status = OK, body = MissedInvalidations), (status = BAD_REQUEST, description = "no service")))]
pub(super) async fn missed(
    State(plane): State<Arc<Plane>>,
    OfService(service): OfService,
    Asked(behind): Asked<Behind>,
) -> Json<MissedInvalidations> {
    let after = behind.after.filter(|after| !after.is_empty());
    plane.invalidations.catch_up_with(after.as_deref()).await;
    let head = plane.registry.audit_head().sequence;
    Json(plane.invalidations.missed(&service, after.as_deref(), head))
}

/// What is asked for, checked.
struct Read {
    service: Service,
    target: Target,
    id: Option<String>,
    cause: Cause,
    wait: Duration,
    is_dry_run: bool,
}

fn read(asked: Invalidate, caller: &Caller, peer: Peer) -> Result<Read, Problem> {
    let named = [
        (Named::Key, asked.key),
        (Named::Pattern, asked.pattern),
        (Named::Endpoint, asked.endpoint),
        (Named::Tag, asked.tag),
    ];
    let mut named = named
        .into_iter()
        .filter_map(|(what, name)| Some((what, name?)));
    let (what, name) = match (named.next(), named.next()) {
        (None, _) => (Named::Service, None),
        (Some((what, name)), None) => (what, Some(name)),
        (Some((one, _)), Some((other, _))) => {
            return Err(wrong(format!(
                "{one} and {other} are both there: say one of key, pattern, endpoint, tag, or none for all of the service"
            )));
        }
    };
    let service = match (&asked.service_name, &name) {
        (Some(service), _) => Service::new(service).map_err(bad)?,
        (None, Some(name)) if matches!(what, Named::Key | Named::Pattern) => named_by(what, name)?,
        (None, _) => return Err(wrong("there is no service_name: say of which service")),
    };
    caller.must_see(&service)?;
    let target = Target::read(&service, what, name.as_deref()).map_err(wrong)?;
    let id = asked.id;
    if id.as_deref().is_some_and(|id| Service::new(id).is_err()) {
        return Err(wrong(
            "the id is not valid: use 1 to 64 of A-Z a-z 0-9 . _ -",
        ));
    }
    let seconds = asked.wait_seconds.unwrap_or(WAIT);
    if !(0.0..=MOST_WAIT).contains(&seconds) {
        return Err(wrong("wait_seconds is not from 0 to 30"));
    }
    Ok(Read {
        service,
        target,
        id,
        cause: cause(asked.author, asked.reason, peer)?,
        wait: Duration::from_secs_f64(seconds),
        is_dry_run: asked.dry_run,
    })
}

/// The service that a key or a pattern names.
fn named_by(what: Named, name: &str) -> Result<Service, Problem> {
    match what {
        Named::Pattern => Pattern::parse(name)
            .map(|pattern| (&pattern).into())
            .map_err(wrong),
        _ => Key::parse(name).map(|key| (&key).into()).map_err(wrong),
    }
}

async fn dry_run(plane: &Plane, read: &Read) -> Result<Invalidation, Response> {
    if !plane
        .invalidations
        .tried
        .take(&read.service, Instant::now())
    {
        return Err(not_done(NotDone::TooOften));
    }
    let Read {
        service,
        target,
        cause,
        ..
    } = read;
    Ok(invalidations::dry_run(plane, service, target, cause).await)
}

/// Also if the client goes away.
async fn done(plane: &Arc<Plane>, read: Read) -> Result<Invalidation, Response> {
    let id = match read.id {
        Some(id) => id,
        None => new_id().map_err(Problem::into_response)?,
    };
    let asked = invalidations::Asked {
        service: read.service,
        target: read.target,
        id,
        cause: read.cause,
    };
    let of_its_own = Arc::clone(plane);
    let made = to_its_end(async move { invalidations::invalidate(&of_its_own, asked).await });
    let made = made.await.map_err(Problem::into_response)?;
    let record = made.map_err(not_done)?;
    Ok(invalidations::outcome_within(plane, &record, read.wait).await)
}

fn new_id() -> Result<String, Problem> {
    let random = getrandom::u64().map_err(|_| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE).detail("the system gives no random numbers")
    })?;
    Ok(format!("{random:016x}"))
}

fn not_done(error: NotDone) -> Response {
    let status = match &error {
        NotDone::OtherId | NotDone::Full => StatusCode::CONFLICT,
        NotDone::TooOften => StatusCode::TOO_MANY_REQUESTS,
        NotDone::Trail(error) | NotDone::Unsure { error, .. } => {
            tracing::error!(%error, "the database did not take an invalidation");
            StatusCode::SERVICE_UNAVAILABLE
        }
    };
    let problem = match status {
        StatusCode::TOO_MANY_REQUESTS => Problem::new(status).retry_after(MINUTE),
        StatusCode::SERVICE_UNAVAILABLE => Problem::new(status).retry_after(RETRY_AFTER),
        status => Problem::new(status),
    };
    problem.detail(error.to_string()).into_response()
}

fn wrong(error: impl ToString) -> Problem {
    let text = larder_model::escape(&error.to_string()).into_owned();
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY).detail(text)
}
