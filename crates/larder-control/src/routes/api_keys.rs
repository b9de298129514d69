//! API keys: made, listed, revoked.

use std::sync::Arc;

use axum::extract::{Json, State};
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, Uri, header};
use larder_http::Problem;
use larder_model::api::{ApiKeyList, Because, MadeApiKey, NewApiKey};

use super::changes::{cause, made, unread};
use crate::access::{AccessChange, StoredKey};
use crate::cause::Cause;
use crate::json::Body;
use crate::plane::Plane;
use crate::target::{Asked, Peer, id_of};

/// All API keys, also those that were revoked; no secret of any.
#[utoipa::path(get, path = "/api/api-keys", tag = "access",
    responses((status = OK, body = ApiKeyList), (status = SERVICE_UNAVAILABLE, description = "the database does not answer")))]
pub(super) async fn list(State(plane): State<Arc<Plane>>) -> Result<Json<ApiKeyList>, Problem> {
    let keys = plane.access.list().await.map_err(unread)?;
    Ok(Json(ApiKeyList { keys }))
}

/// Makes an API key. Its secret is in this answer, and in no other.
#[utoipa::path(post, path = "/api/api-keys", tag = "access", request_body = NewApiKey,
    responses((status = CREATED, body = MadeApiKey), (status = BAD_REQUEST, description = "not JSON"),
              (status = UNPROCESSABLE_ENTITY, description = "no name, no services, a time that is over"),
              (status = SERVICE_UNAVAILABLE, description = "the database does not answer")))]
pub(super) async fn make(
    State(plane): State<Arc<Plane>>,
    peer: Peer,
    Body(new): Body<NewApiKey>,
) -> Result<Response, Problem> {
    let cause = cause(None, new.reason.clone(), peer)?;
    let (key, text) = StoredKey::make(&new, crate::auto::now().as_secs()).map_err(|error| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY)
            .detail(larder_model::escape(&error.to_string()).into_owned())
    })?;
    let made = MadeApiKey {
        key: key.describe(),
        secret: text.expose().to_owned(),
    };
    change(plane, AccessChange::MakeKey(key), cause).await?;
    let place = [(header::LOCATION, format!("/api/api-keys/{}", made.key.id))];
    Ok((StatusCode::CREATED, place, Json(made)).into_response())
}

/// Revokes an API key: at once here, within seconds by other replicas, also for streams that are open.
#[utoipa::path(delete, path = "/api/api-keys/{id}", tag = "access", params(("id" = String, Path), ("reason" = Option<String>, Query)),
    responses((status = NO_CONTENT, description = "it is revoked"), (status = NOT_FOUND, description = "there is none, or it was revoked before"),
              (status = SERVICE_UNAVAILABLE, description = "the database does not answer")))]
pub(super) async fn revoke(
    State(plane): State<Arc<Plane>>,
    uri: Uri,
    Asked(because): Asked<Because>,
    peer: Peer,
) -> Result<StatusCode, Problem> {
    let cause = cause(because.author, because.reason, peer)?;
    let revoke = AccessChange::RevokeKey {
        id: id_of(uri.path()).to_owned(),
        at_seconds: crate::auto::now().as_secs(),
    };
    if change(plane, revoke, cause).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(Problem::new(StatusCode::NOT_FOUND)
        .detail("there is no such key, or it was revoked before: GET /api/api-keys lists them"))
}

/// Makes a change, and puts it in force, also if the client goes away.
pub(super) async fn change(
    plane: Arc<Plane>,
    change: AccessChange,
    cause: Cause,
) -> Result<bool, Problem> {
    made(async move {
        let is_changed = plane.registry.change_access(&change, &cause).await?;
        // It is made: who follows the database acts by it within two seconds.
        if let Err(error) = plane.access.refresh().await {
            tracing::warn!(%error, "the keys could not be read anew");
        }
        Ok(is_changed)
    })
    .await
}
