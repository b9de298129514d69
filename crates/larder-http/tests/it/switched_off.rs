//! A handler is told whether its endpoint is cached, by the policy in force, whatever is in its key.

use axum::Router;
use axum::routing::get;
use larder_core::{Mode, PolicyPatch, Reason};
use larder_http::{Caching, CachingLayer, Limits};

use crate::client::get as get_it;
use crate::{Server, Watched};

async fn tell(caching: Caching) -> String {
    let is_off = caching.reason == Reason::PolicyOff;
    assert!(caching.key.is_some() && caching.should_cache() != is_off);
    format!("{:?}", caching.reason)
}

#[tokio::test]
async fn a_handler_is_told_that_its_policy_is_off_or_on() {
    for (mode, expected) in [
        (Mode::On, Reason::PolicyOn),
        (Mode::Off, Reason::PolicyOff),
        (Mode::Auto, Reason::PolicyOff),
    ] {
        let watched = Watched::new(PolicyPatch {
            mode: Some(mode),
            ..PolicyPatch::default()
        });
        let layer = CachingLayer::new(&watched.cache);
        let layer = layer.vary(["accept-language"]).unwrap();
        let router = Router::new().route("/products", get(tell).layer(layer));
        let server = Server::start(router, Limits::default()).await;
        // The path alone, with a query, with a variant.
        for (target, headers) in [
            ("/products", &[][..]),
            ("/products?page=2", &[]),
            ("/products", &["accept-language: de"]),
        ] {
            let told = get_it(server.address, target, headers).await;
            assert_eq!(told.body, format!("{expected:?}"), "{target} {headers:?}");
        }
    }
}
