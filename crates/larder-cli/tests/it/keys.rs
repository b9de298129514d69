//! API keys on the command line: made before the first start, used by all commands, refused with the next step.

use std::process::Command;

use serde_json::Value;

use crate::running::{Answer, Up, larder, run};

fn key(folder: &tempfile::TempDir, args: &[&str]) -> String {
    let made = run(folder.path(), &[&["key", "create"], args].concat());
    assert_eq!(made.code, 0, "{}", made.err);
    assert!(
        made.err.contains("nothing shows this secret again"),
        "{}",
        made.err
    );
    let secret = made.out.trim().to_owned();
    assert!(secret.starts_with("lrd_") && secret.len() == 85, "{secret}");
    secret
}

/// A command against the control plane of `larder up`, with a key.
fn with(up: &Up, folder: &tempfile::TempDir, key: &str, args: &[&str]) -> Answer {
    let mut command: Command = larder(folder.path());
    command
        .args(args)
        .env("CONTROL_PORT", up.control_port.to_string())
        .env("LARDER_CONTROL_KEY", key);
    command.output().unwrap().into()
}

#[test]
fn with_a_key_everything_goes_on_and_without_one_it_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let admin = key(
        &folder,
        &["--role", "admin", "--all-services", "--name", "root"],
    );
    let read = key(
        &folder,
        &[
            "--role",
            "read",
            "--service",
            "product-service",
            "--name",
            "look",
        ],
    );
    let up = Up::start(&folder, |command| {
        command.env("LARDER_CONTROL_KEY", &admin);
    });

    let without = with(&up, &folder, "", &["policy", "list"]);
    assert_eq!(without.code, 3, "{}", without.out);
    assert!(
        without.err.contains("LARDER_CONTROL_KEY"),
        "{}",
        without.err
    );
    let list = with(&up, &folder, &read, &["policy", "list", "product-service"]);
    assert_eq!(list.code, 0, "{}", list.err);
    assert!(list.out.contains("/products"), "{}", list.out);
    let set = [
        "policy",
        "set",
        "product-service",
        "/products",
        "--ttl",
        "7",
    ];
    let refused = with(&up, &folder, &read, &set);
    assert_eq!(refused.code, 3, "{}", refused.out);
    assert!(refused.err.contains("--role"), "{}", refused.err);
    let done = with(&up, &folder, &admin, &set);
    assert_eq!(done.code, 0, "{}", done.err);
    let foreign = with(&up, &folder, &read, &["policy", "list", "other"]);
    assert_eq!(foreign.code, 3, "{}", foreign.out);
    for not_a_key in ["hunter2", "lrd_", "lrd_0\u{e9}"] {
        let said = with(&up, &folder, not_a_key, &["policy", "list"]);
        assert_eq!(said.code, 3);
        assert!(
            said.err.contains("LARDER_CONTROL_KEY") && !said.err.contains("hunter2"),
            "{}",
            said.err
        );
    }

    // Over the API, and in the database: they are the same keys.
    let made = with(
        &up,
        &folder,
        &admin,
        &[
            "--json",
            "key",
            "create",
            "--remote",
            "--role",
            "read",
            "--service",
            "a",
            "--service",
            "b",
            "--for",
            "1h",
            "--name",
            "ci",
        ],
    );
    assert_eq!(made.code, 0, "{}", made.err);
    let made: Value = serde_json::from_str(&made.out).unwrap();
    let id = made["id"].as_str().unwrap();
    let listed = run(folder.path(), &["key", "list"]);
    assert!(
        listed.out.contains(id) && listed.out.contains("a, b"),
        "{}",
        listed.out
    );
    let secret = made["secret"].as_str().unwrap();
    assert!(!listed.out.contains(&secret[22..]), "{}", listed.out);
    let revoked = run(
        folder.path(),
        &["key", "revoke", id, "--reason", "not needed"],
    );
    assert_eq!(revoked.code, 0, "{}", revoked.err);
    let remote = with(&up, &folder, &admin, &["key", "list", "--remote"]);
    assert!(remote.out.contains("revoked"), "{}", remote.out);
    let again = with(&up, &folder, &admin, &["key", "revoke", id, "--remote"]);
    assert_eq!(again.code, 1, "{}", again.out);
    let refused = with(&up, &folder, &read, &["key", "list", "--remote"]);
    assert_eq!(refused.code, 3, "{}", refused.out);
    let trail = with(&up, &folder, &admin, &["audit", "list"]);
    for words in ["key created", "key revoked", "not needed", "(root)"] {
        assert!(trail.out.contains(words), "{words}: {}", trail.out);
    }
    let verified = run(folder.path(), &["audit", "verify"]);
    assert_eq!(verified.code, 0, "{}{}", verified.out, verified.err);
}

#[test]
fn other_machines_are_let_in_by_keys_alone() {
    let folder = tempfile::tempdir().unwrap();
    let refused = run(
        folder.path(),
        &[
            "control",
            "--control-address",
            "0.0.0.0",
            "--control-port",
            "0",
        ],
    );
    assert_eq!(refused.code, 3, "{}", refused.out);
    assert!(refused.err.contains("larder key create"), "{}", refused.err);
}

#[test]
fn a_key_is_not_sent_to_another_machine_in_clear() {
    let folder = tempfile::tempdir().unwrap();
    let admin = key(
        &folder,
        &["--role", "admin", "--all-services", "--name", "root"],
    );
    let mut command = larder(folder.path());
    command
        .args(["policy", "list"])
        .env("CONTROL_PLANE_URL", "http://192.0.2.1:8000")
        .env("LARDER_CONTROL_KEY", &admin);
    let refused: Answer = command.output().unwrap().into();
    assert_eq!(refused.code, 3, "{}", refused.out);
    assert!(refused.err.contains("https:"), "{}", refused.err);
}
