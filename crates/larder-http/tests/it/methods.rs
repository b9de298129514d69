//! Only a GET without a body reads or fills a GET's entry (SF-2).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::routing::any;
use larder_core::{Cache, Json, PolicyPatch, Reason};
use larder_http::{Caching, CachingLayer, Limits};

use crate::client::request;
use crate::{Server, Watched};

/// Every answer tells how many loads there were before; a header tells why it was or wasn't cached.
fn router(cache: &Cache) -> Router {
    let loads = Arc::new(AtomicU64::new(0));
    let handler = async move |caching: Caching| {
        let reason = caching.reason.as_str();
        let load = || async move { Ok::<_, std::io::Error>(loads.fetch_add(1, Ordering::Relaxed)) };
        let answer = caching.get_or_load_json(load).await.unwrap();
        ([("x-reason", reason)], answer.value.into_bytes())
    };
    Router::new().route("/products", any(handler).layer(CachingLayer::new(cache)))
}

/// What must not come near a GET's entry.
const OTHERS: [(&str, &[&str], &str, Reason); 9] = [
    ("POST", &[], "{}", Reason::UnsafeMethod),
    ("PUT", &[], "", Reason::UnsafeMethod),
    ("BREW", &[], "", Reason::UnsafeMethod),
    ("HEAD", &[], "", Reason::NotGet),
    ("OPTIONS", &[], "", Reason::NotGet),
    (
        "GET",
        &["X-HTTP-Method-Override: DELETE"],
        "",
        Reason::MethodOverride,
    ),
    (
        "GET",
        &["X-Method-Override: POST"],
        "",
        Reason::MethodOverride,
    ),
    ("GET", &[], "{\"evil\":1}", Reason::RequestBody),
    (
        "GET",
        &["Transfer-Encoding: chunked"],
        "",
        Reason::RequestBody,
    ),
];

#[tokio::test]
async fn others_never_fill_a_get_s_entry() {
    let watched = Watched::new(PolicyPatch::default());
    let server = Server::start(router(&watched.cache), Limits::default()).await;
    for (method, headers, body, reason) in OTHERS {
        let body = if headers.iter().any(|header| header.contains("chunked")) {
            "0\r\n\r\n"
        } else {
            body
        };
        let answer = request(server.address, method, "/products", headers, body).await;
        assert_eq!(answer.status, 200, "{method} {headers:?}");
        assert!(
            answer
                .head
                .contains(&format!("x-reason: {reason}", reason = reason.as_str())),
            "{answer:?}"
        );
        assert_eq!(watched.keys().await, [""; 0], "{method} {headers:?}");
    }
}

#[tokio::test]
async fn others_never_read_a_get_s_entry() {
    let watched = Watched::new(PolicyPatch::default());
    let server = Server::start(router(&watched.cache), Limits::default()).await;
    let key = watched.cache.key("/products").unwrap();
    let stored = Json::of("the GET's own").unwrap();
    assert!(
        watched
            .cache
            .set_json(&key, stored, std::time::Duration::from_secs(60))
            .await
            .is_stored()
    );
    for (method, headers, body, _) in OTHERS
        .into_iter()
        .filter(|other| !other.1.iter().any(|header| header.contains("chunked")))
    {
        let answer = request(server.address, method, "/products", headers, body).await;
        assert!(!answer.body.contains("GET's own"), "{method} {headers:?}");
    }
    let answer = request(server.address, "GET", "/products", &[], "").await;
    assert_eq!(answer.body, "\"the GET's own\"");
    assert!(answer.head.contains("x-reason: policy_on"));
}

#[tokio::test]
async fn a_naive_handler_lets_a_fat_get_poison_the_entry() {
    let watched = Watched::new(PolicyPatch::default());
    let cache = watched.cache.clone();
    let naive = async move |body: String| {
        let key = cache.key("/products").unwrap();
        let load = || async move { Ok::<_, std::io::Error>(body) };
        cache.get_or_load(&key, load).await.unwrap().value
    };
    let server = Server::start(
        Router::new().route("/products", any(naive)),
        Limits::default(),
    )
    .await;
    request(server.address, "GET", "/products", &[], "evil").await;
    assert_eq!(
        request(server.address, "GET", "/products", &[], "")
            .await
            .body,
        "evil"
    );
}
