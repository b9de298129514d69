//! With the store away every request succeeds.

use std::path::Path;
use std::sync::Arc;

use larder::Settings;

use crate::{QUICK, Running};

#[tokio::test]
async fn every_request_succeeds_and_nothing_is_cached() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("products.db");
    // Nothing listens there.
    let refused = |name: &str| (name == "REDIS_URL").then(|| "redis://127.0.0.1:1".to_owned());
    let settings = Settings::read(refused, Path::new("tests")).unwrap();
    let store = larder::open_redis(&settings).unwrap().unwrap();
    let service = Running::start(&database, QUICK, Arc::new(store)).await;
    for price in [1, 2] {
        let change = format!(r#"{{"price":{price}}}"#);
        assert_eq!(service.request("PUT", "/products/1", &change).await.0, 200);
        for target in ["/products", "/products/1"] {
            let (status, body) = service.get(target).await;
            assert_eq!(status, 200);
            assert!(
                body.starts_with(r#"{"cached":false"#)
                    && body.contains(&format!("\"price\":{price}}}")),
                "{body}"
            );
        }
    }
}
