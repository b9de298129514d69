//! `larder up` ends in order: the control plane hears of the last requests.

use std::io::Read as _;
use std::process::Stdio;
use std::time::Duration;

use crate::running::{Up, request, until};

#[test]
fn the_control_plane_takes_the_last_that_was_measured() {
    let folder = tempfile::tempdir().unwrap();
    let mut up = Up::start(&folder, |command| {
        command
            .env("SLOW_QUERY_MS", "0")
            .env("RUST_LOG", "larder_client=debug")
            .stderr(Stdio::piped());
    });
    up.get("/products");
    until("it follows its policies", Duration::from_secs(20), || {
        let (status, instances) = request(up.control_port, "GET", "/api/instances", None);
        assert_eq!(status, 200, "{instances}");
        let instances: serde_json::Value = serde_json::from_str(&instances).unwrap();
        instances["instances"][0]["state"] == "current"
    });
    let mut log = up.take_log();
    assert!(up.interrupt());
    let mut said = String::new();
    log.read_to_string(&mut said).unwrap();
    assert!(said.contains("policies in force"), "{said}");
    assert!(!said.contains("waits for the control plane"), "{said}");
}
