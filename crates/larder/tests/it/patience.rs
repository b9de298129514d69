//! Who would rather wait than go without says how long.

use std::path::Path;
use std::time::Duration;

use larder::{Settings, StoreError};
use larder_testing::process::PATIENCE;
use larder_testing::redis::RedisServer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stood_still_for_a_moment_is_waited_for() {
    let redis = RedisServer::start();
    let url = |name: &str| (name == "REDIS_URL").then(|| redis.url());
    let settings = Settings::read(url, Path::new("/nowhere")).unwrap();
    let hasty = larder::open_store(&settings).unwrap();
    let patient = larder::open_store_within(&settings, PATIENCE).unwrap();
    let looking = larder::look_at_store(&settings, PATIENCE).unwrap();
    for store in [&hasty, &patient, &looking] {
        let begin = std::time::Instant::now();
        while store.stats().await.is_err() {
            assert!(begin.elapsed() < PATIENCE, "it does not answer");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    redis.pause();
    let (patient, looking) = tokio::join!(
        async { tokio::join!(patient.stats(), looking.stats()) },
        async {
            assert_eq!(hasty.stats().await.err(), Some(StoreError::TimedOut));
            redis.resume();
        }
    )
    .0;
    assert!(patient.is_ok(), "{patient:?}");
    assert!(looking.is_ok(), "{looking:?}");
}
