//! A change is acted on within 5 s, without a restart.

use larder_core::api::Source;
use serde_json::json;

use crate::{Control, SOON, client, is_on, key, ttl, until};

#[tokio::test]
async fn every_change_is_acted_on_within_five_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let control = Control::start(&folder.path().join("control.db"), 0).await;
    let client = client(control.port, None);
    assert_eq!(
        (ttl(&client, "/products"), is_on(&client, "/products")),
        (77, true)
    );

    control.put("/products", json!({"ttl_seconds": 60})).await;
    until(SOON, "set", async || ttl(&client, "/products") == 60).await;
    control
        .put("/products", json!({"ttl_seconds": 60, "mode": "off"}))
        .await;
    until(SOON, "off", async || !is_on(&client, "/products")).await;
    control.put("/products", json!({"ttl_seconds": 60.5})).await;
    until(SOON, "on", async || is_on(&client, "/products")).await;
    control.delete("/products").await;
    until(SOON, "removed", async || ttl(&client, "/products") == 77).await;
    client.close().await;
}

#[tokio::test]
async fn a_decision_says_where_it_came_from_and_why() {
    let folder = tempfile::tempdir().unwrap();
    let control = Control::start(&folder.path().join("control.db"), 0).await;
    control.put("/p/:id", json!({"mode": "off"})).await;
    control.put("/auto", json!({"mode": "auto"})).await;
    let client = client(control.port, None);
    until(SOON, "known", async || !is_on(&client, "/p/7")).await;
    let decision = client.decision(&key("/p/7"));
    assert_eq!(
        (decision.source, decision.version),
        (Source::Policy, Some(2))
    );
    assert!(decision.reason.contains("out of the cache"), "{decision:?}");
    assert_eq!(client.decision(&key("/auto")).source, Source::Auto);
    assert!(!is_on(&client, "/auto"), "auto without a decision is off");
    let other = client.decision(&key("/other"));
    assert_eq!(
        (other.source, other.policy.ttl().as_secs()),
        (Source::Default, 77)
    );
    assert!(client.status().connected);
}
