//! A control plane that asks for a key: a client with one is served, one without goes on with what it has.

use larder_client::StartError;
use larder_control::{Keyring, Settings};
use larder_core::Secret;
use larder_core::api::{KeyRole, NewApiKey};
use serde_json::json;

use crate::{Control, SOON, client, client_with, ttl, until};

async fn make(keys: &mut Keyring, role: KeyRole, service: &str) -> (String, Secret) {
    let new = NewApiKey {
        name: "a test's".to_owned(),
        role,
        services: vec![service.to_owned()],
        expires_at_seconds: None,
        reason: None,
    };
    let made = keys.create(&new, None).await.unwrap();
    (made.key.id, Secret::new(made.secret))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_key_a_client_is_served_and_without_it_keeps_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("control.db");
    let mut keys = Keyring::open(&Settings::new(&database)).await.unwrap();
    let (_, admin) = make(&mut keys, KeyRole::Admin, "*").await;
    let (id, report) = make(&mut keys, KeyRole::Report, "svc").await;
    let (_, foreign) = make(&mut keys, KeyRole::Report, "other").await;
    let control = Control::start_with_key(&database, &admin).await;
    control.put("/a", json!({"ttl_seconds": 60})).await;

    let state = folder.path().join("state");
    let url = format!("http://127.0.0.1:{}", control.port);
    let one = client_with(&url, Some(report), Some(&state)).unwrap();
    let without = client(control.port, None);
    let wrong = client_with(&url, Some(foreign), None).unwrap();
    until(SOON, "it is served", async || ttl(&one, "/a") == 60).await;
    until(SOON, "its instance is known", async || {
        let all = control.get("/api/instances?service=svc").await;
        all["instances"].as_array().unwrap().len() == 1
    })
    .await;
    for (client, words) in [
        (&without, "LARDER_CONTROL_KEY"),
        (&wrong, "must be for this service"),
    ] {
        until(SOON, "it says what is wrong", async || {
            let trouble = client.status().trouble;
            trouble.is_some_and(|trouble| trouble.contains(words))
        })
        .await;
        assert_eq!(ttl(client, "/a"), 77, "the defaults hold");
    }

    assert!(keys.revoke(&id, None, None).await.unwrap());
    until(2 * SOON, "its stream is over", async || {
        let status = one.status();
        status
            .trouble
            .is_some_and(|trouble| trouble.contains("401"))
    })
    .await;
    assert_eq!(ttl(&one, "/a"), 60, "what it had holds");
}

#[tokio::test]
async fn a_key_for_another_machine_in_clear_is_an_error_at_start() {
    let key = || Some(Secret::new("lrd_canary".to_owned()));
    let refused = client_with("http://control.example.com:8000", key(), None);
    let refused = refused.err().unwrap();
    assert!(matches!(refused, StartError::Key(_)), "{refused}");
    assert!(!format!("{refused} {refused:?}").contains("canary"));
    let sealed = client_with("https://control.example.com", key(), None);
    assert!(!format!("{:?}", sealed.unwrap()).contains("canary"));
}
