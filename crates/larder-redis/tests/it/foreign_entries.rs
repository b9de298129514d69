//! What other programs wrote is read, within bounds: lists, values that are too long, entries without an end.

use std::io::Write as _;
use std::time::Duration;

use larder_core::{Store as _, Ttl};
use larder_redis::Options;
use larder_testing::redis::RedisServer;

use crate::scripted::{bulk, server_of_version};
use crate::{connect_patiently, connect_with, entry, key};

#[tokio::test]
async fn what_is_no_string_or_too_long_is_a_miss() {
    let server = RedisServer::start();
    let store = connect_patiently(&server.url());
    server.cli(&["RPUSH", "cache:svc:/list", "1"]);
    server.cli(&[
        "EVAL",
        "redis.call('SETEX', KEYS[1], 60, string.rep('x', 3000000))",
        "1",
        "cache:svc:/long",
    ]);
    server.cli(&["SET", "cache:svc:/fine", "[1]", "EX", "60"]);
    for endpoint in ["/list", "/long"] {
        assert_eq!(
            store.get(&key(endpoint), Ttl::MAX).await,
            Ok(None),
            "{endpoint}"
        );
    }
    let keys = ["/list", "/long", "/fine"].map(key);
    let found = store.get_many(&keys, Ttl::MAX).await.unwrap();
    assert_eq!(found[..2], [None, None]);
    assert_eq!(found[2].as_ref().unwrap().bytes, "[1]");
    assert!(found[2].as_ref().unwrap().foreign);
}

#[tokio::test]
async fn an_entry_without_an_end_is_given_one() {
    let server = RedisServer::start();
    let store = connect_patiently(&server.url());
    let longest = Ttl::new(Duration::from_secs(60)).unwrap();
    for endpoint in ["/endless", "/years"] {
        server.cli(&["SET", &format!("cache:svc:{endpoint}"), "1"]);
    }
    server.cli(&["EXPIRE", "cache:svc:/years", "999999999"]);
    for endpoint in ["/endless", "/years"] {
        assert_eq!(
            store
                .get(&key(endpoint), longest)
                .await
                .unwrap()
                .unwrap()
                .bytes,
            "1"
        );
        // Answered in order, behind the cut.
        store.get(&key("/other"), longest).await.unwrap();
        let ttl: i64 = server
            .cli(&["TTL", &format!("cache:svc:{endpoint}")])
            .parse()
            .unwrap();
        assert!((50..=60).contains(&ttl), "{ttl}");
    }
}

#[tokio::test]
async fn who_only_looks_changes_nothing_and_what_could_not_be_read_is_not_written() {
    let server = RedisServer::start();
    let store = connect_patiently(&server.url());
    server.cli(&["SET", "cache:svc:/endless", "1"]);
    let found = store.get(&key("/endless"), Ttl::MAX).await.unwrap();
    assert_eq!(found.unwrap().ttl, None);
    assert_eq!(server.cli(&["TTL", "cache:svc:/endless"]), "-1");

    let long = entry(&key("/long"), &"x".repeat((1 << 20) + 1));
    let written = store.set(long).await.unwrap();
    assert_eq!(
        written,
        larder_core::Written::Skipped(larder_core::Skip::TooLarge)
    );
    assert_eq!(server.cli(&["EXISTS", "cache:svc:/long"]), "0");
}

/// `LT` came with Redis 7.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_server_is_told_in_its_own_words() {
    for (version, words) in [("6.2.14", 3), ("7.0.15", 4)] {
        let (said, told) = std::sync::mpsc::channel();
        let url = server_of_version(version, move |command, stream| match &command[0][..] {
            b"GET" => stream.write_all(&bulk(b"1")),
            b"PTTL" => stream.write_all(b":-1\r\n"),
            b"PEXPIRE" => {
                let _ = said.send(command.len());
                stream.write_all(b":1\r\n")
            }
            _ => stream.write_all(&bulk(&command[1])),
        });
        let store = connect_patiently(&url);
        let longest = Ttl::new(Duration::from_secs(60)).unwrap();
        assert!(store.get(&key("/a"), longest).await.unwrap().is_some());
        let told = told.recv_timeout(Duration::from_secs(5)).unwrap();
        assert_eq!(told, words, "{version}");
    }
}

#[tokio::test]
async fn many_large_values_are_all_read() {
    let server = RedisServer::start();
    let options = Options {
        deadline: Duration::from_secs(10),
        ..Options::default()
    };
    let store = connect_with(&server.url(), options);
    let keys: Vec<_> = (0..40).map(|index| key(&format!("/{index}"))).collect();
    for key in &keys {
        let value = format!("\"{}\"", "x".repeat((1 << 20) - 2));
        assert!(store.set(entry(key, &value)).await.unwrap().is_stored());
    }
    let found = store.get_many(&keys, Ttl::MAX).await.unwrap();
    assert_eq!(found.iter().flatten().count(), keys.len());
}

#[tokio::test]
async fn keys_and_values_arrive_as_they_are() {
    let server = RedisServer::start();
    let store = connect_patiently(&server.url());
    let monitor = server.monitor();
    for (index, value) in [
        "\r\nDEL cache:svc:/0\r\n",
        "*3\r\n$3\r\n",
        "\"quo'tes\"",
        "\0\0",
        "",
        "é漢",
    ]
    .iter()
    .enumerate()
    {
        let key = key(&format!("/{index}?q=a'b%0D%0ADEL"));
        assert!(store.set(entry(&key, value)).await.unwrap().is_stored());
        assert_eq!(
            store.get(&key, Ttl::MAX).await.unwrap().unwrap().bytes,
            *value
        );
    }
    server.cli(&["ECHO", "the-end"]);
    let seen = monitor.until("the-end");
    assert_eq!(seen.matches("SETEX\" \"cache:svc:/").count(), 6, "{seen}");
    assert!(!seen.contains("\"DEL\""), "{seen}");
}
