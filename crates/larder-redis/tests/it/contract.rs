//! The contract of a store, over every way to a server.

use std::sync::Arc;

use larder_redis::{Options, RedisStore, RedisUrl};
use larder_testing::contract;
use larder_testing::redis::RedisServer;

async fn check(url: &str) {
    let url = RedisUrl::parse(url).unwrap();
    let make = async || {
        let options = Options {
            // The contract is about what happens, not how fast on a busy machine.
            deadline: std::time::Duration::from_secs(5),
            ..Options::default()
        };
        Arc::new(RedisStore::connect(url.clone(), options)) as _
    };
    contract::run(make).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tcp() {
    check(&RedisServer::start().url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_socket_file_with_a_password_in_another_database() {
    let server = RedisServer::start_with(&["--requirepass", "p@ss/word"]);
    let socket = server.socket().display().to_string();
    let host = "unix://:p%40ss%2Fword@";
    check(&format!("{host}{socket}?db=3")).await;
}
