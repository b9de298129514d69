//! What was measured over the last day, or the last 90.

use std::sync::Arc;

use axum::extract::{Json, State};
use larder_http::Problem;
use larder_model::api::{Rollup, RollupList};

use super::changes::unread;
use crate::plane::Plane;
use crate::rollups::Step;
use crate::target::{Asked, OfService};

/// So many are answered at once: a day's minutes, or 90 days' hours.
const MOST: u32 = 2_160;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stretch {
    step: Option<Step>,
    since: Option<u64>,
}

/// What was measured of a service, oldest first: by `minute` in the last day, or by `hour` in the last 90 days. What is not over
/// is not in there.
#[utoipa::path(get, path = "/api/rollups/{service}", tag = "overview",
    params(("service" = String, Path), ("step" = inline(Option<Step>), Query, description = "hour if left out"),
           ("since" = Option<u64>, Query, description = "seconds since 1970; all that is kept if left out")),
    responses((status = OK, body = RollupList), (status = BAD_REQUEST, description = "no service"),
              (status = SERVICE_UNAVAILABLE, description = "the database does not answer")))]
pub(super) async fn list(
    State(plane): State<Arc<Plane>>,
    OfService(service): OfService,
    Asked(stretch): Asked<Stretch>,
) -> Result<Json<RollupList>, Problem> {
    let length = stretch.step.unwrap_or(Step::Hour).seconds();
    let since = stretch.since.unwrap_or(0);
    let database = plane.registry.database();
    let kept = database.rollups(Some(&service), length, since, MOST).await;
    let kept = kept.map_err(unread)?;
    let rollups = kept
        .into_iter()
        .map(|(_, at_seconds, window)| Rollup { at_seconds, window });
    Ok(Json(RollupList {
        service_name: service.as_str().to_owned(),
        step_seconds: length,
        rollups: rollups.collect(),
    }))
}
