//! The sample case, as the README has it: the same over both stores.

use std::process::Command;
use std::time::Duration;

use larder_testing::redis::RedisServer;
use serde_json::json;
use tempfile::TempDir;

use crate::running::{Up, run, until};

/// As slow as the README says.
const SLOW: Duration = Duration::from_millis(800);
/// What comes "at once" on a busy machine.
const AT_ONCE: Duration = Duration::from_millis(400);
/// How long a push of Redis takes at the most, on a busy machine.
const PUSHED: Duration = Duration::from_millis(500);
/// For how long a process may serve what it holds itself, Redis being away.
const TRUSTED: Duration = Duration::from_secs(2);

fn products(cached: bool, price: u32) -> serde_json::Value {
    json!({"cached": cached, "products": [
        {"id": 1, "name": "Laptop", "price": price},
        {"id": 2, "name": "Mouse", "price": 29},
    ]})
}

/// An answer that must come from the cache, and what it took. A store that could not be asked in time is no reason that a request
/// fails: then it is counted, and the answer is made anew.
fn hit(up: &Up, price: u32) -> Duration {
    for missed in 0.. {
        let (answer, took) = up.get("/products");
        if answer == products(true, price) {
            return took;
        }
        assert_eq!(answer, products(false, price));
        assert!(missed < up.store_errors(), "nothing kept it from a hit");
    }
    unreachable!("it returns")
}

/// What both stores must do. `told`: how long it may take until a process knows what another one changed.
fn sample_case(folder: &TempDir, told: Duration, set: impl Fn(&mut Command)) {
    let up = Up::start(folder, &set);
    let (first, took) = up.get("/products");
    assert_eq!(first, products(false, 999));
    assert!(took >= SLOW, "{took:?}");
    let fastest = (0..5).map(|_| hit(&up, 999)).min().unwrap();
    assert!(fastest < AT_ONCE, "{fastest:?}");
    let answer = up.put("/products/1", r#"{"price":899}"#);
    assert_eq!(
        answer,
        json!({"success": true, "message": "Product updated"})
    );
    assert_eq!(up.get("/products").0, products(false, 899));
    hit(&up, 899);

    // Two services share one cache.
    let other = Up::start(folder, &set);
    hit(&other, 899);
    other.put("/products/1", r#"{"price":799}"#);
    until("the other one knows", told, || {
        let (answer, _) = up.get("/products");
        let is_new = answer == products(false, 799);
        assert!(is_new || answer == products(true, 899), "{answer}");
        is_new
    });

    // Dropping is `kill -9`.
    drop(up);
    drop(other);
    let restarted = Up::start(folder, &set);
    // The first answer after a restart.
    hit(&restarted, 799);
    assert!(restarted.interrupt(), "Ctrl-C ends it orderly");
}

#[test]
fn over_the_embedded_store() {
    let folder = tempfile::tempdir().unwrap();
    sample_case(&folder, Duration::ZERO, |_| ());
    let keys = run(folder.path(), &["keys", "--json"]);
    assert!(
        keys.out.contains("cache:product-service:/products"),
        "{}",
        keys.out
    );
}

#[test]
fn over_redis() {
    let redis = RedisServer::start();
    let folder = tempfile::tempdir().unwrap();
    let monitor = redis.monitor();
    sample_case(&folder, PUSHED, |command| {
        command.env("REDIS_URL", redis.url());
    });
    assert_eq!(
        redis.cli(&["KEYS", "cache:*"]),
        "cache:product-service:/products"
    );
    assert_eq!(
        redis.cli(&["GET", "cache:product-service:/products"]),
        r#"[{"id":1,"name":"Laptop","price":799},{"id":2,"name":"Mouse","price":29}]"#
    );
    let ttl: u32 = redis
        .cli(&["TTL", "cache:product-service:/products"])
        .parse()
        .unwrap();
    assert!((200..=300).contains(&ttl), "{ttl}");
    // By a script, which compares the lease first.
    let seen = monitor.until(r#"lua] "SETEX""#);
    assert!(
        seen.contains(r#"lua] "SETEX" "cache:product-service:/products" "300""#),
        "{seen}"
    );
    assert!(
        !folder.path().join(".larder/store").exists(),
        "nothing is kept beside Redis"
    );
}

#[test]
fn with_redis_stopped_every_request_succeeds() {
    let mut redis = RedisServer::start();
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(&folder, |command| {
        command
            .env("REDIS_URL", redis.url())
            .env("SLOW_QUERY_MS", "10");
    });
    up.get("/products");
    hit(&up, 999);
    // It comes back with what it has now.
    assert_eq!(redis.cli(&["SAVE"]), "OK");
    redis.kill();
    // What it holds itself it may serve until it has seen that Redis is gone.
    until("it knows that Redis is gone", TRUSTED, || {
        let (answer, _) = up.get("/products");
        let cached = answer["cached"].as_bool().unwrap();
        assert_eq!(answer, products(cached, 999));
        !cached
    });
    up.put("/products/1", r#"{"price":899}"#);
    assert_eq!(up.get("/products").0, products(false, 899));
    redis.restart();
    until("it is used again", Duration::from_secs(10), || {
        let (answer, _) = up.get("/products");
        let cached = answer["cached"].as_bool().unwrap();
        assert_eq!(answer, products(cached, 899));
        cached
    });
}
