//! `larder doctor` warns of what is to be changed, each with the next step, on real servers (SECURITY SR-4).

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use larder::{Guard, Key, NewEntry, Ttl};
use larder_testing::certificates::Authority;
use larder_testing::redis::RedisServer;
use serde_json::Value;

use crate::running::{Answer, larder, run};

/// What a well kept server is started with.
const WELL_KEPT: &str = "--maxmemory 64mb --maxmemory-policy allkeys-lfu --user default off \
    --user larder on >pass ~cache:* ~larder:* -@all +@read +@write +info +hello +auth +ping +select";

/// What the doctor says.
struct Said {
    code: i32,
    report: Value,
}

impl Said {
    fn of(mut command: Command) -> Self {
        let answer: Answer = command.args(["doctor", "--json"]).output().unwrap().into();
        let report = serde_json::from_str(&answer.out);
        Self {
            code: answer.code,
            report: report.unwrap_or_else(|_| panic!("{} {}", answer.out, answer.err)),
        }
    }

    fn of_url(url: &str) -> Self {
        Self::of_url_with(url, &[])
    }

    fn of_url_with(url: &str, variables: &[(&str, &Path)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = larder(folder.path());
        command.env("REDIS_URL", url);
        command.envs(variables.iter().copied());
        Self::of(command)
    }

    /// A check's verdict, what it saw, and what to do.
    fn check(&self, name: &str) -> [&str; 3] {
        let checks = self.report["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["check"] == name);
        let check = check.unwrap_or_else(|| panic!("{name} is not in {}", self.report));
        ["verdict", "what", "next"].map(|field| check[field].as_str().unwrap_or_default())
    }

    #[track_caller]
    fn warns(&self, name: &str, said: &str, next_step: &str) {
        let [verdict, what, next] = self.check(name);
        let is_right = verdict == "warning" && what.contains(said) && next.contains(next_step);
        assert!(is_right, "{name}: {}", self.report);
        assert_eq!(self.code, 4);
    }

    #[track_caller]
    fn is_fine(&self, name: &str) {
        assert_eq!(self.check(name)[0], "ok", "{name}: {}", self.report);
    }
}

/// The same server by an address that is none of loopback.
fn from_afar(url: &str) -> String {
    url.replace("127.0.0.1", "0.0.0.0")
}

#[test]
fn a_server_as_it_comes_is_warned_of() {
    let server = RedisServer::start();
    let near = Said::of_url(&server.url());
    near.warns(
        "rights",
        "the user default may do everything",
        "docs/stores.md",
    );
    near.warns("memory", "maxmemory is 0", "set maxmemory");
    near.is_fine("password");
    near.is_fine("encryption");

    let far = Said::of_url(&from_afar(&server.url()));
    far.warns("password", "without a password", "requirepass");
    far.warns("encryption", "go over the network as they are", "rediss://");
}

#[test]
fn a_password_is_enough_only_where_nobody_gets_in_without() {
    let server = RedisServer::start_with(&["--requirepass", "pass"]);
    let url = server.url().replace("redis://", "redis://:pass@");
    Said::of_url(&from_afar(&url)).is_fine("password");
    // A user with a password, beside a default user without one.
    let server = RedisServer::start_with(&["--user", "admin", "on", ">pass", "~*", "+@all"]);
    let url = server.url().replace("redis://", "redis://admin:pass@");
    let said = Said::of_url(&from_afar(&url));
    said.warns("password", "without a password", "ACL SETUSER default off");
    said.warns(
        "rights",
        "the user admin may do everything",
        "docs/stores.md",
    );
}

#[test]
fn a_limit_of_memory_without_a_policy_for_caches_is_warned_of() {
    for (policy, said) in [
        ("noeviction", "nothing more is stored"),
        ("volatile-ttl", "goes first, used or not"),
    ] {
        let server =
            RedisServer::start_with(&["--maxmemory", "64mb", "--maxmemory-policy", policy]);
        Said::of_url(&server.url()).warns("memory", said, "allkeys-lfu");
    }
}

#[test]
fn what_a_failover_means_is_said_and_a_server_that_hides_its_life_is_warned_of() {
    let server = RedisServer::start();
    let said = Said::of_url(&server.url());
    said.is_fine("failover");
    assert!(said.check("failover")[1].contains("begins cold"));
    let keep = [("LARDER_AFTER_FAILOVER", Path::new("keep"))];
    let said = Said::of_url_with(&server.url(), &keep);
    said.is_fine("failover");
    assert!(said.check("failover")[1].contains("may be back"));
    let rules = "ACL SETUSER app on >pass ~* +@all -info";
    server.cli(&rules.split(' ').collect::<Vec<_>>());
    let url = server.url().replace("redis://", "redis://app:pass@");
    Said::of_url(&url).warns("failover", "which life it is in", "allow INFO");
}

#[test]
fn other_programs_keys_are_warned_of_and_shown_safely() {
    let server = RedisServer::start();
    server.cli(&[
        "MSET",
        "cache:svc:/a",
        "1",
        "session:1",
        "1",
        "\u{1b}[31m:1",
        "1",
    ]);
    let said = Said::of_url(&server.url());
    said.warns(
        "sharing",
        "of 3 keys looked at, 2 are other programs'",
        "a server of its own",
    );
    assert!(said.check("sharing")[1].contains("session:"));
    let folder = tempfile::tempdir().unwrap();
    for args in [&["doctor"][..], &["doctor", "--json"]] {
        let answer = run(folder.path(), &[args, &["--store", &server.url()]].concat());
        assert!(
            !answer.out.contains('\u{1b}') && answer.out.contains("31m:"),
            "{}",
            answer.out
        );
    }
    Said::of_url(&format!("{}/1", server.url())).is_fine("sharing");
}

#[test]
fn a_version_with_known_holes_is_warned_of() {
    let server = RedisServer::start();
    let info = server.cli(&["INFO", "server"]);
    let version = info
        .lines()
        .find_map(|line| line.strip_prefix("redis_version:"));
    let version = version.unwrap().trim();
    let said = Said::of_url(&server.url());
    assert!(
        said.check("version")[1].contains(version),
        "{}",
        said.report
    );
    // Of this line none was mended by its makers; which the machine has depends on its distribution.
    if version.starts_with("7.0.") {
        said.warns(
            "version",
            "CVE-2024-46981, CVE-2025-49844",
            "update to 7.2.11 or newer",
        );
    }
    let valkey = RedisServer::start_valkey(&[]);
    let said = Said::of_url(&valkey.url());
    assert!(
        said.check("version")[1].contains("Valkey"),
        "{}",
        said.report
    );
}

#[test]
fn a_well_kept_valkey_is_not_warned_of() {
    let arguments: Vec<&str> = WELL_KEPT.split_whitespace().collect();
    let valkey = RedisServer::start_valkey(&arguments);
    let url = valkey.url().replace("redis://", "redis://larder:pass@");
    let folder = tempfile::tempdir().unwrap();
    let mut command = larder(folder.path());
    let answer: Answer = command
        .arg("doctor")
        .env("REDIS_URL", &url)
        .output()
        .unwrap()
        .into();
    assert_eq!(answer.code, 0, "{} {}", answer.out, answer.err);
    assert!(answer.out.contains("nothing to warn of"), "{}", answer.out);
    assert!(!answer.out.contains("pass@"), "{}", answer.out);
}

#[test]
fn the_file_of_seal_keys_is_not_for_everybody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    std::fs::write(&path, "5ea1".repeat(16)).unwrap();
    let said = |mode| {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let mut command = larder(folder.path());
        command.env("LARDER_SEAL_KEYS_FILE", "keys");
        Said::of(command)
    };
    said(0o600).is_fine("seal keys file");
    said(0o644).warns("seal keys file", "read by every user", "chmod o-r keys");
}

#[test]
fn tls_is_examined_with_the_files_that_are_named() {
    let authority = Authority::new();
    let own = authority.sign("server", "IP:127.0.0.1,IP:0.0.0.0");
    let ours = authority.sign("client", "DNS:client");
    let ca = authority.certificate();
    let (server, url) = RedisServer::start_tls(&authority, &own, &["--tls-auth-clients", "yes"]);
    let files: [(&str, &Path); 3] = [
        ("REDIS_TLS_CA", &ca),
        ("REDIS_TLS_CERT", &ours.certificate),
        ("REDIS_TLS_KEY", &ours.key),
    ];
    let said = Said::of_url_with(&from_afar(&url), &files);
    said.is_fine("connection");
    said.is_fine("encryption");
    said.is_fine("key file");
    Said::of_url_with(&url, &files[..1]).warns("connection", "REDIS_TLS_CERT", "set REDIS_URL");
    Said::of_url_with(&server.url(), &files[..1]).warns(
        "encryption",
        "nothing is encrypted",
        "rediss://",
    );

    std::fs::set_permissions(&ours.key, std::fs::Permissions::from_mode(0o644)).unwrap();
    Said::of_url_with(&url, &files).warns("key file", "read by every user", "chmod o-r");

    let folder = tempfile::tempdir().unwrap();
    let mut command = larder(folder.path());
    let answer: Answer = command
        .arg("doctor")
        .env("REDIS_URL", &url)
        .env("REDIS_TLS_CA", "/nowhere/ca.crt")
        .output()
        .unwrap()
        .into();
    assert_eq!(answer.code, 3);
    assert!(
        answer.err.contains("REDIS_TLS_CA (from the environment)"),
        "{}",
        answer.err
    );
}

#[test]
fn a_server_that_is_away_is_warned_of() {
    let mut server = RedisServer::start();
    server.kill();
    Said::of_url(&server.url()).warns("connection", "store is away", "start the server");
}

/// Stores more than fits into 4 MiB.
fn fill(dir: &Path) {
    let dir = dir.display().to_string();
    let environment = |name: &str| (name == "LARDER_DIR").then(|| dir.clone());
    let settings = larder::Settings::read(environment, Path::new("/nowhere")).unwrap();
    let store = larder::open_store_within(&settings, Duration::from_secs(60)).unwrap();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().unwrap();
    for index in 0..6_000 {
        let entry = NewEntry {
            key: Key::new("svc", &format!("/{index}")).unwrap(),
            bytes: vec![b'1'; 1_000].into(),
            ttl: Ttl::new(Duration::from_secs(300)).unwrap(),
            guard: Guard::Always,
        };
        let written = runtime.block_on(store.set(entry)).unwrap();
        assert!(written.is_stored(), "{written}");
    }
}

/// The embedded store in this folder, of this size.
fn embedded(folder: &Path, size: &str) -> Command {
    let mut command = larder(folder);
    command.env("LARDER_MAX_BYTES", size);
    command
}

#[test]
fn an_embedded_store_is_examined() {
    let folder = tempfile::tempdir().unwrap();
    let said = Said::of(embedded(folder.path(), "4MiB"));
    for check in ["folder", "room", "disk"] {
        said.is_fine(check);
    }
    assert_eq!(said.code, 0);

    fill(&folder.path().join(".larder"));
    Said::of(embedded(folder.path(), "4MiB")).warns("room", "evicted", "LARDER_MAX_BYTES");

    let store = folder.path().join(".larder/store");
    std::fs::set_permissions(&store, std::fs::Permissions::from_mode(0o777)).unwrap();
    Said::of(embedded(folder.path(), "4MiB")).warns("folder", ".larder/store", "chmod 700");
}

#[test]
fn an_embedded_store_that_its_disk_cannot_hold_is_warned_of() {
    // A disk in memory: what is promised of it is not written.
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let disk = Command::new("df")
        .args(["--output=size", "-B1"])
        .arg(folder.path())
        .output()
        .unwrap();
    let size = String::from_utf8_lossy(&disk.stdout)
        .lines()
        .last()
        .unwrap()
        .trim()
        .to_owned();
    let more = (size.parse::<u64>().unwrap() + (1 << 20))
        .max(2 << 20)
        .to_string();
    Said::of(embedded(folder.path(), &more)).warns("disk", "may grow by", "make room");
}
