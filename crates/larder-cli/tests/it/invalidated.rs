//! `larder invalidate` over the control plane, as a user runs it: it says what was done where, and what is pending.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use larder_testing::redis::RedisServer;
use serde_json::Value;

use crate::running::{Answer, Up, larder, run, until};
use crate::shown_safely::{CANARY, steers};

fn at(folder: &tempfile::TempDir, up: &Up, args: &[&str]) -> Answer {
    let mut command = larder(folder.path());
    let port = up.control_port.to_string();
    command.args(args).env("CONTROL_PORT", port);
    command.output().unwrap().into()
}

#[test]
fn on_the_first_command_an_endpoint_is_invalidated_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(&folder, |command| {
        command.env("SLOW_QUERY_MS", "1");
    });
    let larder = |args: &[&str]| at(&folder, &up, &[&["invalidate"], args].concat());
    until("it is known", WITHIN, || {
        larder(&["service", "product-service", "--dry-run", "--json"])
            .out
            .contains("\"known\": 1")
    });
    for args in [
        &["endpoint", "product-service", "/products"][..],
        &["key", "cache:product-service:/products"],
        &["pattern", "cache:product-service:/prod*"],
        &["service", "product-service"],
    ] {
        up.is_cached("/products");
        assert!(up.is_cached("/products"));
        let tried = larder(&[args, &["--dry-run"]].concat());
        assert_eq!(tried.code, 0, "{}", tried.err);
        assert!(
            tried.out.contains("1 entry in ") && tried.out.contains("would be removed"),
            "{}",
            tried.out
        );
        assert!(up.is_cached("/products"), "{args:?}: nothing was changed");
        let done = larder(&[args, &["--wait", "20", "--reason", "wrong prices"]].concat());
        assert_eq!(done.code, 0, "{}", done.err);
        assert!(
            done.out.starts_with("done: ")
                && done
                    .out
                    .contains("the one instance that is known has done it"),
            "{}",
            done.out
        );
        assert!(!up.is_cached("/products"), "{args:?}: fresh");
    }
    let id = [
        "tag",
        "product-service",
        "product:17",
        "--id",
        "a-name",
        "--wait",
        "20",
        "--json",
    ];
    let done: Value = serde_json::from_str(&larder(&id).out).unwrap();
    assert_eq!(
        (&done["id"], &done["state"]),
        (&"a-name".into(), &"done".into())
    );
    let status = larder(&["status", "a-name"]);
    assert_eq!(status.code, 0, "{}", status.err);
    assert_eq!(larder(&["status", "another"]).code, 1);
    let list = larder(&["list", "product-service"]);
    assert!(
        list.out.contains("wrong prices") && list.out.contains("product:17"),
        "{}",
        list.out
    );
    assert_eq!(list.out.lines().count(), 6, "{}", list.out);
}

#[test]
fn what_is_no_target_is_wrong_usage_and_a_plane_that_is_away_is_said() {
    let folder = tempfile::tempdir().unwrap();
    for args in [
        &["invalidate"][..],
        &["invalidate", "key", "products"],
        &["invalidate", "pattern", "cache:*"],
        &["invalidate", "tag", "svc", "a b"],
        &["invalidate", "endpoint", "svc"],
        &["invalidate", "service", "a b"],
        &["invalidate", "service", CANARY],
        &["invalidate", "service", "svc", "--wait", "31"],
        &["invalidate", "--service", "svc", "service", "svc"],
    ] {
        let wrong = run(folder.path(), args);
        assert_eq!(wrong.code, 2, "{args:?} {} {}", wrong.out, wrong.err);
        assert!(!steers(&wrong.err), "{}", wrong.err);
    }
    let mut away = larder(folder.path());
    away.args(["invalidate", "service", "svc"])
        .env("CONTROL_PLANE_URL", "http://127.0.0.1:9");
    let away: Answer = away.output().unwrap().into();
    assert_eq!(away.code, 3);
    assert!(away.err.contains("larder control"), "{}", away.err);
}

/// `larder control`; killed when it is dropped.
struct Control(Child, u16);

impl Control {
    fn start(folder: &Path, settings: &[(&str, &str)]) -> Self {
        let mut command = larder(folder);
        command.args(["control", "--control-port", "0"]);
        command.envs(settings.iter().copied());
        let command = command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next().expect("it says where it listens").unwrap();
        let (_, port) = line.rsplit_once(':').unwrap();
        // What else it prints is read away.
        std::thread::spawn(move || lines.for_each(drop));
        Self(child, port.trim().parse().unwrap())
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_control_plane_on_its_own_has_the_store_that_its_settings_name() {
    let redis = RedisServer::start();
    let url = redis.url();
    for settings in [
        &[("REDIS_URL", url.as_str())][..],
        &[("LARDER_DIR", "state")],
        &[],
    ] {
        let folder = tempfile::tempdir().unwrap();
        let control = Control::start(folder.path(), settings);
        let larder = |args: &[&str]| -> Answer {
            let mut command = larder(folder.path());
            command.envs(settings.iter().copied());
            command.env("CONTROL_PORT", control.1.to_string());
            command.args(args).output().unwrap().into()
        };
        assert_eq!(larder(&["set", "cache:svc:/a", "1"]).code, 0);
        let all = &["invalidate", "service", "svc", "--wait", "20"][..];
        let would = larder(&[all, &["--dry-run"]].concat());
        if settings.is_empty() {
            assert!(would.out.contains("no store of its own"), "{}", would.out);
            let pending = larder(&["invalidate", "service", "svc", "--wait", "0"]);
            assert_eq!(pending.code, 3, "{}", pending.out);
            assert!(pending.err.contains("invalidate status"), "{}", pending.err);
            continue;
        }
        assert!(would.out.contains("would: 1 entry in"), "{}", would.out);
        let done = larder(all);
        assert_eq!(done.code, 0, "{}", done.err);
        assert_eq!(larder(&["get", "cache:svc:/a"]).code, 1, "it is gone");
    }
}

const WITHIN: std::time::Duration = std::time::Duration::from_secs(20);
