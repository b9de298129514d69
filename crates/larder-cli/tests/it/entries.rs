//! The commands that look into the store, and change it: the same words over both.

use std::path::Path;

use larder_testing::redis::{RedisCluster, RedisSentinels, RedisServer};
use serde_json::Value;

use crate::running::{Answer, larder, run};

fn over_both(check: impl Fn(&dyn Fn(&[&str]) -> Answer)) {
    let folder = tempfile::tempdir().unwrap();
    let with_store = |store: &str, args: &[&str], folder: &Path| {
        let args: Vec<&str> = args.iter().copied().chain(["--store", store]).collect();
        run(folder, &args)
    };
    let redis = RedisServer::start();
    for store in ["cache-folder".to_owned(), redis.url()] {
        check(&|args| with_store(&store, args, folder.path()));
    }
}

fn json(answer: &Answer) -> Value {
    serde_json::from_str(&answer.out).unwrap_or_else(|_| panic!("{} {}", answer.out, answer.err))
}

#[test]
fn an_entry_is_set_read_and_deleted() {
    over_both(|larder| {
        let key = "cache:svc:/products";
        assert_eq!(larder(&["get", key]).code, 1, "not there");
        let set = larder(&["set", key, r#"[{"id": 1}]"#, "--ttl", "60"]);
        assert_eq!(set.code, 0, "{}", set.err);
        assert_eq!(json(&larder(&["get", key])), serde_json::json!([{"id": 1}]));
        assert_eq!(larder(&["get", key, "--raw"]).out, r#"[{"id": 1}]"#);
        let ttl: f64 = larder(&["ttl", key]).out.trim().parse().unwrap();
        assert!((50.0..=60.0).contains(&ttl), "{ttl}");
        assert_eq!(larder(&["del", key]).out, "1 entry deleted\n");
        assert_eq!(larder(&["del", key]).code, 1);
        assert_eq!(larder(&["ttl", key]).code, 1);
    });
}

/// Nothing of what a Redis had before a restart is removed by a look: the services may keep it.
#[test]
fn who_only_looks_removes_nothing() {
    let mut redis = RedisServer::start();
    let key = "cache:svc:/products";
    redis.cli(&["SET", key, "[1]", "EX", "600"]);
    assert_eq!(redis.cli(&["SAVE"]), "OK");
    redis.kill();
    redis.restart();
    let folder = tempfile::tempdir().unwrap();
    let url = redis.url();
    for command in ["get", "ttl", "why"] {
        let seen = run(folder.path(), &[command, key, "--store", &url]);
        assert_eq!(redis.cli(&["GET", key]), "[1]", "{command}: {}", seen.err);
    }
    let get = larder(folder.path())
        .args(["get", key, "--store", &url])
        .env("LARDER_AFTER_FAILOVER", "keep")
        .output();
    let get: Answer = get.unwrap().into();
    assert_eq!(json(&get), serde_json::json!([1]), "{}", get.err);
    let get = run(folder.path(), &["get", key, "--store", &url]);
    assert_eq!(get.code, 1);
    assert!(
        get.err.contains("LARDER_AFTER_FAILOVER=keep"),
        "{}",
        get.err
    );
}

#[test]
fn numbers_are_shown_as_they_are_stored() {
    over_both(|larder| {
        let key = "cache:svc:/numbers";
        let value = "[12345678901234567890123, 1.10]";
        assert_eq!(larder(&["set", key, value]).code, 0);
        let shown = "[\n  12345678901234567890123,\n  1.10\n]\n";
        assert_eq!(larder(&["get", key]).out, shown);
        assert_eq!(larder(&["get", key, "--json"]).out, shown);
    });
}

#[test]
fn a_store_is_named_by_the_folder_above_it() {
    let folder = tempfile::tempdir().unwrap();
    let key = "cache:svc:/a";
    assert_eq!(run(folder.path(), &["set", key, "1"]).code, 0);
    let named = |store: &str| run(folder.path(), &["get", key, "--store", store]);
    assert_eq!(named(".larder").out, "1\n");
    let itself = named(".larder/store");
    assert_eq!(itself.code, 3);
    assert!(itself.err.contains("the folder above it"), "{}", itself.err);
    assert!(!folder.path().join(".larder/store/store").exists());
}

#[test]
fn every_setting_is_shown_with_where_it_came_from() {
    let folder = tempfile::tempdir().unwrap();
    let origins = |args: &[&str]| {
        let mut command = larder(folder.path());
        command.args(["config", "--json"]).args(args);
        let answer: Answer = command.env("RUST_LOG", "info").output().unwrap().into();
        let list = json(&answer).as_array().unwrap().clone();
        move |name: &str| {
            let setting = list.iter().find(|one| one["name"] == name).unwrap();
            setting["origin"].as_str().unwrap().to_owned()
        }
    };
    let origin = origins(&["--store", "redis://127.0.0.1:9"]);
    assert_eq!(origin("REDIS_URL"), "the command line");
    assert_eq!(origin("LARDER_DIR"), "default");
    assert_eq!(origin("RUST_LOG"), "the environment");
    assert_eq!(origin("LARDER_CORE_DUMP"), "default");
    assert_eq!(
        origins(&["--store", "here"])("LARDER_DIR"),
        "the command line"
    );
}

#[test]
fn a_filter_of_the_log_that_is_none_is_left_out_and_said() {
    let folder = tempfile::tempdir().unwrap();
    let said = |filter: &str| -> Answer {
        let mut command = larder(folder.path());
        command.arg("config").env("RUST_LOG", filter);
        command.output().unwrap().into()
    };
    let answer = said("larder=loud");
    assert_eq!(answer.code, 0, "{}", answer.err);
    assert!(
        answer.err.contains("RUST_LOG is left out"),
        "{}",
        answer.err
    );
    for filter in ["", "debug", "warn,larder_core=debug"] {
        assert_eq!(said(filter).err, "", "{filter}");
    }
}

#[test]
fn keys_are_listed_and_cleared_by_pattern() {
    over_both(|larder| {
        for key in [
            "cache:svc:/p/1",
            "cache:svc:/p/2",
            "cache:svc:/q",
            "cache:other:/p/1",
        ] {
            assert_eq!(larder(&["set", key, "1"]).code, 0);
        }
        let keys = |args: &[&str]| -> Vec<String> {
            let listed = json(&larder(args));
            let keys = listed.as_array().unwrap().iter();
            keys.map(|entry| entry["key"].as_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(keys(&["keys", "--json"]).len(), 4);
        assert_eq!(
            keys(&["keys", "cache:svc:/p/*", "--json"]),
            ["cache:svc:/p/1", "cache:svc:/p/2"]
        );
        let table = larder(&["keys", "cache:svc:*"]).out;
        assert!(
            table.contains("KEY") && table.contains("cache:svc:/q") && table.contains("3 entries"),
            "{table}"
        );
        assert_eq!(
            larder(&["clear", "cache:svc:*", "--dry-run"]).out,
            "3 entries would be deleted\n"
        );
        assert_eq!(larder(&["clear", "cache:svc:*"]).out, "3 entries deleted\n");
        assert_eq!(keys(&["keys", "--json"]), ["cache:other:/p/1"]);
    });
}

#[test]
fn stats_say_how_full_the_store_is() {
    over_both(|larder| {
        assert_eq!(larder(&["set", "cache:svc:/a", "1"]).code, 0);
        let stats = json(&larder(&["stats", "--json"]));
        assert_eq!(stats["entries"], 1, "{stats}");
        assert!(stats["used_bytes"].as_u64().unwrap() > 0);
        let table = larder(&["stats"]).out;
        assert!(table.contains("entries    1\n"), "{table}");
    });
}

#[test]
fn a_value_comes_from_a_file_or_standard_input() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("value.json"), "[1,2]").unwrap();
    assert_eq!(
        run(folder.path(), &["set", "cache:svc:/a", "@value.json"]).code,
        0
    );
    assert_eq!(
        run(folder.path(), &["get", "cache:svc:/a", "--raw"]).out,
        "[1,2]"
    );
}

/// Several servers are one store, and their URL is shown without its password.
#[test]
fn a_cluster_and_sentinels_are_stores_like_others() {
    let password = ["--requirepass", "hunter2", "--masterauth", "hunter2"];
    let cluster = RedisCluster::start_with(3, &password);
    let sentinels = RedisSentinels::start_as("watch", "hunter2", &password);
    let of_sentinels = sentinels.url() + "?sentinel_user=watch&sentinel_password=hunter2";
    let folder = tempfile::tempdir().unwrap();
    for url in [cluster.url().replace("://", "://:hunter2@"), of_sentinels] {
        let larder = |args: &[&str]| {
            let mut command = larder(folder.path());
            Answer::from(command.args(args).env("REDIS_URL", &url).output().unwrap())
        };
        let done = |args: &[&str]| {
            let answer = larder(args);
            assert_eq!(answer.code, 0, "{args:?}: {}", answer.err);
            answer
        };
        for index in 0..9 {
            done(&["set", &format!("cache:svc:/{index}"), "1"]);
        }
        let keys = done(&["keys", "cache:svc:*"]).out;
        assert_eq!(keys.matches("cache:svc:/").count(), 9, "{keys}");
        let stats = json(&done(&["stats", "--json"]));
        assert!(stats.to_string().contains('9'), "{stats}");
        let config = done(&["config"]).out;
        let shown = url.split("://").next().unwrap();
        assert!(
            config.contains(&format!("{shown}://127.0.0.1:")),
            "{config}"
        );
        assert!(!config.contains("hunter2"), "{config}");
        let cleared = done(&["clear", "cache:svc:*", "--yes"]);
        assert!(cleared.out.contains('9'), "{}", cleared.out);
    }
}
