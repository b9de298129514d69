//! What lies in the store that the control plane has.

use std::sync::Arc;

use axum::extract::{Json, State};
use http::StatusCode;
use larder_core::{Endpoint, Key, Method, Pattern, Service};
use larder_http::Problem;
use larder_model::api::{KeyExplanation, KeyList};

use crate::access::Caller;
use crate::plane::Plane;
use crate::shared_store::SharedStore;
use crate::target::{Asked, OfService, bad};

/// A page has so many keys if nothing else is said, and no more.
const PAGE: usize = 100;
const MOST: usize = 1_000;
/// No `after` of ours is longer.
const MAX_AFTER: usize = 4_096;

/// Which page of keys.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WhichKeys {
    #[serde(default)]
    pub(crate) prefix: String,
    pub(crate) after: Option<String>,
    limit: Option<usize>,
}

/// Which key.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WhichKey {
    pub(crate) key: String,
}

/// A page of a service's keys in the store that the control plane has, of those that begin with a prefix: `/products` or
/// `cache:product-service:/products`. A page may be shorter than its limit, even empty, and not be the last.
#[utoipa::path(get, path = "/api/keys/{service}", tag = "keys",
    params(("service" = String, Path), ("prefix" = Option<String>, Query), ("after" = Option<String>, Query, description = "the next of the page before"),
           ("limit" = Option<usize>, Query, description = "100 if left out, at most 1,000")),
    responses((status = OK, body = KeyList), (status = BAD_REQUEST, description = "no service"), (status = NOT_FOUND, description = "the control plane has no store"),
              (status = UNPROCESSABLE_ENTITY, description = "no prefix"), (status = SERVICE_UNAVAILABLE, description = "the store does not answer")))]
pub(super) async fn list(
    State(plane): State<Arc<Plane>>,
    OfService(service): OfService,
    Asked(which): Asked<WhichKeys>,
) -> Result<Json<KeyList>, Problem> {
    keys(&plane, &service, which).await.map(Json)
}

/// What is known of a key, its value as text, and what a lookup of it would do now.
#[utoipa::path(get, path = "/api/entries", tag = "keys", params(("key" = String, Query, description = "the whole key")),
    responses((status = OK, body = KeyExplanation), (status = NOT_FOUND, description = "the control plane has no store"),
              (status = UNPROCESSABLE_ENTITY, description = "no key"), (status = SERVICE_UNAVAILABLE, description = "the store does not answer")))]
pub(super) async fn entry(
    State(plane): State<Arc<Plane>>,
    caller: Caller,
    Asked(which): Asked<WhichKey>,
) -> Result<Json<KeyExplanation>, Problem> {
    explain(&plane, &caller, &which.key).await.map(Json)
}

/// A page of keys.
pub(crate) async fn keys(
    plane: &Plane,
    service: &Service,
    which: WhichKeys,
) -> Result<KeyList, Problem> {
    let store = store(plane)?;
    let whole = format!("cache:{service}:");
    let prefix = which.prefix.strip_prefix(&whole).unwrap_or(&which.prefix);
    let pattern = Pattern::parse(&format!("{whole}{}*", Pattern::escape(prefix)));
    let pattern = pattern.map_err(wrong)?;
    let after = which.after.filter(|after| !after.is_empty());
    if after.as_ref().is_some_and(|after| after.len() > MAX_AFTER) {
        return Err(bad("after is not one: use the next of a page"));
    }
    let limit = which.limit.unwrap_or(PAGE).clamp(1, MOST);
    let keys = store.keys(&pattern, after, limit).await;
    keys.map_err(|why| unanswered(&why))
}

/// What is known of a key.
pub(crate) async fn explain(
    plane: &Plane,
    caller: &Caller,
    key: &str,
) -> Result<KeyExplanation, Problem> {
    let store = store(plane)?;
    let key = Key::parse(key).map_err(wrong)?;
    caller.must_see(&Service::from(&key))?;
    let method = Method::new(key.method()).map_err(wrong)?;
    let endpoint = Endpoint::new(method, key.path()).map_err(wrong)?;
    let config = plane.registry.config(&Service::from(&key), &endpoint);
    let policy = config.policy().map_err(wrong)?;
    let explained = store.explain(&key, policy, config.reason).await;
    explained.map_err(|why| unanswered(&why))
}

fn store(plane: &Plane) -> Result<&SharedStore, Problem> {
    plane.store.as_ref().ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND).detail(
            "this control plane has no store: start it with REDIS_URL or LARDER_DIR set to what the services have",
        )
    })
}

fn unanswered(why: &str) -> Problem {
    let why = larder_model::escape(why);
    Problem::new(StatusCode::SERVICE_UNAVAILABLE)
        .detail(format!("{why}. `larder doctor` looks the store over"))
}

fn wrong(error: impl ToString) -> Problem {
    let text = larder_model::escape(&error.to_string()).into_owned();
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY).detail(text)
}
