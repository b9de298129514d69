//! What an operator reads: one line for each change, not for each request.

use larder_core::{Store as _, Ttl};
use larder_testing::redis::RedisServer;

use crate::log::Log;
use crate::{connect, connect_patiently, entry, key, until_found};

#[tokio::test]
async fn a_server_that_goes_and_comes_is_one_line_each_and_its_memory_one_for_all() {
    let log = Log::start();
    let mut server = RedisServer::start();
    server.kill();
    // The warning about memory is not lost when the server comes later.
    let store = connect(&server.url());
    for round in 1..=2 {
        for _ in 0..500 {
            assert!(store.get(&key("/a"), Ttl::MAX).await.is_err());
        }
        assert_eq!(log.count("store away"), round, "{}", log.text());
        server.restart();
        server.cli(&["SET", key("/a").as_str(), "1", "EX", "60"]);
        until_found(&store, &key("/a")).await;
        assert_eq!(log.count("store back"), round, "{}", log.text());
        server.kill();
        while store.get(&key("/a"), Ttl::MAX).await.is_ok() {}
    }
    assert_eq!(log.count("maxmemory is 0"), 1, "{}", log.text());
}

#[tokio::test]
async fn a_full_memory_that_forgets_nothing_is_warned_of() {
    for (policy, warnings) in [("noeviction", 1), ("allkeys-lfu", 0)] {
        let log = Log::start();
        let server =
            RedisServer::start_with(&["--maxmemory", "64mb", "--maxmemory-policy", policy]);
        let store = connect_patiently(&server.url());
        assert!(store.set(entry(&key("/a"), "1")).await.unwrap().is_stored());
        assert_eq!(log.count("maxmemory-policy is"), warnings, "{}", log.text());
        assert_eq!(log.count("store connected"), 1);
    }
}
