//! Callers that go away leave their place to their reply: nobody gets somebody else's (CVE-2023-28858).

use std::time::Duration;

use larder_core::{Store as _, Ttl};
use larder_redis::Options;
use larder_testing::redis::RedisServer;

use crate::{connect_with, entry, key};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_cancelled_reads_give_no_foreign_value() {
    let server = RedisServer::start();
    let options = Options {
        deadline: Duration::from_secs(10),
        max_in_flight: 100_000,
        ..Options::default()
    };
    let store = connect_with(&server.url(), options);
    let keys: Vec<_> = (0..10_000).map(|index| key(&format!("/{index}"))).collect();
    let entries = keys
        .iter()
        .map(|key| entry(key, &format!("\"{key}\"")))
        .collect();
    let written = store.set_many(entries).await.unwrap();
    assert!(written.iter().all(larder_core::Written::is_stored));
    let mut reads = Vec::new();
    for (index, key) in keys.iter().enumerate() {
        let (store, key) = (store.clone(), key.clone());
        let read = tokio::spawn(async move {
            let found = store.get(&key, Ttl::MAX).await.unwrap().unwrap();
            assert_eq!(found.bytes, format!("\"{key}\""));
        });
        // Two of three go away, at whatever point they have come to.
        if index % 3 != 0 {
            if index % 3 == 1 {
                tokio::task::yield_now().await;
            }
            read.abort();
        }
        reads.push(read);
    }
    let mut arrived = 0;
    for read in reads {
        match read.await {
            Ok(()) => arrived += 1,
            Err(error) => assert!(error.is_cancelled(), "{error}"),
        }
    }
    assert!(arrived >= 3_334, "{arrived}");
}
