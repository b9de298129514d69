//! Why an endpoint is cached or not, from which figures, and what would flip that.

use std::sync::Arc;

use axum::extract::{Json, State};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use larder_decide::Record;
use larder_http::Problem;
use larder_model::api::{DecisionRecord, Explanation, FlipOf, PastDecision};

use crate::plane::Plane;
use crate::target::OfPast;

/// So many decisions of the past are shown.
const MOST_PAST: u32 = 50;

/// What was decided for an endpoint of mode `auto` or `shadow`, now or at a time; from which figures; and what would make
/// it another. The record can be replayed.
#[utoipa::path(get, path = "/api/explain/{service}/{*endpoint}", tag = "decisions",
    params(("service" = String, Path), ("endpoint" = String, Path, description = "a route template or a concrete path"),
           ("method" = Option<String>, Query, description = "GET if left out"),
           ("at" = Option<u64>, Query, description = "seconds since 1970; now if left out")),
    responses((status = OK, body = Explanation), (status = BAD_REQUEST, description = "no service or no endpoint"),
              (status = SERVICE_UNAVAILABLE, description = "the database does not answer")))]
pub(super) async fn explain(
    State(plane): State<Arc<Plane>>,
    OfPast(service, endpoint, at): OfPast,
) -> Result<Json<Explanation>, Problem> {
    let config = plane.registry.config(&service, &endpoint);
    let method = larder_model::Method::clone(endpoint.method());
    let endpoint = larder_model::Endpoint::new(method, &config.endpoint).unwrap_or(endpoint);
    let until = at.unwrap_or(u64::MAX);
    // First: what was decided last is in the history by then.
    let last = match at {
        None => plane.engines.last(&service, &endpoint).await,
        Some(_) => None,
    };
    let history = plane.engines.history(&service, &endpoint, until, MOST_PAST);
    let history = history.await;
    let history = history.map_err(super::unread)?;
    let record = last.or_else(|| history.first().copied());
    Ok(Json(Explanation {
        service_name: config.service_name,
        endpoint: config.endpoint,
        method: config.method,
        mode: config.mode,
        decision: record.as_ref().map(describe),
        history: history.iter().map(past).collect(),
    }))
}

fn describe(record: &Record) -> DecisionRecord {
    let flips = record.flips().into_iter().map(|flip| FlipOf {
        figure: flip.figure.to_owned(),
        is: flip.is,
        needed: flip.needed,
        sentence: flip.sentence,
    });
    DecisionRecord {
        at_seconds: record.figures.now as u64,
        cache_enabled: record.after.is_on,
        ttl_seconds: record.after.ttl,
        code: record.code.as_str().to_owned(),
        reason: record.sentence(),
        figures: record.named().into_iter().collect(),
        flips: flips.filter(|flip| flip.is.is_finite()).collect(),
        engine_version: record.version,
        replays: record.replays(),
        record: STANDARD.encode(record.to_bytes()),
    }
}

fn past(record: &Record) -> PastDecision {
    PastDecision {
        at_seconds: record.figures.now as u64,
        cache_enabled: record.after.is_on,
        ttl_seconds: record.after.ttl,
        code: record.code.as_str().to_owned(),
        reason: record.sentence(),
    }
}
