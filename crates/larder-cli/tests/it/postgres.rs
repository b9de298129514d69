//! `larder up`, `control` and `audit verify` over PostgreSQL, as `DATABASE_URL` says.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use larder_testing::postgres::PostgresServer;
use larder_testing::redis::free_port;

use crate::running::{Answer, Up, larder, request, until};

const SOON: Duration = Duration::from_secs(30);
/// Stands for every password: it must be nowhere.
const CANARY: &str = "canary-7c1f";

#[test]
fn the_state_lies_in_postgresql_and_the_password_nowhere() {
    let server = PostgresServer::shared();
    let url = server
        .database()
        .replace("larder@", &format!("larder:{CANARY}@"));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(".env"), format!("DATABASE_URL={url}\n")).unwrap();
    let mut up = Up::start(&folder, |command| {
        command.env("RUST_LOG", "debug").stderr(Stdio::piped());
    });
    let mut log = up.take_log();
    let log = std::thread::spawn(move || {
        let mut text = String::new();
        log.read_to_string(&mut text).unwrap();
        text
    });
    let (status, body) = request(up.control_port, "PUT", "/api/policies/svc/a", Some("{}"));
    assert_eq!(status, 200, "{body}");
    let policies =
        "SELECT string_agg(service || template, ' ' ORDER BY service) FROM larder.policies";
    assert_eq!(server.sql(&url, policies), "product-service/products svc/a");
    assert!(!folder.path().join(".larder/control.db").exists());
    let (status, metrics) = request(up.control_port, "GET", "/metrics", None);
    assert_eq!(status, 200);

    let verified = run_in(folder.path(), &["audit", "verify"]);
    assert_eq!(verified.code, 0, "{}", verified.err);
    assert!(
        verified.out.starts_with("whole: 3 entries"),
        "{}",
        verified.out
    );
    let config = run_in(folder.path(), &["config"]);
    assert!(config.out.contains("DATABASE_URL"), "{}", config.out);
    assert!(up.interrupt(), "it ends in order");
    let log = log.join().unwrap();
    assert!(log.contains("audit trail"), "{log}");
    for text in [&log, &metrics, &verified.out, &config.out, &config.err] {
        assert!(!text.contains(CANARY), "{text}");
    }
}

fn run_in(folder: &Path, args: &[&str]) -> Answer {
    larder(folder).args(args).output().unwrap().into()
}

#[test]
fn what_is_no_postgresql_is_said_with_what_to_write() {
    let folder = tempfile::tempdir().unwrap();
    for (url, words) in [
        ("mysql://u:canary@h/db", "use postgres://"),
        ("sqlite:canary.db", "unset it"),
    ] {
        for command in ["control", "up"] {
            let answer: Answer = larder(folder.path())
                .args([command, "--control-port", "0"])
                .env("DATABASE_URL", url)
                .env("PORT", "0")
                .output()
                .unwrap()
                .into();
            assert_ne!(answer.code, 0);
            assert!(answer.err.contains(words), "{}", answer.err);
            assert!(!answer.err.contains("canary"), "{}", answer.err);
        }
    }
    // A service may have a database of its own kind.
    let config: Answer = larder(folder.path())
        .arg("config")
        .env("DATABASE_URL", "mysql://u:canary@h/db")
        .output()
        .unwrap()
        .into();
    assert_eq!(config.code, 0, "{}", config.err);
    assert!(!config.out.contains("canary"), "{}", config.out);
}

#[test]
fn control_waits_for_a_postgresql_that_is_away_and_ends_when_it_is_told_to() {
    let mut server = PostgresServer::start();
    let url = server.database();
    server.kill();
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut child = larder(folder.path())
        .args(["control", "--control-port", &port.to_string()])
        .env("DATABASE_URL", &url)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let status = |path: &str| request(port, "GET", path, None).0;
    until("it lives", SOON, || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() && status("/healthz") == 200
    });
    assert_eq!(status("/readyz"), 503);
    server.restart();
    until("it is ready", SOON, || status("/readyz") == 200);
    server.kill();
    until("it says that it is not", SOON, || status("/readyz") == 503);
    assert_eq!(status("/api/config/svc"), 200);
    let pid = child.id().to_string();
    let told = Command::new("kill").args(["-TERM", &pid]).status();
    assert!(told.unwrap().success());
    let mut ended = None;
    until("it ends", SOON, || {
        ended = child.try_wait().unwrap();
        ended.is_some()
    });
    assert!(ended.unwrap().success());
}
