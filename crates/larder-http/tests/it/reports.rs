//! Every request is reported once: what the cache did, how long the origin took, whether it failed.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http::StatusCode;
use larder_core::{Cache, Event, Mode, Outcome, PolicyPatch};
use larder_http::{Caching, CachingLayer, Limits};

use crate::client::{get as get_it, request};
use crate::{Server, Watched};

const SLOW: Duration = Duration::from_millis(50);

async fn slow(caching: Caching) -> String {
    let load = || async {
        tokio::time::sleep(SLOW).await;
        Ok::<_, std::io::Error>("slow".to_owned())
    };
    caching.get_or_load(load).await.unwrap().value
}

async fn failing(caching: Caching) -> Result<String, StatusCode> {
    let load = || async { Err::<String, _>(std::io::Error::other("away")) };
    let answer = caching.get_or_load(load).await;
    answer
        .map(|answer| answer.value)
        .map_err(|_| StatusCode::BAD_GATEWAY)
}

fn router(cache: &Cache) -> Router {
    let layer = CachingLayer::new(cache);
    let unasked = async || "unasked";
    Router::new()
        .route("/slow/{id}", get(slow).layer(layer.clone()))
        .route("/failing", get(failing).layer(layer.clone()))
        .route("/unasked", get(unasked).post(unasked).layer(layer))
}

async fn start(patch: PolicyPatch) -> (Watched, Server) {
    let watched = Watched::new(patch);
    let server = Server::start(router(&watched.cache), Limits::default()).await;
    (watched, server)
}

fn only_event(watched: &Watched, number: usize) -> (String, Event) {
    let events = watched.events();
    assert_eq!(events.len(), number, "{events:?}");
    events[number - 1].clone()
}

#[tokio::test]
async fn a_miss_then_a_hit() {
    let (watched, server) = start(PolicyPatch::default()).await;
    get_it(server.address, "/slow/7", &[]).await;
    let (key, miss) = only_event(&watched, 1);
    assert_eq!(
        (key.as_str(), miss.outcome, miss.is_error),
        ("cache:shop:/slow/7", Outcome::Miss, false)
    );
    assert!(miss.latency.unwrap() >= SLOW && miss.bytes == 6, "{miss:?}");
    get_it(server.address, "/slow/7", &[]).await;
    let (_, hit) = only_event(&watched, 2);
    assert_eq!((hit.outcome, hit.bytes), (Outcome::Hit, 6));
    assert!(hit.latency.is_some());
}

#[tokio::test]
async fn a_policy_that_is_off_is_a_bypass_with_the_origin_s_latency() {
    let (watched, server) = start(PolicyPatch {
        mode: Some(Mode::Off),
        ..PolicyPatch::default()
    })
    .await;
    for number in 1..=2 {
        assert_eq!(get_it(server.address, "/slow/7", &[]).await.body, "slow");
        let (_, bypass) = only_event(&watched, number);
        assert_eq!(bypass.outcome, Outcome::Bypass);
        assert!(bypass.latency.unwrap() >= SLOW);
    }
    assert_eq!(watched.keys().await, [""; 0]);
}

#[tokio::test]
async fn a_failure_is_an_error() {
    let (watched, server) = start(PolicyPatch::default()).await;
    assert_eq!(get_it(server.address, "/failing", &[]).await.status, 502);
    let (_, event) = only_event(&watched, 1);
    assert!(
        event.is_error && event.outcome == Outcome::Miss,
        "{event:?}"
    );
}

#[tokio::test]
async fn a_handler_that_asks_for_nothing_is_a_bypass() {
    let (watched, server) = start(PolicyPatch::default()).await;
    get_it(server.address, "/unasked", &[]).await;
    let (key, event) = only_event(&watched, 1);
    assert_eq!(
        (key.as_str(), event.outcome, event.bytes),
        ("cache:shop:/unasked", Outcome::Bypass, 7)
    );
    request(server.address, "POST", "/unasked", &[], "").await;
    assert_eq!(only_event(&watched, 2).0, "cache:shop:/unasked#method=POST");
    // What no handler takes is no endpoint.
    assert_eq!(
        request(server.address, "BREW", "/unasked", &[], "")
            .await
            .status,
        405
    );
    assert_eq!(watched.events().len(), 2);
}

#[tokio::test]
async fn a_route_without_the_layer_says_what_is_missing() {
    let router = Router::new().route("/", get(slow));
    let server = Server::start(router, Limits::default()).await;
    let answer = get_it(server.address, "/", &[]).await;
    assert_eq!(answer.status, 500);
    assert!(
        answer.is_problem() && answer.body.contains("CachingLayer::new"),
        "{answer:?}"
    );
}
