//! A password is in nothing that is shown: no error, no name, no log (SECURITY SF-14).

use std::io::Write as _;
use std::time::Duration;

use larder_core::{Store as _, Ttl};
use larder_redis::{Options, RedisUrl};
use larder_testing::redis::RedisServer;

use crate::log::Log;
use crate::scripted::scripted;
use crate::{connect, connect_patiently, connect_with, key, until_found};

const CANARY: &str = "canary-hunter2";

#[tokio::test]
async fn a_password_is_in_no_error_no_name_and_no_log() {
    let log = Log::start();
    let mut server = RedisServer::start_with(&["--requirepass", CANARY]);
    let port = server.port();
    let right = format!("redis://:{CANARY}@127.0.0.1:{port}");
    let mut shown = format!("{:?}", RedisUrl::parse(&right).unwrap());
    let store = connect(&right);
    server.cli(&["SET", key("/a").as_str(), "1", "EX", "60"]);
    until_found(&store, &key("/a")).await;
    shown += &store.name();
    server.kill();
    while store.get(&key("/a"), Ttl::MAX).await.is_ok() {}
    shown += &format!("{:?}", store.get(&key("/a"), Ttl::MAX).await);
    server.restart();

    let wrong = connect_patiently(&format!("redis://{CANARY}:{CANARY}-not@127.0.0.1:{port}"));
    let error = wrong.get(&key("/a"), Ttl::MAX).await.unwrap_err();
    shown += &format!("{error} {error:?} {}", wrong.name());
    assert!(shown.contains("check the user and the password"), "{shown}");
    let logged = log.text();
    assert!(logged.contains("store away"), "{logged}");
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(!logged.contains("hunter2"), "{logged}");
}

/// Not of the servers, and not of the Sentinels.
#[tokio::test]
async fn a_password_for_several_servers_is_not_shown_either() {
    let server = RedisServer::start_with(&["--requirepass", "other"]);
    let port = server.port();
    for url in [
        format!("redis+cluster://us:{CANARY}@127.0.0.1:{port},127.0.0.1:{port}"),
        format!("redis+sentinel://us:{CANARY}@127.0.0.1:{port}/m?sentinel_password={CANARY}"),
    ] {
        let log = Log::start();
        let store = connect_patiently(&url);
        let error = store.get(&key("/a"), Ttl::MAX).await.unwrap_err();
        let shown = format!("{error} {error:?} {} {}", store.name(), log.text());
        assert!(shown.contains("check the user and the password"), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

/// Redis 5 repeats a command that it does not know with its arguments.
#[tokio::test]
async fn a_server_that_repeats_the_password_is_not_repeated() {
    for begin in ["ERR unknown command `HELLO`, with args", "ERR what is"] {
        let log = Log::start();
        let url = scripted(move |command, stream| {
            let password = String::from_utf8_lossy(&command[command.len().min(5) - 1]);
            write!(stream, "-{begin}: `{password}`\r\n")
        });
        // The naive form would show what the server says.
        let url = url.replace("redis://", &format!("redis://:{CANARY}@"));
        let patient = Options {
            deadline: Duration::from_secs(5),
            ..Options::default()
        };
        let store = connect_with(&url, patient);
        let error = store.get(&key("/a"), Ttl::MAX).await.unwrap_err();
        let (error, logged) = (error.to_string(), log.text());
        assert!(
            error.contains("it ") && !error.contains("hunter2"),
            "{error}"
        );
        assert!(
            logged.contains("store away") && !logged.contains("hunter2"),
            "{logged}"
        );
    }
}
