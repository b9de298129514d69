//! A handler sees what is in the key, and nothing else of the query (SECURITY 3.3).

use axum::Router;
use axum::extract::{OriginalUri, RawQuery};
use axum::routing::get;
use larder_core::{Cache, PolicyPatch, QueryRule};
use larder_http::{Caching, CachingLayer, Limits};

use crate::client::get as get_it;
use crate::{Server, Watched};

/// Answers with all of the query that it can see.
async fn echo(
    caching: Caching,
    RawQuery(query): RawQuery,
    OriginalUri(uri): OriginalUri,
) -> String {
    let load = || async move { Ok::<_, std::io::Error>(format!("{query:?} {uri}")) };
    caching.get_or_load(load).await.unwrap().value
}

fn router(cache: &Cache) -> Router {
    let routes = || Router::new().route("/products", get(echo).layer(CachingLayer::new(cache)));
    routes().nest("/v2", routes())
}

async fn start(watched: &Watched) -> Server {
    Server::start(router(&watched.cache), Limits::default()).await
}

fn only(names: &[&str]) -> PolicyPatch {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    PolicyPatch {
        include_query: Some(QueryRule::Only(names)),
        ..PolicyPatch::default()
    }
}

#[tokio::test]
async fn what_the_policy_leaves_out_of_the_key_never_reaches_the_handler() {
    let watched = Watched::new(only(&["page"]));
    let server = start(&watched).await;
    let poisoned = get_it(
        server.address,
        "/products?x=evil&page=2&utm=evil&p%61ge=3",
        &[],
    )
    .await;
    assert!(!poisoned.body.contains("evil"), "{poisoned:?}");
    assert!(poisoned.body.contains("page=2&p%61ge=3"), "{poisoned:?}");
    let again = get_it(server.address, "/products?page=2&page=3&y=other", &[]).await;
    assert_eq!(again.body, poisoned.body);
    assert_eq!(watched.keys().await, ["cache:shop:/products?page=2&page=3"]);
}

#[tokio::test]
async fn ten_thousand_invented_parameters_make_one_load() {
    let watched = Watched::new(only(&[]));
    let server = start(&watched).await;
    let mut stream = crate::client::connect(server.address).await;
    for number in 0..10_000 {
        let head = format!("GET /products?invented{number}=1 HTTP/1.1\r\nHost: a\r\n\r\n");
        tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes())
            .await
            .unwrap();
        let answer = crate::client::read_one(&mut stream).await;
        assert_eq!(answer.body, "None /products");
    }
    // Nor does what can't be in any key, or would make one too long.
    let long = format!("/products?{}", "x".repeat(9_000));
    for target in ["/products?%zz", "/products?", "/products?&&", &long] {
        assert_eq!(
            get_it(server.address, target, &[]).await.body,
            "None /products"
        );
    }
    assert_eq!(watched.cache.counts().loads, 1);
}

#[tokio::test]
async fn without_a_rule_all_of_the_query_counts() {
    let watched = Watched::new(PolicyPatch::default());
    let server = start(&watched).await;
    let answer = get_it(server.address, "/products?b=2&a=1", &[]).await;
    assert_eq!(answer.body, "Some(\"b=2&a=1\") /products?b=2&a=1");
    assert_eq!(watched.keys().await, ["cache:shop:/products?a=1&b=2"]);
}

#[tokio::test]
async fn routes_in_a_nested_router_have_their_whole_path_in_the_key() {
    let watched = Watched::new(only(&[]));
    let server = start(&watched).await;
    assert_eq!(
        get_it(server.address, "/v2/products?x=1", &[]).await.body,
        "None /v2/products"
    );
    assert_eq!(
        get_it(server.address, "/products", &[]).await.body,
        "None /products"
    );
    let mut keys = watched.keys().await;
    keys.sort();
    assert_eq!(keys, ["cache:shop:/products", "cache:shop:/v2/products"]);
}

#[tokio::test]
async fn a_path_or_query_that_can_t_be_a_key_is_answered_and_not_cached() {
    let watched = Watched::new(PolicyPatch::default());
    let layer = CachingLayer::new(&watched.cache);
    let handler = async |caching: Caching| caching.reason.as_str();
    let router = Router::new().route("/{*rest}", get(handler).layer(layer));
    let server = Server::start(router, Limits::default()).await;
    for target in ["/a/../b", "/%2e%2e/b", "/a?b=%zz"] {
        let answer = get_it(server.address, target, &[]).await;
        assert_eq!(answer.body, "no_key", "{target}");
    }
    assert_eq!(watched.events().len(), 3, "reported all the same");
}
