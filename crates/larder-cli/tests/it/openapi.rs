//! The API answers as its document says: schemathesis makes requests of it, right and wrong ones, with an admin's key.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::running::{Up, larder, run};

/// What has no end, and what revokes the key in use: it takes ids from the answers that it gets.
const APART: &str = "^/api/(stream|events|api-keys/)";

/// Each operation for itself.
const EACH: &str = "examples,coverage,fuzzing";

#[test]
fn the_api_is_as_its_document_says() {
    let folder = tempfile::tempdir().unwrap();
    let words = "key create --role admin --all-services --name schemathesis --json";
    let made = run(folder.path(), &words.split(' ').collect::<Vec<_>>());
    assert_eq!(made.code, 0, "{}", made.err);
    let made: Value = serde_json::from_str(&made.out).unwrap();
    let key = made["secret"].as_str().unwrap();
    let up = Up::start(&folder, |command| {
        command.env("LARDER_CONTROL_KEY", key);
    });
    up.get("/products");
    let all_but_those = ["--exclude-path-regex", APART];
    check(&up, key, EACH, &all_but_those);
    let said = check(&up, key, "stateful", &all_but_those);
    assert!(
        !said.contains(" 0 covered /"),
        "no request followed from another: {said}"
    );
    let url = format!("http://127.0.0.1:{}", up.control_port);
    let mut look = larder(folder.path());
    look.args(["instances", "--json"])
        .env("CONTROL_PLANE_URL", url)
        .env("LARDER_CONTROL_KEY", key);
    let looked = look.output().unwrap();
    assert!(looked.status.success(), "the key was good to the end");
    check(&up, key, EACH, &["--include-path-regex", "^/api/api-keys/"]);
}

fn check(up: &Up, key: &str, phases: &str, which: &[&str]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let settings = root.join("tests/openapi/schemathesis.toml");
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new("python3")
        .args(["-m", "schemathesis.cli", "--config-file"])
        .arg(settings)
        .arg("run")
        .arg(format!("http://127.0.0.1:{}/openapi.json", up.control_port))
        .args(["--checks", "all", "--phases", phases])
        .args(["--max-examples", "15", "--generation-deterministic"])
        .args(["--request-timeout", "20", "--no-color"])
        .args(which)
        .args(["--header", &format!("Authorization: Bearer {key}")])
        .env("PYTHONPATH", root.join("../../target/schemathesis"))
        // Where it keeps notes.
        .current_dir(folder.path())
        .output()
        .expect("scripts/test installs python3");
    let said = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said} {error}");
    assert!(said.contains(" passed"), "{said}");
    said.into_owned()
}
