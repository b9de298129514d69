//! Which version each running service has is seen, and nothing that an instance says steers a terminal.

use std::time::Duration;

use serde_json::{Value, json};

use crate::running::{Answer, Up, larder, request, until};
use crate::shown_safely::{CANARY, steers};

const WITHIN: Duration = Duration::from_secs(10);

fn at(folder: &tempfile::TempDir, up: &Up, args: &[&str]) -> Answer {
    let mut command = larder(folder.path());
    let port = up.control_port.to_string();
    command.args(args).env("CONTROL_PORT", port);
    command.output().unwrap().into()
}

fn instances(folder: &tempfile::TempDir, up: &Up) -> Vec<Value> {
    let answer = at(folder, up, &["instances", "product-service", "--json"]);
    assert_eq!(answer.code, 0, "{}", answer.err);
    serde_json::from_str(&answer.out).unwrap()
}

#[test]
fn a_running_service_is_shown_with_the_version_that_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(&folder, |_| ());
    let has = |version: u64| {
        let all = instances(&folder, &up);
        let is_current = |one: &Value| one["state"] == "current" && one["version"] == version;
        all.len() == 1 && is_current(&all[0]) && all[0]["via"] == "stream"
    };
    until("the first policy", WITHIN, || has(1));
    let set = [
        "policy",
        "set",
        "product-service",
        "/products",
        "--ttl",
        "60",
    ];
    assert_eq!(at(&folder, &up, &set).code, 0);
    until("the next", WITHIN, || has(2));
    let table = at(&folder, &up, &["instances"]).out;
    let lines: Vec<&str> = table.lines().collect();
    assert!(
        lines.len() == 2 && lines[0].trim_start().starts_with("SERVICE"),
        "{table}"
    );
    for word in ["product-service", "current", " 2 ", "stream", "ago"] {
        assert!(lines[1].contains(word), "{word}: {table}");
    }
    assert!(
        at(&folder, &up, &["instances", "other"])
            .out
            .lines()
            .count()
            <= 1
    );
}

#[test]
fn what_an_instance_says_steers_no_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(&folder, |_| ());
    let report = json!({"service_name": "svc", "instance": "a", "via": "poll",
        "rejected": {"tag": "db-1", "reason": CANARY}});
    let (status, body) = request(
        up.control_port,
        "POST",
        "/api/instances",
        Some(&report.to_string()),
    );
    assert_eq!(status, 200, "{body}");
    for args in [&["instances"][..], &["instances", "--json"]] {
        let shown = at(&folder, &up, args).out;
        assert!(shown.contains("db-1") && !steers(&shown), "{shown:?}");
    }
}
