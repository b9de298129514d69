//! Several instances share one database and one cache.

use std::process::Stdio;

use product_service::Shop;

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

/// Set in the children: this test binary again, to open the database that it names.
const IN_CHILD: &str = "PRODUCT_SERVICE_TEST_OPENS";

#[tokio::test]
async fn processes_that_start_at_once_make_one_database() {
    if let Some(database) = std::env::var_os(IN_CHILD) {
        let shop = Shop::open(database.as_ref(), QUICK).await.unwrap();
        assert_eq!(shop.products().await.unwrap().get(), BOTH);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for round in 0..5 {
        let database = folder.path().join(format!("{round}.db"));
        let start = |_| {
            tokio::process::Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "instances::processes_that_start_at_once_make_one_database",
                ])
                .env(IN_CHILD, &database)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .unwrap()
        };
        let children: Vec<_> = (0..8).map(start).collect();
        for child in children {
            let output = child.wait_with_output().await.unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            let result = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{said}{result}");
        }
    }
}
