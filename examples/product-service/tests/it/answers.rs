//! The first answer comes from the database, the next ones from the cache.

use std::time::Duration;

use crate::{BOTH, Running};

#[tokio::test]
async fn the_list_is_fetched_once_and_stored_as_it_is_for_300_seconds() {
    let (service, _folder) = Running::alone().await;
    let fetched = format!(r#"{{"cached":false,"products":{BOTH}}}"#);
    let cached = format!(r#"{{"cached":true,"products":{BOTH}}}"#);
    assert_eq!(service.get("/products").await, (200, fetched));
    assert_eq!(service.get("/products").await, (200, cached.clone()));
    assert_eq!(service.get("/products?utm_source=a&x").await, (200, cached));
    assert_eq!(service.cache.counts().loads, 1);

    let page = service.cache.store().scan(None, None, 10).await.unwrap();
    let [entry] = page.entries.as_slice() else {
        panic!("{page:?}");
    };
    assert_eq!(entry.key.as_str(), "cache:product-service:/products");
    let left = entry.ttl.unwrap();
    assert!(
        left <= Duration::from_secs(300) && left > Duration::from_secs(290),
        "{left:?}"
    );
    let stored = service.cache.get_json(&entry.key).await.unwrap();
    assert_eq!(stored.as_bytes(), BOTH.as_bytes());
}

#[tokio::test]
async fn one_product_is_cached_like_the_list() {
    let (service, _folder) = Running::alone().await;
    let mouse =
        |cached| format!(r#"{{"cached":{cached},"product":{{"id":2,"name":"Mouse","price":29}}}}"#);
    assert_eq!(service.get("/products/2").await, (200, mouse(false)));
    assert_eq!(service.get("/products/2").await, (200, mouse(true)));
}

#[tokio::test]
async fn a_product_that_is_not_there_is_404_and_nothing_is_stored() {
    let (service, _folder) = Running::alone().await;
    for id in [
        "3",
        "01",
        "+1",
        "1.0",
        "one",
        "-1",
        "%20",
        "99999999999999999999",
    ] {
        let (status, _) = service.get(&format!("/products/{id}")).await;
        assert_eq!(status, 404, "{id}");
    }
    let page = service.cache.store().scan(None, None, 10).await.unwrap();
    assert!(page.entries.is_empty(), "{page:?}");
}

#[tokio::test]
async fn a_hundred_at_once_make_one_query() {
    let (service, _folder) = Running::alone().await;
    let service = std::sync::Arc::new(service);
    let requests: Vec<_> = (0..100)
        .map(|_| {
            let service = std::sync::Arc::clone(&service);
            tokio::spawn(async move { service.get("/products").await })
        })
        .collect();
    for request in requests {
        assert_eq!(request.await.unwrap().0, 200);
    }
    assert_eq!(service.cache.counts().loads, 1);
}
