//! What the cache did is at `/metrics`, for Prometheus, and names nothing of what is cached.

use crate::Running;

#[tokio::test]
async fn what_requests_did_is_counted() {
    let (service, _folder) = Running::alone().await;
    for _ in 0..3 {
        service.get("/products/2").await;
    }
    let (status, page) = service.get("/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "larder_lookups_total{outcome=\"hit\"} 2",
        "larder_lookups_total{outcome=\"miss\"} 1",
        "larder_loads_total 1",
        "larder_store_entries 1",
    ] {
        assert!(page.lines().any(|other| other == line), "{line}: {page}");
    }
    assert!(!page.contains("/products"), "{page}");
}
