//! Users of the dashboard: made, listed, changed, removed.

use std::sync::Arc;

use axum::extract::{Json, State};
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, Uri};
use larder_http::Problem;
use larder_model::Secret;
use larder_model::api::{Because, NewUser, User, UserChange, UserList};

use super::api_keys::change;
use super::changes::{cause, unread};
use crate::access::{
    AccessChange, Hashed, NewUserOf, PasswordError, StoredUser, UserError, Wanted,
};
use crate::json::Body;
use crate::plane::Plane;
use crate::target::{Asked, Peer, id_of};

/// All users of the dashboard.
#[utoipa::path(get, path = "/api/users", tag = "access",
    responses((status = OK, body = UserList), (status = SERVICE_UNAVAILABLE, description = "the database does not answer")))]
pub(super) async fn list(State(plane): State<Arc<Plane>>) -> Result<Json<UserList>, Problem> {
    let users = plane.registry.database().users().await.map_err(unread)?;
    Ok(Json(UserList {
        users: users.iter().map(StoredUser::describe).collect(),
    }))
}

/// Makes a user.
#[utoipa::path(post, path = "/api/users", tag = "access", request_body = NewUser,
    responses((status = CREATED, body = User), (status = CONFLICT, description = "there is one of this name"),
              (status = UNPROCESSABLE_ENTITY, description = "no name, no services, a password that is too short")))]
pub(super) async fn make(
    State(plane): State<Arc<Plane>>,
    peer: Peer,
    Body(new): Body<NewUser>,
) -> Result<Response, Problem> {
    let cause = cause(None, new.reason, peer)?;
    let user = NewUserOf::new(&new.name, new.role, &new.services).map_err(refused)?;
    let password = hash(&plane, Secret::new(new.password)).await?;
    let user = user.with(password, crate::auto::now().as_secs());
    let made = user.describe();
    if !change(plane, AccessChange::MakeUser(user), cause).await? {
        return Err(Problem::new(StatusCode::CONFLICT)
            .detail("there is a user of this name: PUT changes him, DELETE removes him"));
    }
    Ok((StatusCode::CREATED, Json(made)).into_response())
}

/// Gives a user another role, for other services, or another password, or both at once; his sessions end.
#[utoipa::path(put, path = "/api/users/{name}", tag = "access", request_body = UserChange, params(("name" = String, Path)),
    responses((status = NO_CONTENT, description = "he is changed"), (status = NOT_FOUND, description = "there is none"),
              (status = UNPROCESSABLE_ENTITY, description = "no services, a password that is too short, nothing to change")))]
pub(super) async fn set(
    State(plane): State<Arc<Plane>>,
    uri: Uri,
    peer: Peer,
    Body(new): Body<UserChange>,
) -> Result<StatusCode, Problem> {
    let cause = cause(None, new.reason.clone(), peer)?;
    let name = id_of(uri.path()).to_owned();
    let mut wanted = Wanted::new(new).map_err(refused)?;
    let password = match wanted.password.take() {
        Some(password) => Some(hash(&plane, password).await?),
        None => None,
    };
    match change(plane, wanted.change(&name, password), cause).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(absent()),
    }
}

/// Removes a user; his sessions end.
#[utoipa::path(delete, path = "/api/users/{name}", tag = "access", params(("name" = String, Path), ("reason" = Option<String>, Query)),
    responses((status = NO_CONTENT, description = "he is removed"), (status = NOT_FOUND, description = "there is none")))]
pub(super) async fn remove(
    State(plane): State<Arc<Plane>>,
    uri: Uri,
    Asked(because): Asked<Because>,
    peer: Peer,
) -> Result<StatusCode, Problem> {
    let cause = cause(because.author, because.reason, peer)?;
    let remove = AccessChange::RemoveUser {
        name: id_of(uri.path()).to_owned(),
        at_seconds: crate::auto::now().as_secs(),
    };
    match change(plane, remove, cause).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(absent()),
    }
}

async fn hash(plane: &Plane, password: Secret) -> Result<Hashed, Problem> {
    let hashed = plane.access.hash(password).await;
    hashed.map_err(|error| match error {
        PasswordError::Busy => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE).detail(error.to_string())
        }
        error => refused(error.into()),
    })
}

fn absent() -> Problem {
    Problem::new(StatusCode::NOT_FOUND).detail("there is no such user: GET /api/users lists them")
}

fn refused(error: UserError) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY)
        .detail(larder_model::escape(&error.to_string()).into_owned())
}
