//! A server that stops to tell which life it is in is met anew: what it may lose from then on can't be noticed.

use std::time::Duration;

use larder_core::{Store as _, Ttl};
use larder_testing::redis::{RedisServer, wait_until};

use crate::{connect_patiently, key, until_found, until_kept};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_that_is_taken_away_ends_what_was_known() {
    let server = RedisServer::start();
    let user = |rule: &str| {
        let mut words = vec!["ACL", "SETUSER", "app"];
        words.extend(rule.split(' '));
        assert_eq!(server.cli(&words), "OK");
    };
    user("on >pass ~* +@all");
    let store = connect_patiently(&format!("redis://app:pass@127.0.0.1:{}", server.port()));
    let key = key("/a");
    until_kept(&store, &key).await;
    let before = store.incarnation(&key);
    user("-info");
    tokio::task::block_in_place(|| {
        wait_until("it is met anew", || store.incarnation(&key) != before);
    });
    // Nothing is known of it.
    let found = loop {
        if let Ok(found) = store.get(&key, Ttl::MAX).await {
            break found;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(found, None);
    // With the right it is the life that it was.
    user("+info");
    server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    tokio::task::block_in_place(|| {
        wait_until("it tells again", || store.incarnation(&key) == before);
    });
    until_found(&store, &key).await;
}
