//! The contract of a store, over every way to a server.

use std::sync::Arc;

use larder_redis::{Options, RedisStore, RedisUrl, Tls};
use larder_testing::certificates::Authority;
use larder_testing::contract;
use larder_testing::redis::{RedisCluster, RedisSentinels, RedisServer};

use crate::rights::LEAST;
use crate::tls::presenting;

async fn check(url: &str) {
    check_with(url, Tls::default()).await;
}

async fn check_with(url: &str, tls: Tls) {
    let url = RedisUrl::parse(url).unwrap();
    let make = async || {
        let options = Options {
            // The contract is about what happens, not how fast on a busy machine.
            deadline: std::time::Duration::from_secs(5),
            tls: tls.clone(),
            ..Options::default()
        };
        Arc::new(RedisStore::connect(url.clone(), options)) as _
    };
    contract::run(make).await;
    contract::run_leases(make).await;
    contract::run_proofs(make().await, make().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tcp() {
    check(&RedisServer::start().url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tcp_to_valkey() {
    let server = RedisServer::start_valkey(&[]);
    let info = server.cli(&["INFO", "server"]);
    assert!(info.contains("server_name:valkey"), "{info}");
    check(&server.url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_with_a_client_certificate() {
    let authority = Authority::new();
    let own = authority.sign("server", "IP:127.0.0.1");
    let ours = authority.sign("client", "DNS:client");
    let (_server, url) = RedisServer::start_tls(&authority, &own, &["--tls-auth-clients", "yes"]);
    check_with(&url, presenting(&authority, &ours)).await;
}

async fn check_with_least_rights(server: RedisServer) {
    let strlen = server.cli(&["ACL", "DRYRUN", "larder", "STRLEN", "cache:a"]);
    assert!(strlen.contains("no permissions"), "{strlen}");
    check(&format!("redis://larder:pass@127.0.0.1:{}", server.port())).await;
}

fn least_user() -> Vec<&'static str> {
    let user = ["--user", "larder", "on", ">pass"];
    user.into_iter().chain(LEAST.split(' ')).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_a_user_with_the_least_rights() {
    check_with_least_rights(RedisServer::start_with(&least_user())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_a_user_with_the_least_rights_on_valkey() {
    check_with_least_rights(RedisServer::start_valkey(&least_user())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_a_user_without_a_password() {
    let server = RedisServer::start_with(&["--user", "open", "on", "nopass", "~*", "+@all"]);
    server.cli(&["ACL", "SETUSER", "default", "off"]);
    check(&format!("redis://open@127.0.0.1:{}", server.port())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_socket_file_with_a_password_in_another_database() {
    let server = RedisServer::start_with(&["--requirepass", "p@ss/word"]);
    let socket = server.socket().display().to_string();
    let host = "unix://:p%40ss%2Fword@";
    check(&format!("{host}{socket}?db=3")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_sentinels() {
    check(&RedisSentinels::start().url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_sentinels_with_passwords_of_their_own() {
    let arguments = ["--requirepass", "pass", "--masterauth", "pass"];
    let sentinels = RedisSentinels::start_as("watch", "sentry", &arguments);
    let url = sentinels.url() + "/3?sentinel_user=watch&sentinel_password=sentry";
    check(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_cluster() {
    check(&RedisCluster::start().url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_cluster_as_a_user_with_the_least_rights() {
    let mut arguments = least_user();
    arguments.extend("+cluster|slots +cluster|shards +cluster|nodes +asking".split(' '));
    let cluster = RedisCluster::start_with(3, &arguments);
    check(&cluster.url().replace("://", "://larder:pass@")).await;
}
