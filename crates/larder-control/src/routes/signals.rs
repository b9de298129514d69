//! What services measured.

use std::sync::Arc;

use axum::extract::{Json, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use larder_http::Problem;
use larder_model::api::{EndpointConfig, Received, Signal, SignalBatch};
use larder_model::{Endpoint, Method, Service};

use crate::access::{self, Caller, Who, not_there};
use crate::json::Body;
use crate::measured::{Counted, Known, SignalError};
use crate::plane::Plane;

/// One request, as it was seen.
#[utoipa::path(post, path = "/api/signals", tag = "signals", request_body = Signal,
    responses((status = OK, body = Received), (status = BAD_REQUEST, description = "not JSON"),
              (status = UNPROCESSABLE_ENTITY, description = "figures that can't be"),
              (status = TOO_MANY_REQUESTS, description = "more signals than a key may send, and none of them counts: come again after Retry-After")))]
pub(super) async fn one(
    State(plane): State<Arc<Plane>>,
    caller: Caller,
    Body(signal): Body<Signal>,
) -> Response {
    let batch = SignalBatch {
        signals: vec![signal],
        windows: Vec::new(),
    };
    take_in_its_rate(&plane, &caller, batch).await
}

/// Many requests, or windows of them; all count or none does.
#[utoipa::path(post, path = "/api/signals/batch", tag = "signals", request_body = SignalBatch,
    responses((status = OK, body = Received), (status = BAD_REQUEST, description = "not JSON"),
              (status = UNPROCESSABLE_ENTITY, description = "figures that can't be"),
              (status = TOO_MANY_REQUESTS, description = "more signals than a key may send, and none of them counts: come again after Retry-After")))]
pub(super) async fn batch(
    State(plane): State<Arc<Plane>>,
    caller: Caller,
    Body(batch): Body<SignalBatch>,
) -> Response {
    take_in_its_rate(&plane, &caller, batch).await
}

async fn take_in_its_rate(plane: &Plane, caller: &Caller, batch: SignalBatch) -> Response {
    let many = batch.signals.len() + batch.windows.len();
    match access::charge_signals(plane, caller, many).await {
        Some(refusal) => refusal,
        None => take(plane, caller, batch).into_response(),
    }
}

fn take(plane: &Plane, caller: &Caller, batch: SignalBatch) -> Result<Json<Received>, Problem> {
    let of_signals = batch.signals.iter().map(|one| &one.service_name);
    let of_windows = batch.windows.iter().map(|one| &one.service_name);
    if !of_signals.chain(of_windows).all(|name| caller.sees(name)) {
        return Err(not_there());
    }
    let by = match &caller.who {
        Who::Key(key) => Some(key.stored.id.as_str()),
        _ => None,
    };
    let for_others = plane.exchange.is_there().then(|| batch.clone());
    let counted = take_signals(plane, by, batch).map_err(|error| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY)
            .detail(larder_model::escape(&error.to_string()).into_owned())
    })?;
    if let Some(batch) = for_others.filter(|_| counted.accepted > 0) {
        plane.exchange.signals(by, batch);
    }
    plane.metrics.signals.inc_by(counted.accepted);
    plane.metrics.duplicates.inc_by(counted.duplicates);
    plane.metrics.dropped.inc_by(counted.dropped);
    Ok(Json(Received {
        status: "received".to_owned(),
    }))
}

/// Takes signals in, whichever replica they came to, with the key of this name, if it was with one.
pub(crate) fn take_signals(
    plane: &Plane,
    by: Option<&str>,
    batch: SignalBatch,
) -> Result<Counted, SignalError> {
    let known = |service: &_, endpoint: &_| known(plane, service, endpoint);
    plane.measured.take(by, batch, crate::auto::now(), known)
}

/// What the policy that holds for a path knows of its endpoint.
fn known(plane: &Plane, service: &Service, endpoint: &Endpoint) -> Option<Known> {
    let found: Arc<EndpointConfig> = plane.registry.service(service)?.find(endpoint)?;
    let endpoint = Endpoint::new(Method::clone(endpoint.method()), &found.endpoint).ok()?;
    Some(Known {
        endpoint,
        is_watched: found.watch.is_some(),
    })
}
