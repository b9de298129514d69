//! Bad input gets a clear error with the next step, an exit code, and never a panic.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use crate::running::{Answer, larder, run};

fn fails(answer: &Answer, code: i32, words: &str) {
    assert_eq!(answer.code, code, "{}{}", answer.out, answer.err);
    assert!(answer.err.contains(words), "{}", answer.err);
    assert!(!answer.err.contains("panicked"), "{}", answer.err);
}

#[test]
fn wrong_usage_exits_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let long = format!("cache:svc:/{}", "x".repeat(10 << 10));
    for (args, words) in [
        (&["--no-such-flag"][..], "--no-such-flag"),
        (&["get", "products"], "cache:product-service:/products"),
        (&["get", "cache:svc:/a b"], "%20"),
        (&["get", &long], "is not a key"),
        (&["clear", "*"], "cache:<service>:"),
        (&["clear", "cache:*"], "cache:<service>:"),
        (&["keys", "cache:s*c:/"], "cache:<service>:"),
        (&["set", "cache:svc:/a", "1", "--ttl", "-1"], "--ttl"),
        (&["set", "cache:svc:/a", "1", "--ttl", "1e309"], "31536000"),
        (&["simulate", "log", "--origin-ms=-5"], "86400000"),
        (&["simulate", "log", "--origin-ms", "1e30"], "86400000"),
        (&["simulate", "log", "--origin-ms", "NaN"], "86400000"),
        (&["simulate", "log", "--max-ttl", "0"], "31536000"),
        (&["simulate", "log", "--max-ttl", "-1"], "31536000"),
        (&["simulate", "log", "--staleness-budget", "0"], "above 0"),
        (
            &["simulate", "log", "--staleness-budget", "1.5"],
            "at most 1",
        ),
        (&["policy", "get", "sv c", "/"], "service name"),
        (&["policy", "get", "svc", "/../a"], "dot segment"),
    ] {
        fails(&run(folder.path(), args), 2, words);
    }
}

#[test]
fn a_value_that_is_no_json_or_too_large_is_said() {
    let folder = tempfile::tempdir().unwrap();
    fails(
        &run(folder.path(), &["set", "cache:svc:/a", "{"]),
        3,
        "not JSON",
    );
    let huge = std::fs::File::create(folder.path().join("huge")).unwrap();
    huge.set_len(65 << 20).unwrap();
    fails(
        &run(folder.path(), &["set", "cache:svc:/a", "@huge"]),
        3,
        "64.0 MiB",
    );
}

#[test]
fn a_url_that_is_none_is_said_and_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    for url in [
        "http://user:hunter2@127.0.0.1",
        "redis://:hunter2@",
        "redis://h:hunter2/0",
        "hunter2://",
    ] {
        let mut command = larder(folder.path());
        let answer: Answer = command
            .arg("stats")
            .env("REDIS_URL", url)
            .output()
            .unwrap()
            .into();
        fails(&answer, 3, "REDIS_URL (from the environment)");
        assert!(!answer.err.contains("hunter2"), "{}", answer.err);
    }
}

#[test]
fn a_dot_env_that_is_wrong_or_not_ours_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".env");
    std::fs::write(&path, "PORT=1\nwhat is this").unwrap();
    fails(&run(folder.path(), &["config"]), 3, "line 2");
    std::fs::write(&path, "PORT=hunter2").unwrap();
    fails(&run(folder.path(), &["config"]), 3, "PORT (from .env)");
    std::fs::write(&path, "PORT=1").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    fails(&run(folder.path(), &["config"]), 3, "chmod o-w");
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
    fails(&run(folder.path(), &["config"]), 3, "symbolic link");
}

#[test]
fn the_environment_wins_over_dot_env_and_its_values_are_literal() {
    let folder = tempfile::tempdir().unwrap();
    let text = "CONTROL_PLANE_URL=http://127.0.0.1:1/${CANARY}\nPORT=4000\nCONTROL_PORT=4001\n";
    std::fs::write(folder.path().join(".env"), text).unwrap();
    let mut command = larder(folder.path());
    command
        .args(["config", "--json"])
        .env("CANARY", "hunter2")
        .env("PORT", "5000")
        .env("CONTROL_PORT", "");
    let answer: Answer = command.output().unwrap().into();
    let list: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
    let find = |name: &str| {
        let found = list
            .as_array()
            .unwrap()
            .iter()
            .find(|setting| setting["name"] == name)
            .unwrap();
        (
            found["value"].as_str().unwrap().to_owned(),
            found["origin"].as_str().unwrap().to_owned(),
        )
    };
    assert_eq!(find("PORT"), ("5000".into(), "the environment".into()));
    assert_eq!(find("CONTROL_PORT"), ("4001".into(), ".env".into()));
    assert_eq!(find("CONTROL_PLANE_URL").0, "http://127.0.0.1:1/${CANARY}");
    assert_eq!(find("SLOW_QUERY_MS").1, "default");
}

#[test]
fn a_port_that_is_taken_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    fails(
        &run(
            folder.path(),
            &["up", "--port", &port, "--control-port", "0"],
        ),
        3,
        "--port",
    );
    fails(
        &run(
            folder.path(),
            &["up", "--port", "0", "--control-port", &port],
        ),
        3,
        "--control-port",
    );
}

#[test]
fn a_folder_without_rights_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join(".larder/store");
    std::fs::create_dir_all(&store).unwrap();
    std::fs::set_permissions(&store, std::fs::Permissions::from_mode(0o777)).unwrap();
    fails(&run(folder.path(), &["stats"]), 3, "chmod 700");
}

#[test]
fn a_store_that_is_away_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let answer = run(folder.path(), &["stats", "--store", "redis://127.0.0.1:9"]);
    fails(&answer, 3, "127.0.0.1:9");
}

#[test]
fn a_variable_that_is_no_text_is_an_error_and_not_left_out() {
    use std::os::unix::ffi::OsStrExt as _;
    let folder = tempfile::tempdir().unwrap();
    let mut command = larder(folder.path());
    command
        .arg("config")
        .env("LARDER_DIR", std::ffi::OsStr::from_bytes(b"folder-\xff"));
    let answer: Answer = command.output().unwrap().into();
    assert_eq!(answer.code, 3, "{}", answer.out);
    assert!(answer.err.contains("LARDER_DIR"), "{}", answer.err);
}
