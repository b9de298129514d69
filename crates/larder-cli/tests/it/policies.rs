//! The control plane steers a running service, and is not needed for it to run.

use std::time::Duration;

use crate::running::{Answer, Up, larder, run, until};

const WITHIN: Duration = Duration::from_secs(5);

fn policy(folder: &tempfile::TempDir, up: &Up, args: &[&str]) -> Answer {
    let mut command = larder(folder.path());
    let port = up.control_port.to_string();
    command.arg("policy").args(args).env("CONTROL_PORT", port);
    command.output().unwrap().into()
}

/// What `larder ttl` says, in seconds.
fn ttl(folder: &tempfile::TempDir) -> Option<f64> {
    let answer = run(
        folder.path(),
        &["ttl", "cache:product-service:/products", "--json"],
    );
    let answer: serde_json::Value = serde_json::from_str(&answer.out).ok()?;
    answer["ttl_seconds"].as_f64()
}

#[test]
fn a_new_ttl_and_off_are_obeyed_within_five_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(&folder, |command| {
        command.env("SLOW_QUERY_MS", "0");
    });
    let mut first = None;
    until("it is cached", WITHIN, || {
        up.get("/products");
        first = ttl(&folder);
        first.is_some()
    });
    assert!(first.unwrap() > 200.0, "300 seconds at first");

    let set = policy(
        &folder,
        &up,
        &["set", "product-service", "/products", "--ttl", "60"],
    );
    assert_eq!(set.code, 0, "{}", set.err);
    until("the next entry lives 60 seconds", WITHIN, || {
        run(folder.path(), &["del", "cache:product-service:/products"]);
        up.get("/products");
        ttl(&folder).is_some_and(|ttl| (50.0..=60.0).contains(&ttl))
    });

    let set = policy(
        &folder,
        &up,
        &["set", "product-service", "/products", "--mode", "off"],
    );
    assert_eq!(set.code, 0, "{}", set.err);
    until("answers are not cached", WITHIN, || {
        !up.is_cached("/products")
    });
    run(folder.path(), &["del", "cache:product-service:/products"]);
    up.get("/products");
    assert_eq!(ttl(&folder), None, "nothing is stored");

    let set = policy(
        &folder,
        &up,
        &["set", "product-service", "/products", "--mode", "on"],
    );
    assert_eq!(set.code, 0, "{}", set.err);
    until("answers are cached again", WITHIN, || {
        up.is_cached("/products")
    });
    let listed = policy(&folder, &up, &["list", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed.out).unwrap();
    assert_eq!(
        listed[0]["policy"]["ttl_seconds"], 60,
        "the other fields stayed: {listed}"
    );
}

#[test]
fn a_policy_is_removed_and_one_that_is_not_there_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(&folder, |_| ());
    assert_eq!(
        policy(&folder, &up, &["rm", "product-service", "/products"]).code,
        0
    );
    assert_eq!(
        policy(&folder, &up, &["rm", "product-service", "/products"]).code,
        1
    );
    let got = policy(
        &folder,
        &up,
        &["get", "product-service", "/products", "--json"],
    );
    let got: serde_json::Value = serde_json::from_str(&got.out).unwrap();
    assert_eq!(
        (&got["source"], &got["cache_enabled"]),
        (&"default".into(), &true.into())
    );
}

#[test]
fn what_a_policy_can_not_be_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(&folder, |_| ());
    for (args, words) in [
        (
            &["set", "product-service", "/products", "--ttl", "-5"],
            "31536000",
        ),
        (
            &["set", "product-service", "/products", "--ttl", "nan"],
            "ttl",
        ),
        (
            &["set", "product-service", "/products", "--jitter", "7"],
            "0 to 1",
        ),
    ] {
        let answer = policy(&folder, &up, args);
        assert!(answer.code != 0, "{args:?}");
        assert!(answer.err.contains(words), "{args:?}: {}", answer.err);
    }
}

#[test]
fn without_a_control_plane_the_next_step_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = larder(folder.path());
    command
        .args(["policy", "list"])
        .env("CONTROL_PLANE_URL", "http://127.0.0.1:9");
    let answer: Answer = command.output().unwrap().into();
    assert_eq!(answer.code, 3);
    assert!(answer.err.contains("larder up"), "{}", answer.err);
}

/// The policy as it was set, out of what `larder policy list` says.
fn listed(folder: &tempfile::TempDir, up: &Up, endpoint: &str) -> serde_json::Value {
    let list = policy(folder, up, &["list", "svc", "--json"]);
    let list: serde_json::Value = serde_json::from_str(&list.out).unwrap();
    let policies = list.as_array().unwrap();
    let found: Vec<_> = policies
        .iter()
        .filter(|one| one["endpoint"] == endpoint)
        .collect();
    assert_eq!(found.len(), 1, "{list}");
    found[0]["policy"].clone()
}

#[test]
fn a_policy_is_the_same_however_its_parameters_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(&folder, |_| ());
    policy(&folder, &up, &["set", "svc", "/p/{id}", "--ttl", "60"]);
    policy(&folder, &up, &["set", "svc", "/p/:name", "--mode", "off"]);
    let policy = listed(&folder, &up, "/p/{name}");
    assert_eq!(
        (&policy["ttl_seconds"], &policy["mode"]),
        (&60.into(), &"off".into())
    );
}

#[test]
fn what_several_set_at_once_is_all_set() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(&folder, |_| ());
    let port = up.control_port.to_string();
    for round in 0..5 {
        let endpoint = format!("/at-once/{round}");
        let changes = [
            ["--ttl", "60"],
            ["--jitter", "0.5"],
            ["--negative-ttl", "7"],
            ["--max-value-bytes", "9"],
        ];
        let commands = changes.map(|change| {
            let mut command = larder(folder.path());
            command
                .args(["policy", "set", "svc", &endpoint])
                .args(change)
                .env("CONTROL_PORT", &port)
                .stdout(std::process::Stdio::null());
            command.spawn().unwrap()
        });
        for mut command in commands {
            assert!(command.wait().unwrap().success());
        }
        let policy = listed(&folder, &up, &endpoint);
        assert_eq!(policy.as_object().unwrap().len(), 4, "{policy}");
    }
}

#[test]
fn an_encoded_byte_of_a_path_stays_as_it_is_in_keys() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(&folder, |_| ());
    policy(&folder, &up, &["set", "svc", "/café/a%20b", "--ttl", "60"]);
    let policy = listed(&folder, &up, "/caf%C3%A9/a%20b");
    assert_eq!(policy["ttl_seconds"], 60);
}

#[test]
fn plain_http_needs_no_certificate_authorities() {
    let without = |command: &mut std::process::Command| {
        command
            .env("SSL_CERT_FILE", "/none")
            .env("SSL_CERT_DIR", "/none");
    };
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(&folder, without);
    let mut list = larder(folder.path());
    list.args(["policy", "list"])
        .env("CONTROL_PORT", up.control_port.to_string());
    without(&mut list);
    let answer: Answer = list.output().unwrap().into();
    assert_eq!(answer.code, 0, "{}", answer.err);
    let mut naive = larder(folder.path());
    naive
        .args(["policy", "list"])
        .env("CONTROL_PLANE_URL", "https://127.0.0.1:9");
    without(&mut naive);
    let answer: Answer = naive.output().unwrap().into();
    assert!(answer.err.contains("ca-certificates"), "{}", answer.err);
}
