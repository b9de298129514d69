//! Policies are set, removed, read and kept.

use crate::Running;

#[tokio::test]
async fn a_policy_is_in_force_at_once_and_kept_across_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("control.db");
    let control = Running::start_on(&database).await;
    let put = control
        .put(
            "/api/policies/product-service/products",
            r#"{"mode":"on","ttl_seconds":60}"#,
        )
        .await;
    assert_eq!(put.status, 200, "{put:?}");
    assert_eq!(put.json()["ttl_seconds"], 60);
    control.stop().await;

    let control = Running::start_on(&database).await;
    let config = control
        .get("/api/config/product-service/products")
        .await
        .json();
    let fields: [(&str, serde_json::Value); 8] = [
        ("service_name", "product-service".into()),
        ("endpoint", "/products".into()),
        ("method", "GET".into()),
        ("cache_enabled", true.into()),
        ("ttl_seconds", 60.into()),
        ("circuit_breaker", false.into()),
        ("source", "policy".into()),
        ("version", 1.into()),
    ];
    for (field, expected) in fields {
        assert_eq!(config[field], expected, "{field}");
    }
    assert!(config["reason"].as_str().unwrap().contains("60 s"));
}

#[tokio::test]
async fn a_path_gets_the_policy_of_its_most_specific_template() {
    let control = Running::start().await;
    control
        .put(
            "/api/policies/svc/products/%7Bid%7D",
            r#"{"ttl_seconds":10}"#,
        )
        .await;
    control
        .put("/api/policies/svc/products/top", r#"{"ttl_seconds":20}"#)
        .await;
    for (path, template, ttl) in [
        ("/products/7", "/products/{id}", 10),
        ("/products/top", "/products/top", 20),
        ("/products/:id", "/products/{id}", 10),
        ("%2Fproducts%2F7", "/products/{id}", 10),
    ] {
        let config = control.get(&format!("/api/config/svc/{path}")).await.json();
        assert_eq!(
            (&config["endpoint"], &config["ttl_seconds"]),
            (&template.into(), &ttl.into()),
            "{path}"
        );
    }
    let root = control
        .put("/api/policies/svc/", r#"{"ttl_seconds":30}"#)
        .await;
    assert_eq!(root.json()["endpoint"], "/", "{root:?}");
}

#[tokio::test]
async fn without_a_policy_the_default_holds_but_never_for_unsafe_methods() {
    let control = Running::start().await;
    let config = control.get("/api/config/svc/nothing").await.json();
    assert_eq!(
        (
            &config["source"],
            &config["cache_enabled"],
            &config["ttl_seconds"]
        ),
        (&"default".into(), &true.into(), &300.into())
    );
    control
        .put("/api/policies/svc/checkout?method=POST", r#"{"mode":"on"}"#)
        .await;
    let config = control
        .get("/api/config/svc/checkout?method=post")
        .await
        .json();
    assert_eq!(
        (&config["method"], &config["cache_enabled"]),
        (&"POST".into(), &false.into())
    );
}

#[tokio::test]
async fn put_replaces_and_names_of_parameters_dont_count() {
    let control = Running::start().await;
    control
        .put(
            "/api/policies/svc/p/:id",
            r#"{"ttl_seconds":10,"negative_ttl_seconds":5}"#,
        )
        .await;
    control
        .put("/api/policies/svc/p/%7Bname%7D", r#"{"mode":"off"}"#)
        .await;
    let list = control.get("/api/policies/svc").await.json();
    assert_eq!(list["policies"].as_array().unwrap().len(), 1, "{list}");
    assert_eq!(
        list["policies"][0]["policy"],
        serde_json::json!({"mode": "off"})
    );
    let config = control.get("/api/config/svc/p/1").await.json();
    assert_eq!(
        (&config["cache_enabled"], &config["ttl_seconds"]),
        (&false.into(), &300.into())
    );
}

#[tokio::test]
async fn delete_brings_the_default_back_and_says_when_there_was_none() {
    let control = Running::start().await;
    control
        .put("/api/policies/svc/a", r#"{"mode":"off"}"#)
        .await;
    assert_eq!(control.delete("/api/policies/svc/a").await.status, 204);
    assert_eq!(
        control.get("/api/config/svc/a").await.json()["source"],
        "default"
    );
    control.delete("/api/policies/svc/a").await.is_problem(404);
    control.get("/api/policies/svc/a").await.is_problem(404);
}

#[tokio::test]
async fn preconditions_keep_two_writers_apart() {
    let control = Running::start().await;
    let put = async |headers: &[(&str, &str)]| {
        let headers = [&[("Content-Type", "application/json")], headers].concat();
        control
            .send("PUT", "/api/policies/svc/a", &headers, r#"{"mode":"on"}"#)
            .await
    };
    put(&[("If-Match", "*")]).await.is_problem(412);
    let first = put(&[("If-None-Match", "*")]).await;
    assert_eq!(first.status, 200);
    put(&[("If-None-Match", "*")]).await.is_problem(412);
    let tag = first.header("etag").unwrap();
    assert_eq!(put(&[("If-Match", tag)]).await.status, 200);
    put(&[("If-Match", tag)]).await.is_problem(412);
    let current = control.get("/api/policies/svc/a").await;
    control
        .send("DELETE", "/api/policies/svc/a", &[("If-Match", tag)], "")
        .await
        .is_problem(412);
    let if_match = [("If-Match", current.header("etag").unwrap())];
    let delete = control.send("DELETE", "/api/policies/svc/a", &if_match, "");
    assert_eq!(delete.await.status, 204);
}

#[tokio::test]
async fn the_etag_changes_with_the_policies_and_with_the_database() {
    let control = Running::start().await;
    let etag = async |control: &Running| {
        let answer = control.get("/api/config/svc").await;
        answer.header("etag").unwrap().to_owned()
    };
    let unchanged = async |tag: &str| {
        let answer = control
            .send("GET", "/api/config/svc", &[("If-None-Match", tag)], "")
            .await;
        answer.status == 304 && answer.body.is_empty()
    };
    let empty = etag(&control).await;
    assert!(unchanged(&empty).await);
    control
        .put("/api/policies/svc/a", r#"{"ttl_seconds":1}"#)
        .await;
    assert!(!unchanged(&empty).await);
    let one = etag(&control).await;
    assert!(unchanged(&one).await && unchanged(&format!("\"x\", W/{one}")).await);
    control.delete("/api/policies/svc/a").await;
    assert!(!unchanged(&one).await && etag(&control).await != empty);

    let other = Running::start().await;
    other
        .put("/api/policies/svc/a", r#"{"ttl_seconds":1}"#)
        .await;
    assert_ne!(etag(&other).await, one);
}

#[tokio::test]
async fn the_document_of_a_service_holds_all_of_its_policies() {
    let control = Running::start().await;
    control
        .put("/api/policies/svc/b", r#"{"mode":"off"}"#)
        .await;
    control
        .put(
            "/api/policies/svc/a",
            r#"{"include_query":["page"],"vary":["Accept-Language"]}"#,
        )
        .await;
    control.put("/api/policies/other/c", "{}").await;
    let config = control.get("/api/config/svc").await.json();
    assert_eq!(
        (&config["service_name"], &config["version"]),
        (&"svc".into(), &2.into())
    );
    let policies = config["policies"].as_array().unwrap();
    assert_eq!(policies.len(), 2);
    assert_eq!(
        (&policies[0]["endpoint"], &policies[1]["endpoint"]),
        (&"/a".into(), &"/b".into())
    );
    assert_eq!(policies[0]["vary"], serde_json::json!(["accept-language"]));
    let services = control.get("/api/services").await.json();
    let names: Vec<_> = services["services"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["service_name"])
        .collect();
    assert_eq!(names, ["other", "svc"]);
}

also_over_postgres!(
    a_policy_is_in_force_at_once_and_kept_across_a_restart,
    a_path_gets_the_policy_of_its_most_specific_template,
    without_a_policy_the_default_holds_but_never_for_unsafe_methods,
    put_replaces_and_names_of_parameters_dont_count,
    delete_brings_the_default_back_and_says_when_there_was_none,
    preconditions_keep_two_writers_apart,
    the_etag_changes_with_the_policies_and_with_the_database,
    the_document_of_a_service_holds_all_of_its_policies,
);
