//! Nothing from outside steers a terminal, and no secret is shown (SECURITY SF-12, SF-14).

use larder_testing::redis::RedisServer;

use crate::explained::with_plane;
use crate::running::{Answer, Up, larder, run};

/// ESC, a title by OSC, clipboard by OSC 52, CSI in one byte, right-to-left override, newline, DEL.
pub(crate) const CANARY: &str =
    "\u{1b}[31mred\u{1b}]0;title\u{7}\u{1b}]52;c;aGk=\u{7}\u{9b}2J\u{202e}\r\n\u{7f}";

pub(crate) fn steers(text: &str) -> bool {
    text.chars().any(|character| {
        (character.is_control() && character != '\n')
            || ('\u{202a}'..='\u{202e}').contains(&character)
    })
}

#[test]
fn values_keys_and_arguments_are_escaped() {
    assert!(steers(CANARY), "the naive form would steer it");
    let folder = tempfile::tempdir().unwrap();
    let redis = RedisServer::start();
    let value = serde_json::to_string(CANARY).unwrap();
    redis.cli(&["SET", "cache:svc:/json", &value, "EX", "60"]);
    redis.cli(&["SET", "cache:svc:/text", CANARY, "EX", "60"]);
    redis.cli(&["SET", &format!("cache:svc:/{CANARY}"), "1", "EX", "60"]);
    redis.cli(&["SET", CANARY, "1", "EX", "60"]);
    let url = redis.url();
    for args in [
        &["keys"][..],
        &["keys", "--json"],
        &["get", "cache:svc:/json"],
        &["get", "cache:svc:/text"],
        &["get", CANARY],
        &["why", "cache:svc:/text"],
        &["why", "cache:svc:/text", "--json"],
        &["why", CANARY],
        &["invalidate", "--service", CANARY],
        &["clear", CANARY],
        &["policy", "get", CANARY, "/"],
        &["set", "cache:svc:/a", CANARY],
        &["stats"],
        &["doctor"],
        &["doctor", "--json"],
    ] {
        let args: Vec<&str> = args.iter().copied().chain(["--store", &url]).collect();
        let answer = run(folder.path(), &args);
        assert!(
            !steers(&answer.out) && !steers(&answer.err),
            "{args:?}: {:?} {:?}",
            answer.out,
            answer.err
        );
    }
}

#[test]
fn what_others_said_of_their_changes_is_escaped() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(&folder, |_| ());
    let turned = "a\u{202e}b";
    assert!(
        steers(turned),
        "the naive form would turn what is behind it"
    );
    let said = ["--author", turned, "--reason", turned];
    let set = ["policy", "set", "svc", "/a", "--ttl", "60"];
    let add = [
        "override", "add", "svc", "/a", "--for", "1h", "--mode", "off",
    ];
    for args in [&set[..], &add] {
        let answer = with_plane(&folder, &up, &[args, &said].concat());
        assert_eq!(answer.code, 0, "{}", answer.err);
    }
    for args in [
        &["policy", "history", "svc"][..],
        &["policy", "diff", "svc"],
        &["policy", "get", "svc", "/a"],
        &["override", "list"],
        &["audit", "list"],
    ] {
        for form in [&[][..], &["--json"]] {
            let answer = with_plane(&folder, &up, &[args, form].concat());
            assert_eq!(answer.code, 0, "{args:?}: {}", answer.err);
            assert!(!steers(&answer.out), "{args:?}: {:?}", answer.out);
        }
    }
    let more = with_plane(&folder, &up, &[&set[..], &["--reason", CANARY]].concat());
    assert_eq!(more.code, 3, "{}", more.out);
    assert!(!steers(&more.err), "{:?}", more.err);
}

#[test]
fn no_secret_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let secret = "canary-hunter2-0123456789";
    let seal_key = "5ea1".repeat(16);
    let redis = RedisServer::start_with(&["--requirepass", secret]);
    let url = redis
        .url()
        .replace("redis://", &format!("redis://:{secret}@"));
    for args in [
        &["config"][..],
        &["config", "--json"],
        &["stats"],
        &["stats", "--json"],
        &["keys"],
    ] {
        let mut command = larder(folder.path());
        command
            .args(args)
            .env("REDIS_URL", &url)
            .env("LARDER_KEY_SECRET", secret)
            .env("LARDER_SEAL_KEYS", &seal_key)
            .env("RUST_LOG", "trace");
        let answer: Answer = command.output().unwrap().into();
        assert_eq!(answer.code, 0, "{}", answer.err);
        assert!(
            !answer.out.contains("hunter2") && !answer.err.contains("hunter2"),
            "{args:?}"
        );
        assert!(!answer.out.contains("5ea1") && !answer.err.contains("5ea1"));
    }
    let wrong = url.replace(secret, "wrong-hunter2-password");
    let answer = run(folder.path(), &["stats", "--store", &wrong]);
    assert_eq!(answer.code, 3);
    assert!(!answer.err.contains("hunter2"), "{}", answer.err);
}

#[test]
fn a_password_on_the_command_line_is_warned_of_and_one_for_the_control_plane_refused() {
    let folder = tempfile::tempdir().unwrap();
    let answer = run(
        folder.path(),
        &["config", "--store", "redis://:hunter2@127.0.0.1:9"],
    );
    assert!(
        answer.err.contains("set REDIS_URL instead"),
        "{}",
        answer.err
    );
    assert!(!answer.err.contains("hunter2") && !answer.out.contains("hunter2"));
    for args in [&["policy", "list"][..], &["config"]] {
        let mut command = larder(folder.path());
        command
            .args(args)
            .env("CONTROL_PLANE_URL", "http://user:hunter2@127.0.0.1:9");
        let answer: Answer = command.output().unwrap().into();
        assert_eq!(answer.code, 3);
        assert!(answer.err.contains("CONTROL_PLANE_URL"), "{}", answer.err);
        assert!(
            !answer.err.contains("hunter2") && !answer.out.contains("hunter2"),
            "{args:?}"
        );
    }
}

#[test]
fn a_crash_writes_no_memory_to_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(&folder, |_| ());
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", up.pid())).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    let numbers: Vec<&str> = core.split_whitespace().skip(4).take(2).collect();
    assert_eq!(numbers, ["0", "0"], "{core}");
}
