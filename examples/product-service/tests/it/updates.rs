//! An update changes what is given, and the next answer shows it.

use crate::Running;

const UPDATED: &str = r#"{"success":true,"message":"Product updated"}"#;

#[tokio::test]
async fn the_given_fields_change_and_the_next_answers_show_it() {
    let (service, _folder) = Running::alone().await;
    service.get("/products").await;
    service.get("/products/1").await;
    service.get("/products/2").await;
    let updated = service
        .request("PUT", "/products/1", r#"{"price":899}"#)
        .await;
    assert_eq!(updated, (200, UPDATED.to_owned()));
    assert!(!service.is_stored("/products").await && !service.is_stored("/products/1").await);
    assert!(
        service.is_stored("/products/2").await,
        "another product's entry stays"
    );
    let (_, list) = service.get("/products").await;
    assert!(
        list.starts_with(r#"{"cached":false"#)
            && list.contains(r#"{"id":1,"name":"Laptop","price":899}"#),
        "{list}"
    );
    let (_, product) = service.get("/products/1").await;
    assert_eq!(
        product,
        r#"{"cached":false,"product":{"id":1,"name":"Laptop","price":899}}"#
    );
    service
        .request(
            "PUT",
            "/products/1",
            r#"{"name":"Notebook \"Pro\"","price":1.5}"#,
        )
        .await;
    let (_, product) = service.get("/products/1").await;
    assert_eq!(
        product,
        r#"{"cached":false,"product":{"id":1,"name":"Notebook \"Pro\"","price":1.5}}"#
    );
}

#[tokio::test]
async fn entries_for_queries_go_too() {
    let (service, _folder) = Running::alone().await;
    let key = service.key("/products?page=2");
    let minute = std::time::Duration::from_secs(60);
    assert!(service.cache.set(&key, "old", minute).await.is_stored());
    service
        .request("PUT", "/products/1", r#"{"price":1}"#)
        .await;
    assert!(!service.is_stored("/products?page=2").await);
}

#[tokio::test]
async fn what_can_t_be_done_is_said_and_invalidates_nothing() {
    let (service, _folder) = Running::alone().await;
    service.get("/products").await;
    for (id, body, status) in [
        ("3", r#"{"price":1}"#, 404),
        ("01", r#"{"price":1}"#, 404),
        ("1", "", 400),
        ("1", "price=1", 400),
        ("1", r#"{"price":"much"}"#, 400),
        ("1", r#"{"price":1e999}"#, 400),
        ("1", r#"{"price":1} {"price":2}"#, 400),
        ("1", "[]", 400),
    ] {
        let target = format!("/products/{id}");
        assert_eq!(
            service.request("PUT", &target, body).await.0,
            status,
            "{id} {body}"
        );
    }
    let too_large = "x".repeat((1 << 20) + 1);
    assert_eq!(
        service.request("PUT", "/products/1", &too_large).await.0,
        413
    );
    let (_, list) = service.get("/products").await;
    assert!(list.starts_with(r#"{"cached":true"#), "{list}");
}
