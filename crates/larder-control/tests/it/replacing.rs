//! All policies of a service at once: as a repository has them.

use serde_json::{Value, json};

use crate::Running;

async fn policies(control: &Running) -> (Value, String) {
    let answer = control.get("/api/policies/svc").await;
    let etag = answer.header("etag").unwrap().to_owned();
    let list = answer.json()["policies"].clone();
    let list = list.as_array().unwrap().iter();
    let list = list.map(|one| json!([one["method"], one["endpoint"], one["policy"]]));
    (list.collect(), etag)
}

#[tokio::test]
async fn what_is_sent_is_all_that_there_is_then_in_one_revision() {
    let control = Running::start().await;
    control
        .put("/api/policies/svc/a", r#"{"ttl_seconds":60}"#)
        .await;
    control.put("/api/policies/svc/gone", "{}").await;
    control
        .put("/api/policies/svc/same/:id", r#"{"mode":"off"}"#)
        .await;
    let (before, etag) = policies(&control).await;
    let new = json!({"author": "ci", "reason": "commit 5f0c", "policies": [
        {"endpoint": "/a", "policy": {"ttl_seconds": 5}},
        {"endpoint": "/same/{id}", "policy": {"mode": "off"}},
        {"endpoint": "POST /new", "policy": {}},
    ]})
    .to_string();

    let tried = control.put("/api/policies/svc?dry_run=true", &new).await;
    assert_eq!(
        (tried.status, tried.header("etag")),
        (200, Some(etag.as_str())),
        "{tried:?}"
    );
    assert_eq!(
        policies(&control).await,
        (before, etag.clone()),
        "it was only tried"
    );
    let headers = [
        ("Content-Type", "application/json"),
        ("If-Match", etag.as_str()),
    ];
    let done = control
        .send("PUT", "/api/policies/svc", &headers, &new)
        .await;
    assert_eq!(
        (done.status, &done.json()["version"]),
        (200, &4.into()),
        "{done:?}"
    );
    assert_eq!(done.json()["changes"], tried.json()["changes"]);
    let changed: Vec<_> = done.json()["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["endpoint"].clone())
        .collect();
    assert_eq!(changed, ["/a", "/gone", "POST /new"]);

    let (after, new_etag) = policies(&control).await;
    assert_eq!(
        after,
        json!([["GET", "/a", {"ttl_seconds": 5}], ["POST", "/new", {}], ["GET", "/same/{id}", {"mode": "off"}]])
    );
    assert_eq!(done.header("etag"), Some(new_etag.as_str()));
    assert_ne!(new_etag, etag);
    control
        .send("PUT", "/api/policies/svc", &headers, &new)
        .await
        .is_problem(412);
    let newest = control.get("/api/revisions/svc?limit=1").await.json()["revisions"][0].clone();
    assert_eq!(
        (&newest["number"], &newest["action"], &newest["reason"]),
        (
            &4.into(),
            &"policies_replaced".into(),
            &"commit 5f0c".into()
        )
    );
    let again = control.put("/api/policies/svc", &new).await.json();
    assert_eq!(
        (&again["version"], &again["changes"]),
        (&4.into(), &json!([]))
    );
}

#[tokio::test]
async fn all_or_nothing_of_it_is_taken() {
    let control = Running::start().await;
    control
        .put("/api/policies/svc/a", r#"{"ttl_seconds":60}"#)
        .await;
    let (before, _) = policies(&control).await;
    let good = json!({"endpoint": "/b", "policy": {}});
    let many: Vec<_> = (0..2_001)
        .map(|at| json!({"endpoint": format!("/{at}"), "policy": {}}))
        .collect();
    for (bad, words, status) in [
        (
            json!([good, {"endpoint": "/c", "policy": {"ttl_seconds": -1}}]),
            "/c",
            422,
        ),
        (
            json!([good, {"endpoint": "/../c", "policy": {}}]),
            "dot segment",
            422,
        ),
        (
            json!([good, {"endpoint": "/b", "policy": {"mode": "off"}}]),
            "two policies",
            422,
        ),
        (
            json!([{"endpoint": "/p/:id", "policy": {}}, {"endpoint": "/p/{name}", "policy": {}}]),
            "two policies",
            422,
        ),
        (
            json!([good, {"endpoint": "/c", "policy": {}, "ttl": 1}]),
            "ttl",
            422,
        ),
        (json!([good, {"endpoint": "/c"}]), "policy", 422),
        (json!(many), "2,000", 409),
    ] {
        for query in ["", "?dry_run=true"] {
            let body = json!({ "policies": bad }).to_string();
            let answer = control
                .put(&format!("/api/policies/svc{query}"), &body)
                .await;
            answer.is_problem(status);
            assert!(answer.body.contains(words), "{words}: {answer:?}");
        }
    }
    control
        .put("/api/policies/svc", r#"{"mode":"off"}"#)
        .await
        .is_problem(422);
    control
        .put("/api/policies/svc?dry_run=perhaps", r#"{"policies":[]}"#)
        .await
        .is_problem(400);
    assert_eq!(policies(&control).await.0, before);
    let none = control.put("/api/policies/svc", r#"{"policies":[]}"#).await;
    assert_eq!(none.status, 200, "{none:?}");
    assert_eq!(policies(&control).await.0, json!([]));
}

#[tokio::test]
async fn the_tag_of_the_policies_outlives_decisions_and_overrides() {
    let control = Running::start().await;
    let (_, empty) = policies(&control).await;
    crate::automatic::slow(&control, "slow").await;
    let (_, etag) = policies(&control).await;
    assert_ne!(etag, empty);
    let override_of_it = json!({"service_name": "svc", "endpoint": "/slow", "policy": {"mode": "off"}, "reason": "a test", "duration_seconds": 60});
    let made = control
        .post("/api/overrides", &override_of_it.to_string())
        .await;
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(policies(&control).await.1, etag);
    control.put("/api/policies/svc/b", "{}").await;
    assert_ne!(policies(&control).await.1, etag);
}

#[tokio::test]
async fn a_flood_of_replacements_of_one_service_is_held_back() {
    let control = Running::start().await;
    let mut taken = 0;
    for ttl in 1..=70 {
        let policies = json!([{"endpoint": "/a", "policy": {"ttl_seconds": ttl}}]);
        let body = json!({ "policies": policies }).to_string();
        let answer = control.put("/api/policies/svc", &body).await;
        if answer.status == 200 {
            taken += 1;
        } else {
            answer.is_problem(429);
        }
    }
    assert_eq!(taken, 60);
    let body = r#"{"policies":[{"endpoint":"/a","policy":{}}]}"#;
    let other = control.put("/api/policies/other", body).await;
    assert_eq!(other.status, 200, "{other:?}");
    let tried = control.put("/api/policies/svc?dry_run=true", body).await;
    assert_eq!(tried.status, 200, "{tried:?}");
}

also_over_postgres!(
    what_is_sent_is_all_that_there_is_then_in_one_revision,
    all_or_nothing_of_it_is_taken,
    the_tag_of_the_policies_outlives_decisions_and_overrides,
    a_flood_of_replacements_of_one_service_is_held_back,
);
