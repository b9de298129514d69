//! Nobody gets another's answer, and no key shows who asked (SF-3).

use axum::Router;
use axum::routing::get;
use http::HeaderMap;
use larder_core::{Cache, KeySecret, PolicyPatch, Secret};
use larder_http::{Caching, CachingLayer, Limits, VaryError};

use crate::client::get as get_it;
use crate::{Server, Watched};

const ANN: &[&str] = &["Authorization: Bearer ann-s-token"];
const BEN: &[&str] = &["Authorization: Bearer ben-s-token"];
const BEN_BY_COOKIE: &[&str] = &["Cookie: session=ben-s-session"];

async fn who(headers: HeaderMap) -> Result<String, std::io::Error> {
    let identity = headers.get("authorization").or(headers.get("cookie"));
    Ok(format!(
        "for {:?}",
        identity.map(|identity| identity.to_str().unwrap().to_owned())
    ))
}

async fn me(caching: Caching, headers: HeaderMap) -> ([(&'static str, &'static str); 1], String) {
    let answer = caching.get_or_load(|| who(headers)).await.unwrap();
    ([("x-reason", caching.reason.as_str())], answer.value)
}

fn secret() -> KeySecret {
    KeySecret::new(&Secret::new("a secret of the test's own".into()))
}

async fn start(layer: CachingLayer) -> Server {
    Server::start(
        Router::new().route("/me", get(me).layer(layer)),
        Limits::default(),
    )
    .await
}

async fn body(server: &Server, headers: &[&str]) -> String {
    get_it(server.address, "/me", headers).await.body
}

#[tokio::test]
async fn a_naive_handler_gives_one_user_s_answer_to_another() {
    let cache = Watched::new(PolicyPatch::default()).cache;
    let naive = async move |headers: HeaderMap| {
        let key = cache.key("/me").unwrap();
        cache
            .get_or_load(&key, || who(headers))
            .await
            .unwrap()
            .value
    };
    let server = Server::start(Router::new().route("/me", get(naive)), Limits::default()).await;
    body(&server, ANN).await;
    assert!(
        body(&server, BEN).await.contains("ann-s-token"),
        "the attack works"
    );
}

#[tokio::test]
async fn a_request_with_an_identity_is_not_cached_and_the_reason_tells_which() {
    let watched = Watched::new(PolicyPatch::default());
    let server = start(CachingLayer::new(&watched.cache)).await;
    for (headers, reason, own) in [
        (ANN, "authorization", "ann-s-token"),
        (BEN, "authorization", "ben-s-token"),
        (BEN_BY_COOKIE, "cookie", "ben-s-session"),
    ] {
        let answer = get_it(server.address, "/me", headers).await;
        assert!(
            answer.head.contains(&format!("x-reason: {reason}")),
            "{answer:?}"
        );
        assert!(answer.body.contains(own), "{answer:?}");
    }
    assert_eq!(watched.keys().await, [""; 0]);
    // Those who say nothing of themselves share one.
    assert!(
        get_it(server.address, "/me", &[])
            .await
            .head
            .contains("policy_on")
    );
    assert_eq!(watched.keys().await, ["cache:shop:/me"]);
    assert!(body(&server, ANN).await.contains("ann-s-token"));
}

#[tokio::test]
async fn a_route_that_varies_by_identity_keeps_one_answer_each_and_no_key_shows_a_token() {
    let watched = Watched::new(PolicyPatch::default());
    let layer = CachingLayer::new(&watched.cache).key_secret(secret());
    let server = start(layer.vary(["authorization"]).unwrap()).await;
    each_gets_their_own(&watched, &server).await;
}

#[tokio::test]
async fn a_policy_that_varies_by_identity_does_the_same() {
    let watched = Watched::new(vary_by_policy());
    let server = start(CachingLayer::new(&watched.cache).key_secret(secret())).await;
    each_gets_their_own(&watched, &server).await;
}

async fn each_gets_their_own(watched: &Watched, server: &Server) {
    for _ in 0..2 {
        assert!(body(server, ANN).await.contains("ann-s-token"));
        assert!(body(server, BEN).await.contains("ben-s-token"));
    }
    assert_eq!(watched.cache.counts().hits, 2);
    let keys = watched.keys().await;
    assert_eq!(keys.len(), 2, "{keys:?}");
    assert!(
        keys.iter()
            .all(|key| key.starts_with("cache:shop:/me#authorization=") && !key.contains("token"))
    );
    // A header that is not named still isn't shared.
    assert!(
        get_it(server.address, "/me", BEN_BY_COOKIE)
            .await
            .head
            .contains("x-reason: cookie")
    );
}

fn vary_by_policy() -> PolicyPatch {
    PolicyPatch {
        vary: Some(vec!["Authorization".into()]),
        ..PolicyPatch::default()
    }
}

#[tokio::test]
async fn a_policy_that_varies_by_identity_is_not_followed_without_a_secret() {
    let watched = Watched::new(vary_by_policy());
    let server = start(CachingLayer::new(&watched.cache)).await;
    let answer = get_it(server.address, "/me", ANN).await;
    assert!(
        answer.head.contains("x-reason: no_key_secret"),
        "{answer:?}"
    );
    assert_eq!(watched.keys().await, [""; 0]);
}

#[tokio::test]
async fn a_public_route_is_shared_by_all() {
    let watched = Watched::new(PolicyPatch::default());
    let server = start(CachingLayer::new(&watched.cache).public()).await;
    let first = body(&server, ANN).await;
    assert_eq!(body(&server, BEN_BY_COOKIE).await, first);
    assert_eq!(watched.keys().await, ["cache:shop:/me"]);
}

#[test]
fn a_route_that_varies_by_identity_without_a_secret_is_an_error_at_start() {
    let layer = || CachingLayer::new(&Cache::in_process(1 << 20));
    for name in [
        "authorization",
        "Cookie",
        "X-Api-Key",
        "x-user-id",
        "x-auth-token",
    ] {
        let error = layer().vary([name]).err();
        assert!(
            matches!(error, Some(VaryError::NeedsKeySecret(_))),
            "{name}"
        );
        assert!(layer().key_secret(secret()).vary([name]).is_ok(), "{name}");
    }
    for name in ["", "a b", "*", "method", "body"] {
        assert!(
            matches!(layer().vary([name]).err(), Some(VaryError::Name(_))),
            "{name}"
        );
    }
    assert!(layer().vary(["accept-language", "user-agent"]).is_ok());
}

#[tokio::test]
async fn a_header_that_may_be_read_is_in_the_key_as_it_is() {
    let watched = Watched::new(PolicyPatch::default());
    let layer = CachingLayer::new(&watched.cache)
        .vary(["accept-language"])
        .unwrap();
    let server = start(layer).await;
    body(&server, &["Accept-Language: de"]).await;
    body(&server, &["Accept-Language: en"]).await;
    body(&server, &["Accept-Language: en"]).await;
    let mut keys = watched.keys().await;
    keys.sort();
    assert_eq!(
        keys,
        [
            "cache:shop:/me#accept-language=de",
            "cache:shop:/me#accept-language=en"
        ]
    );
}
