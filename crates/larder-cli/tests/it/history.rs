//! Policies as a file, what was before and back to it, overrides, and the audit trail: by the binary.

use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::explained::with_plane;
use crate::running::{Answer, Up, larder};

fn plane() -> (TempDir, Up) {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(&folder, |_| ());
    (folder, up)
}

fn done(folder: &TempDir, up: &Up, args: &[&str]) -> String {
    let answer = with_plane(folder, up, args);
    assert_eq!(answer.code, 0, "{args:?}: {}", answer.err);
    answer.out
}

fn json_of(folder: &TempDir, up: &Up, args: &[&str]) -> Value {
    let args = [args, &["--json"]].concat();
    serde_json::from_str(&done(folder, up, &args)).unwrap()
}

fn write(folder: &TempDir, file: &Value) {
    std::fs::write(folder.path().join("policies.json"), file.to_string()).unwrap();
}

#[test]
fn policies_are_exported_changed_in_the_file_compared_and_applied() {
    let (folder, up) = plane();
    done(&folder, &up, &["policy", "set", "svc", "/a", "--ttl", "60"]);
    done(
        &folder,
        &up,
        &["policy", "set", "svc", "POST /b", "--mode", "off"],
    );
    let exported = done(&folder, &up, &["policy", "export"]);
    std::fs::write(folder.path().join("policies.json"), &exported).unwrap();
    let file: Value = serde_json::from_str(&exported).unwrap();
    let services: Vec<_> = file["services"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["service_name"])
        .collect();
    assert_eq!(services, ["product-service", "svc"]);
    let same = done(&folder, &up, &["policy", "apply", "policies.json"]);
    assert_eq!(
        same,
        "product-service: nothing to change\nsvc: nothing to change\n"
    );

    write(
        &folder,
        &json!({"larder_policies": 1, "services": [{"service_name": "svc", "policies": [
        {"endpoint": "/a", "policy": {"ttl_seconds": 5}}, {"endpoint": "/new/{id}", "policy": {"mode": "on"}}]}]}),
    );
    let changes = "~ /a         ttl_seconds  60 → 5\n- POST /b    mode         off\n+ /new/{id}  mode         on\n";
    let tried = done(
        &folder,
        &up,
        &["policy", "apply", "policies.json", "--dry-run"],
    );
    assert_eq!(tried, format!("svc: would change 3\n{changes}"));
    let json = json_of(
        &folder,
        &up,
        &["policy", "apply", "policies.json", "--dry-run"],
    );
    assert_eq!(
        (
            &json[0]["dry_run"],
            json[0]["changes"].as_array().unwrap().len()
        ),
        (&true.into(), 3)
    );
    assert_eq!(
        done(&folder, &up, &["policy", "export"]),
        exported,
        "it was only tried"
    );

    let args = [
        "policy",
        "apply",
        "policies.json",
        "--reason",
        "commit 5f0c",
        "--author",
        "ci",
    ];
    assert_eq!(
        done(&folder, &up, &args),
        format!("svc: changed 3, revision 3\n{changes}")
    );
    let names = json_of(&folder, &up, &["policy", "list", "svc"]);
    let names: Vec<_> = names
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["endpoint"])
        .collect();
    assert_eq!(names, ["/a", "/new/{id}"]);
    let product = json_of(&folder, &up, &["policy", "list", "product-service"]);
    assert_eq!(
        product.as_array().unwrap().len(),
        1,
        "what is not in the file stays"
    );
    let history = done(&folder, &up, &["policy", "history", "svc"]);
    let newest = history.lines().nth(1).unwrap();
    for words in ["3", "policies replaced", "ci (unverified)", "commit 5f0c"] {
        assert!(newest.contains(words), "{history}");
    }
}

#[test]
fn a_file_that_can_t_be_applied_changes_nothing() {
    let (folder, up) = plane();
    done(&folder, &up, &["policy", "set", "svc", "/a", "--ttl", "60"]);
    let good = json!({"service_name": "another", "policies": [{"endpoint": "/a", "policy": {}}]});
    let bad = json!({"service_name": "svc", "policies": [{"endpoint": "/a", "policy": {"ttl_seconds": -1}}]});
    let twice = json!({"service_name": "svc", "policies": [{"endpoint": "/p/{id}", "policy": {}}, {"endpoint": "/p/:name", "policy": {}}]});
    for (file, words) in [
        (
            json!({"larder_policies": 1, "services": [good, bad]}),
            "svc: the policy of /a: ttl_seconds is -1",
        ),
        (
            json!({"larder_policies": 1, "services": [good, twice]}),
            "two policies",
        ),
        (
            json!({"larder_policies": 1, "services": [good, good]}),
            "another twice",
        ),
        (json!({"larder_policies": 2, "services": []}), "form 2"),
        (
            json!({"larder_policies": 1, "services": [], "more": 1}),
            "more",
        ),
        (json!({"services": []}), "larder policy export"),
        (
            json!({"larder_policies": 1, "services": [{"service_name": "s/c", "policies": []}]}),
            "service name",
        ),
        (json!("\u{1b}[31m"), "larder policy export"),
    ] {
        write(&folder, &file);
        let answer = with_plane(&folder, &up, &["policy", "apply", "policies.json"]);
        assert_eq!(answer.code, 3, "{file}: {}", answer.out);
        assert!(
            answer.err.contains(words) && !answer.err.contains('\u{1b}'),
            "{words}: {}",
            answer.err
        );
    }
    let missing = with_plane(&folder, &up, &["policy", "apply", "nothing.json"]);
    assert!(
        missing.code == 3 && missing.err.contains("nothing.json"),
        "{}",
        missing.err
    );
    let another = json_of(&folder, &up, &["policy", "list", "another"]);
    assert_eq!(another, json!([]), "none of it was done");
    let history = json_of(&folder, &up, &["policy", "history", "svc"]);
    assert_eq!(history["revisions"].as_array().unwrap().len(), 1);
}

#[test]
fn history_is_shown_compared_and_rolled_back() {
    let (folder, up) = plane();
    let none = with_plane(&folder, &up, &["policy", "history", "svc"]);
    assert_eq!(none.code, 1, "{}", none.err);
    done(
        &folder,
        &up,
        &[
            "policy",
            "set",
            "svc",
            "/a",
            "--ttl",
            "60",
            "--author",
            "alice",
            "--reason",
            "it's slow & large",
        ],
    );
    done(
        &folder,
        &up,
        &["policy", "set", "svc", "/a", "--mode", "off"],
    );
    done(
        &folder,
        &up,
        &["policy", "rm", "svc", "/a", "--reason", "no more"],
    );
    let history = json_of(&folder, &up, &["policy", "history", "svc", "--limit", "2"]);
    assert_eq!(history["revisions"][0]["reason"], "no more");
    assert_eq!(history["next_before"], 2);
    let history = done(&folder, &up, &["policy", "history", "svc"]);
    assert!(
        history.contains("it's slow & large") && history.contains("alice (unverified)"),
        "{history}"
    );

    assert_eq!(
        done(&folder, &up, &["policy", "diff", "svc"]),
        "svc, revision 2 → 3\n- /a  mode         off\n-     ttl_seconds  60\n"
    );
    assert_eq!(
        done(&folder, &up, &["policy", "diff", "svc", "2"]),
        "svc, revision 1 → 2\n~ /a  mode  (unset) → off\n"
    );
    assert_eq!(
        done(&folder, &up, &["policy", "diff", "svc", "0", "1"]),
        "svc, revision 0 → 1\n+ /a  ttl_seconds  60\n"
    );
    let far = with_plane(&folder, &up, &["policy", "diff", "svc", "99"]);
    assert!(far.code == 3 && far.err.contains("99"), "{}", far.err);

    let tried = done(
        &folder,
        &up,
        &["policy", "rollback", "svc", "1", "--dry-run"],
    );
    assert_eq!(tried, "svc: would change 1\n+ /a  ttl_seconds  60\n");
    let rolled = done(
        &folder,
        &up,
        &["policy", "rollback", "svc", "1", "--reason", "back"],
    );
    assert_eq!(
        rolled,
        "svc: changed 1, revision 4\n+ /a  ttl_seconds  60\n"
    );
    let again = done(&folder, &up, &["policy", "rollback", "svc", "1"]);
    assert_eq!(again, "svc: nothing to change\n");
}

/// A command on a terminal of its own.
fn on_a_terminal(
    folder: &TempDir,
    up: &Up,
    command: &str,
    set: impl FnOnce(&mut Command),
) -> Answer {
    let mut script = Command::new("script");
    script
        .args([
            "-qec",
            &format!("{} {command}", env!("CARGO_BIN_EXE_larder")),
            "/dev/null",
        ])
        .current_dir(folder.path())
        .env("CONTROL_PORT", up.control_port.to_string())
        .env_remove("NO_COLOR")
        .stdin(Stdio::null());
    set(&mut script);
    script.output().unwrap().into()
}

#[test]
fn colours_are_for_terminals_alone() {
    let (folder, up) = plane();
    done(&folder, &up, &["policy", "set", "svc", "/a", "--ttl", "60"]);
    let green = "\u{1b}[32m+ /a  ttl_seconds  60\u{1b}[0m";
    let seen = on_a_terminal(&folder, &up, "policy diff svc", |_| ());
    assert!(seen.out.contains(green), "{:?}", seen.out);
    let plain = on_a_terminal(&folder, &up, "policy diff svc", |command| {
        command.env("NO_COLOR", "1");
    });
    assert!(
        plain.out.contains("+ /a  ttl_seconds  60") && !plain.out.contains('\u{1b}'),
        "{:?}",
        plain.out
    );
    assert!(!done(&folder, &up, &["policy", "diff", "svc"]).contains('\u{1b}'));
}

#[test]
fn an_override_is_added_listed_replaced_and_ended() {
    let (folder, up) = plane();
    let add = [
        "override",
        "add",
        "product-service",
        "/products",
        "--for",
        "10m",
        "--mode",
        "off",
    ];
    let why = with_plane(&folder, &up, &add);
    assert!(why.code == 3 && why.err.contains("--reason"), "{}", why.err);
    let add = [&add[..], &["--reason", "wrong prices", "--author", "alice"]].concat();
    let added = done(&folder, &up, &add);
    assert!(
        added.starts_with("product-service GET /products holds until 2"),
        "{added}"
    );
    crate::running::until(
        "the service obeys it",
        std::time::Duration::from_secs(5),
        || !up.is_cached("/products"),
    );
    let config = json_of(
        &folder,
        &up,
        &["policy", "get", "product-service", "/products"],
    );
    assert_eq!(
        (&config["source"], &config["cache_enabled"]),
        (&"override".into(), &false.into())
    );
    let listed = done(&folder, &up, &["override", "list"]);
    for words in ["mode=\"off\"", "alice (unverified)", "wrong prices"] {
        assert!(listed.contains(words), "{words}: {listed}");
    }
    let left = ["  9m ", "  10m 0s "];
    assert!(left.iter().any(|left| listed.contains(left)), "{listed}");
    let second = with_plane(&folder, &up, &add);
    assert!(
        second.code == 3 && second.err.contains("--replace"),
        "{}",
        second.err
    );
    let replaced = json_of(&folder, &up, &[&add[..], &["--replace"]].concat());
    let id = replaced["id"].as_str().unwrap();
    let all = json_of(&folder, &up, &["override", "list", "product-service"]);
    assert_eq!(all.as_array().unwrap().len(), 1);
    let ended = done(
        &folder,
        &up,
        &["override", "end", id, "--reason", "prices are right"],
    );
    assert_eq!(ended, "ended: product-service GET /products\n");
    for gone in [id, "no-such-name", "../policies"] {
        assert_eq!(
            with_plane(&folder, &up, &["override", "end", gone]).code,
            1,
            "{gone}"
        );
    }
    let config = json_of(
        &folder,
        &up,
        &["policy", "get", "product-service", "/products"],
    );
    assert_eq!(config["source"], "policy");
    let without = with_plane(
        &folder,
        &up,
        &[
            "override", "add", "svc", "/a", "--mode", "off", "--reason", "x",
        ],
    );
    assert!(
        without.code == 2 && without.err.contains("--for"),
        "{}",
        without.err
    );
    let wrong = with_plane(
        &folder,
        &up,
        &[
            "override", "add", "svc", "/a", "--mode", "off", "--reason", "x", "--for", "soon",
        ],
    );
    assert!(
        wrong.code == 2 && wrong.err.contains("10m"),
        "{}",
        wrong.err
    );
    let long = with_plane(
        &folder,
        &up,
        &[
            "override", "add", "svc", "/a", "--mode", "off", "--reason", "x", "--for", "31d",
        ],
    );
    assert!(
        long.code == 3 && long.err.contains("30 days"),
        "{}",
        long.err
    );
}

fn verify(folder: &TempDir, args: &[&str]) -> Answer {
    let mut command = larder(folder.path());
    command.args(["audit", "verify"]).args(args);
    command.output().unwrap().into()
}

#[test]
fn the_audit_trail_is_listed_and_looked_over() {
    let (folder, up) = plane();
    done(
        &folder,
        &up,
        &[
            "policy", "set", "svc", "/a", "--ttl", "60", "--author", "alice", "--reason", "slow",
        ],
    );
    let refused = with_plane(
        &folder,
        &up,
        &["policy", "set", "svc", "/a", "--ttl", "99999999"],
    );
    assert_eq!(refused.code, 3);
    let listed = done(&folder, &up, &["audit", "list"]);
    for words in [
        "policy set",
        "svc /a",
        "alice (unverified)",
        "127.0.0.1",
        "refused",
        "PUT /api/policies/svc/a",
    ] {
        assert!(listed.contains(words), "{words}: {listed}");
    }
    let of_svc = json_of(&folder, &up, &["audit", "list", "svc"]);
    assert_eq!(of_svc.as_array().unwrap().len(), 1, "{of_svc}");

    let head = done(&folder, &up, &["audit", "head"]);
    let head = head.trim();
    let whole = verify(&folder, &["--head", head]);
    assert_eq!(whole.code, 0, "{}{}", whole.out, whole.err);
    assert!(whole.out.contains(head), "{}", whole.out);
    let forged = head.replace(|one: char| one.is_ascii_alphabetic(), "0");
    let other = verify(&folder, &["--head", &forged]);
    assert!(
        other.code == 4 && other.out.contains("published"),
        "{}{}",
        other.out,
        other.err
    );
    let (_, mac) = head.split_once(':').unwrap();
    let cut = verify(&folder, &["--head", &format!("99:{mac}"), "--json"]);
    let json: Value = serde_json::from_str(&cut.out).unwrap();
    assert_eq!((cut.code, &json["whole"]), (4, &false.into()), "{json}");
    for bad in ["12", "x:5f", "12:5f0c"] {
        let answer = verify(&folder, &["--head", bad]);
        assert!(
            answer.code == 2 && answer.err.contains("larder audit head"),
            "{}",
            answer.err
        );
    }

    let key = folder.path().join(".larder/audit.key");
    std::fs::write(&key, "0".repeat(64)).unwrap();
    let other = verify(&folder, &[]);
    assert!(
        other.code == 4 && other.out.contains("which is not the one at hand"),
        "{}{}",
        other.out,
        other.err
    );
    std::fs::remove_file(&key).unwrap();
    let none = verify(&folder, &[]);
    assert!(
        none.code == 3 && none.err.contains("audit.key"),
        "{}",
        none.err
    );
}
