//! The sample service: products from a slow database, cached by Larder.
//!
//! What Larder adds to an axum service is here, and no more: a layer on each route ([`router`]), a lookup in each
//! handler that reads, and an invalidation in the one that writes.

mod shop;

use std::error::Error;
use std::io;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, response};
use larder::http::{Caching, CachingLayer, Enclosed, Limits, Problem};
use larder::{Answer, Cache, Json, LoadError, Pattern, PolicyPatch, QueryRule};
use serde::Serialize;
use tokio::net::TcpListener;

pub use shop::{Shop, ShopError};

/// The service's name: its entries are under `cache:product-service:`.
pub const SERVICE: &str = "product-service";

/// What to log if nothing else is said: what the service does, and what Larder stores.
pub const LOG: &str = "info,larder_core=debug";

/// How the products are cached: for 300 seconds, not one less, and whatever query a client makes up.
#[must_use]
pub fn policy() -> PolicyPatch {
    PolicyPatch {
        ttl_seconds: Some(300.0),
        jitter: Some(0.0),
        include_query: Some(QueryRule::Only(Vec::new())),
        ..PolicyPatch::default()
    }
}

/// Serves until `shutdown` comes.
///
/// # Errors
/// As [`larder::http::serve()`].
pub async fn serve(
    listener: TcpListener,
    cache: &Cache,
    shop: Shop,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    larder::http::serve(listener, router(cache, shop), Limits::default(), shutdown).await
}

/// The service's routes.
pub fn router(cache: &Cache, shop: Shop) -> Router {
    // Products are the same for all who ask, signed in or not.
    let cached = CachingLayer::new(cache).public();
    Router::new()
        .route("/products", get(list).layer(cached.clone()))
        .route("/products/{id}", get(one).put(update).layer(cached))
        .route("/metrics", get(metrics))
        .with_state(Service {
            cache: cache.clone(),
            shop,
        })
}

#[derive(Clone)]
struct Service {
    cache: Cache,
    shop: Shop,
}

async fn list(State(service): State<Service>, caching: Caching) -> Result<Response, Problem> {
    let load = || async move { service.shop.products().await };
    answer(&PRODUCTS, caching.get_or_load_json(load).await)
}

async fn one(
    State(service): State<Service>,
    Path(id): Path<String>,
    caching: Caching,
) -> Result<Response, Problem> {
    let load = || async move { service.shop.product(&id).await };
    answer(&PRODUCT, caching.get_or_load_json(load).await)
}

async fn update(
    State(service): State<Service>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<response::Json<Done>, Problem> {
    let change = serde_json::from_slice(&body).map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST)
            .detail(format!("the body is no change of a product: {error}"))
    })?;
    service
        .shop
        .update(&id, &change)
        .await
        .map_err(|error| problem(&error))?;
    // After the database has changed, not before: else a lookup in between would keep the old answer.
    for endpoint in ["/products", &format!("/products/{id}")] {
        if let Err(error) = invalidate(&service.cache, endpoint).await {
            tracing::warn!(endpoint, %error, "no endpoint: nothing is cached under it");
        }
    }
    Ok(response::Json(Done {
        success: true,
        message: "Product updated",
    }))
}

/// What the cache counts, for Prometheus.
async fn metrics(State(service): State<Service>) -> Response {
    let page = larder::prometheus(&service.cache).await;
    ([(header::CONTENT_TYPE, larder::PROMETHEUS)], page).into_response()
}

#[derive(Serialize)]
struct Done {
    success: bool,
    message: &'static str,
}

/// What an answer begins with: from the database, and from the cache.
type Beginnings = [&'static str; 2];
const PRODUCTS: Beginnings = [
    r#"{"cached":false,"products":"#,
    r#"{"cached":true,"products":"#,
];
const PRODUCT: Beginnings = [
    r#"{"cached":false,"product":"#,
    r#"{"cached":true,"product":"#,
];

/// The stored bytes inside the answer; nobody parses or copies them.
fn answer(
    beginnings: &Beginnings,
    answer: Result<Answer<Json>, LoadError<ShopError>>,
) -> Result<Response, Problem> {
    let Answer { value, outcome } = answer.map_err(|error| match error {
        LoadError::Loader(error) => problem(&error),
        error => unavailable(&error),
    })?;
    tracing::info!(%outcome, "answered");
    let before = beginnings[usize::from(outcome.is_cached())];
    Ok(Enclosed::new(before, value, "}").into_response())
}

/// Deletes an endpoint's entry, and those for queries, should a policy let queries into keys. What the store can't be told now
/// is told to it later; until then this process serves none of it.
async fn invalidate(cache: &Cache, endpoint: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
    let key = cache.key(endpoint)?;
    let with_query = Pattern::parse(&(Pattern::escape(key.as_str()) + r"\?*"))?;
    let deleted = cache.delete(&key).await;
    let cleared = cache.clear(&with_query).await;
    tracing::info!(%key, %deleted, %cleared, "invalidated");
    Ok(())
}

fn problem(error: &ShopError) -> Problem {
    match error {
        ShopError::NoSuchProduct => Problem::new(StatusCode::NOT_FOUND).detail(error.to_string()),
        error => unavailable(error),
    }
}

fn unavailable(error: &dyn Error) -> Problem {
    tracing::error!(%error, "the products can't be had");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE).detail("the products can't be had: try again")
}
