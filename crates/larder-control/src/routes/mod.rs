//! What the control plane answers.

mod api_keys;
mod audit;
mod changes;
mod config;
mod document;
mod events;
mod explain;
mod instances;
mod invalidate;
pub(crate) mod keys;
mod overrides;
mod overview;
mod policies;
mod revisions;
mod rollups;
mod signals;
mod stream;
mod users;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, put};
use http::StatusCode;
use larder_http::Problem;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::dashboard;
use crate::plane::Plane;
pub(crate) use audit::seen as seen_of_audit;
pub(crate) use changes::{next_before, unread};
pub(crate) use instances::known as instances_of;
pub(crate) use overview::Filter;
pub(crate) use signals::take_signals;

#[derive(OpenApi)]
#[openapi(info(
    title = "Larder's control plane",
    description = "Which endpoints of which services are cached, and for how long; what was measured; who changed what. Errors are application/problem+json."
))]
struct Api;

pub(crate) fn router(plane: Arc<Plane>) -> Router {
    let (router, document) = OpenApiRouter::with_openapi(Api::openapi())
        .routes(routes!(config::of_endpoint))
        .routes(routes!(config::of_service))
        .routes(routes!(policies::get, policies::put, policies::delete))
        .routes(routes!(policies::list, policies::replace))
        .routes(routes!(revisions::list))
        .routes(routes!(revisions::diff))
        .routes(routes!(revisions::one))
        .routes(routes!(revisions::rollback))
        .routes(routes!(overrides::list, overrides::begin))
        .routes(routes!(overrides::one, overrides::end))
        .routes(routes!(audit::list))
        .routes(routes!(audit::head))
        .routes(routes!(api_keys::list, api_keys::make))
        .routes(routes!(api_keys::revoke))
        .routes(routes!(users::list, users::make))
        .routes(routes!(users::set, users::remove))
        .routes(routes!(explain::explain))
        .routes(routes!(overview::services))
        .routes(routes!(overview::endpoints))
        .routes(routes!(rollups::list))
        .routes(routes!(signals::one))
        .routes(routes!(signals::batch))
        .routes(routes!(stream::of_service))
        .routes(routes!(instances::list, instances::report))
        .routes(routes!(invalidate::invalidate))
        .routes(routes!(invalidate::list))
        .routes(routes!(invalidate::one))
        .routes(routes!(invalidate::missed))
        .routes(routes!(keys::list))
        .routes(routes!(keys::entry))
        .routes(routes!(events::events))
        .routes(routes!(overview::healthz))
        .routes(routes!(overview::readyz))
        .routes(routes!(overview::metrics))
        .split_for_parts();
    let document = crate::json::bytes(&document::complete(&document));
    router
        // The endpoint `/` is an empty rest, which `{*endpoint}` does not take.
        .route("/api/config/{service}/", get(config::of_endpoint))
        .route("/api/explain/{service}/", get(explain::explain))
        .route(
            "/api/policies/{service}/",
            put(policies::put)
                .get(policies::get)
                .delete(policies::delete),
        )
        .route(
            "/openapi.json",
            get(move || overview::json(document.clone())),
        )
        .route("/", get(overview::page))
        .merge(dashboard::routes())
        .fallback(async || no_such_route())
        .method_not_allowed_fallback(async || no_such_method())
        .with_state(plane)
}

/// What is answered to those who scrape and probe, where that is apart.
pub(crate) fn probes(plane: Arc<Plane>) -> Router {
    Router::new()
        .route("/healthz", get(overview::healthz))
        .route("/readyz", get(overview::readyz))
        .route("/metrics", get(overview::metrics))
        .fallback(async || no_such_route())
        .with_state(plane)
}

pub(crate) fn no_such_route() -> Problem {
    Problem::new(StatusCode::NOT_FOUND).detail("there is no such route: / lists those there are")
}

pub(crate) fn no_such_method() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED)
        .detail("this route does not take that method: /openapi.json lists what it takes")
}
