//! Entries in both forms, and invalidations, on the command line.

use larder_testing::redis::RedisServer;
use serde_json::Value;

use crate::running::{Answer, larder, run};

const KEY: &str = "cache:svc:/products";
const SEAL_KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

fn json(answer: &Answer) -> Value {
    serde_json::from_str(&answer.out).unwrap_or_else(|_| panic!("{} {}", answer.out, answer.err))
}

#[test]
fn what_is_set_sealed_is_shown_in_clear_to_who_has_the_key_and_to_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let redis = RedisServer::start();
    let with_key = |args: &[&str]| -> Answer {
        let mut command = larder(folder.path());
        let command = command.args(args).args(["--store", &redis.url()]);
        command
            .env("LARDER_SEAL_KEYS", SEAL_KEY)
            .output()
            .unwrap()
            .into()
    };
    let without = |args: &[&str]| run(folder.path(), &[args, &["--store", &redis.url()]].concat());
    let set = with_key(&["set", KEY, "[12345678901234567890123]", "--ttl", "60"]);
    assert_eq!(set.code, 0, "{}", set.err);
    assert!(!redis.cli(&["GET", KEY]).contains("123456789"));
    let shown = "[\n  12345678901234567890123\n]\n";
    assert_eq!(with_key(&["get", KEY]).out, shown);
    let framed = with_key(&["get", KEY, "--json"]);
    assert!(
        framed.out.contains("12345678901234567890123"),
        "{}",
        framed.out
    );
    let framed = json(&framed);
    assert_eq!(
        (&framed["form"], &framed["sealed"]),
        (&"framed".into(), &true.into())
    );
    assert_eq!(framed["fresh_seconds"], 60.0);
    assert!(framed["age_seconds"].as_f64().unwrap() < 30.0, "{framed}");
    let refused = without(&["get", KEY]);
    assert_eq!(refused.code, 3);
    assert!(
        refused.err.contains("set LARDER_SEAL_KEYS"),
        "{}",
        refused.err
    );
}

#[test]
fn what_a_store_that_is_away_can_t_be_told_is_kept_and_said() {
    let folder = tempfile::tempdir().unwrap();
    let mut redis = RedisServer::start();
    let url = redis.url();
    let larder = |args: &[&str]| run(folder.path(), &[args, &["--store", &url]].concat());
    assert_eq!(larder(&["set", KEY, "1", "--ttl", "600"]).code, 0);
    redis.kill();
    for args in [&["del", KEY][..], &["invalidate", "--service", "svc"]] {
        let pending = larder(args);
        assert_eq!(pending.code, 3, "{}", pending.out);
        assert!(pending.err.contains("pending, not done"), "{}", pending.err);
        assert!(pending.err.contains(".larder/journal"), "{}", pending.err);
    }
    let as_json = larder(&["del", KEY, "--json"]);
    assert_eq!(json(&as_json)["pending"], true, "{}", as_json.out);
}

#[test]
fn an_endpoint_and_a_service_are_invalidated_with_their_plain_entries() {
    let folder = tempfile::tempdir().unwrap();
    let redis = RedisServer::start();
    for store in ["cache-folder".to_owned(), redis.url()] {
        let larder = |args: &[&str]| run(folder.path(), &[args, &["--store", &store]].concat());
        let keys = || json(&larder(&["keys", "--json"])).as_array().unwrap().len();
        for path in ["/products/1", "/products/2?a=1", "/products", "/users/1"] {
            assert_eq!(larder(&["set", &format!("cache:svc:{path}"), "1"]).code, 0);
        }
        let endpoint = [
            "invalidate",
            "--service",
            "svc",
            "--endpoint",
            "/products/{id}",
        ];
        let done = larder(&endpoint);
        assert_eq!(done.code, 0, "{}", done.err);
        assert_eq!(keys(), 2, "{}", done.out);
        let tag = larder(&["invalidate", "--service", "svc", "--tag", "product:17"]);
        assert_eq!((tag.code, keys()), (0, 2), "{}", tag.err);
        let all = larder(&["invalidate", "--service", "svc", "--json"]);
        assert_eq!(json(&all), serde_json::json!({"done": true, "entries": 2}));
        assert_eq!(keys(), 0);
    }
    for args in [
        &["invalidate"][..],
        &[
            "invalidate",
            "--service",
            "svc",
            "--tag",
            "a",
            "--endpoint",
            "/a",
        ],
    ] {
        assert_eq!(run(folder.path(), args).code, 2);
    }
}

#[test]
fn why_says_where_an_entry_is_and_by_which_rule_it_would_be_served() {
    let folder = tempfile::tempdir().unwrap();
    let mut redis = RedisServer::start();
    for store in ["cache-folder".to_owned(), redis.url()] {
        let larder = |args: &[&str]| run(folder.path(), &[args, &["--store", &store]].concat());
        let why = || json(&larder(&["why", KEY, "--json"]));
        assert_eq!(why()["rule"], "absent");
        assert_eq!(larder(&["set", KEY, "[1]", "--ttl", "60"]).code, 0);
        let fresh = why();
        assert_eq!(
            (&fresh["lookup"], &fresh["fills"]),
            (&"hit".into(), &false.into())
        );
        assert_eq!(fresh["entry"]["form"], "plain");
        let left = fresh["entry"]["left_seconds"].as_f64().unwrap();
        assert!((30.0..=60.0).contains(&left), "{left}");
        let shown = larder(&["why", KEY]);
        assert_eq!(shown.code, 0, "{}", shown.err);
        for row in [
            "store     ",
            "entry     plain, 3 B\n",
            "lease     none",
            "lookup    hit: ",
        ] {
            assert!(shown.out.contains(row), "{}", shown.out);
        }
    }
    let url = redis.url();
    let larder = |args: &[&str]| run(folder.path(), &[args, &["--store", &url]].concat());
    let lease = format!("larder:lease:{{{KEY}}}");
    redis.cli(&["DEL", KEY]);
    redis.cli(&[
        "SET",
        &lease,
        "0123456789abcdef0123456789abcdef",
        "PX",
        "60000",
    ]);
    let leased = json(&larder(&["why", KEY, "--json"]));
    assert_eq!(leased["rule"], "leased", "{leased}");
    assert!(
        leased["lease_left_seconds"].as_f64().unwrap() > 30.0,
        "{leased}"
    );
    assert!(redis.cli(&["GET", &lease]).contains("0123456789abcdef"));
    redis.kill();
    assert_eq!(larder(&["del", KEY]).code, 3);
    redis.restart();
    let pending = json(&larder(&["why", KEY, "--json"]));
    assert_eq!(
        (&pending["rule"], &pending["pending"]),
        (&"pending".into(), &true.into())
    );
    let again = json(&larder(&["why", KEY, "--json"]));
    assert_eq!(again["pending"], true, "looking changes nothing");
}
