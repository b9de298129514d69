//! What a server tells of itself is told as it is, and what it does not tell is left open.

use std::time::Duration;

use larder_redis::{Access, Options, Product, Survey};
use larder_testing::redis::RedisServer;

use crate::connect_with;
use crate::rights::LEAST;

async fn survey(url: &str) -> Survey {
    let options = Options {
        deadline: Duration::from_secs(5),
        ..Options::default()
    };
    let mut surveys = connect_with(url, options).survey().await.unwrap();
    surveys.pop().unwrap()
}

#[tokio::test]
async fn a_redis_and_a_valkey_tell_what_they_are() {
    let redis =
        RedisServer::start_with(&["--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lfu"]);
    let valkey = RedisServer::start_valkey(&[]);
    let open = Access {
        is_on: true,
        needs_password: false,
        is_unlimited: true,
    };
    let told = survey(&redis.url()).await;
    assert_eq!(told.product, Product::Redis);
    assert!(
        redis
            .cli(&["INFO", "server"])
            .contains(&format!("redis_version:{}", told.version.unwrap()))
    );
    assert_eq!(
        (told.max_memory, told.memory_policy.as_deref()),
        (Some(64 << 20), Some("allkeys-lfu"))
    );
    assert_eq!((told.access, told.default_access), (Some(open), Some(open)));
    assert!(told.is_local && !told.is_secured && !told.gave_password);

    let told = survey(&valkey.url()).await;
    assert_eq!(told.product, Product::Valkey);
    assert!(
        valkey
            .cli(&["INFO", "server"])
            .contains(&format!("valkey_version:{}", told.version.unwrap()))
    );
    assert_eq!((told.max_memory, told.access), (Some(0), Some(open)));
}

#[tokio::test]
async fn a_user_that_may_not_ask_is_told_less() {
    let server = RedisServer::start();
    let mut command = vec!["ACL", "SETUSER", "larder", "on", ">pass"];
    command.extend(LEAST.split(' '));
    assert_eq!(server.cli(&command), "OK");
    let told = survey(&format!("redis://larder:pass@127.0.0.1:{}", server.port())).await;
    assert_eq!((told.user.as_str(), told.gave_password), ("larder", true));
    assert_eq!((told.access, told.default_access), (None, None));
    assert_eq!(told.max_memory, Some(0));
}

#[tokio::test]
async fn other_programs_keys_are_counted_in_a_bounded_sample() {
    let server = RedisServer::start();
    server.cli(&[
        "MSET",
        "cache:svc:/a",
        "1",
        "larder:x",
        "1",
        "session:1",
        "1",
        "session:2",
        "1",
        "plain",
        "1",
    ]);
    let told = survey(&server.url()).await.sample.unwrap();
    assert_eq!((told.keys, told.foreign), (5, 3));
    assert_eq!(told.prefixes, ["session:", "plain"]);
    let fill = "for i = 1, 100000 do redis.call('SET', 'queue:' .. i, 1) end";
    server.cli(&["EVAL", fill, "0"]);
    let told = survey(&server.url()).await.sample.unwrap();
    assert!((5_000..20_000).contains(&told.keys), "{told:?}");
    assert!(
        told.prefixes[0] == "queue:" && told.foreign > told.keys / 2,
        "{told:?}"
    );
}
