//! Several instances share one database and one cache.

use std::sync::Arc;

use product_service::Shop;
use tokio::sync::Barrier;

use crate::{BOTH, QUICK, Running, in_process};

#[tokio::test]
async fn what_one_fetched_another_hands_out_and_what_one_changed_the_other_shows() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("products.db");
    let store = in_process();
    let one = Running::start(&database, QUICK, store.clone()).await;
    let two = Running::start(&database, QUICK, store).await;
    one.get("/products").await;
    assert!(
        two.get("/products")
            .await
            .1
            .starts_with(r#"{"cached":true"#)
    );
    two.request("PUT", "/products/2", r#"{"price":31}"#).await;
    let (_, list) = one.get("/products").await;
    assert!(
        list.starts_with(r#"{"cached":false"#) && list.contains("31"),
        "{list}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn instances_that_start_at_once_make_one_database() {
    const INSTANCES: usize = 16;
    let folder = tempfile::tempdir().unwrap();
    // Without a second try 1 of 40 rounds fails: the change to WAL is not waited for.
    for round in 0..100 {
        let database = folder.path().join(format!("{round}.db"));
        let all_there = Arc::new(Barrier::new(INSTANCES));
        let open = |_| {
            let (database, all_there) = (database.clone(), Arc::clone(&all_there));
            tokio::spawn(async move {
                all_there.wait().await;
                let shop = Shop::open(&database, QUICK).await?;
                shop.products().await
            })
        };
        let opened: Vec<_> = (0..INSTANCES).map(open).collect();
        for opened in opened {
            assert_eq!(opened.await.unwrap().unwrap().get(), BOTH);
        }
    }
}
