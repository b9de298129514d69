//! Killed at any instant of a write, what is kept is whole. The test runs itself again as the process that is killed.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use larder_core::Service;
use larder_core::api::{EndpointConfig, ServiceConfig, Source};

use super::{Kept, KnownGood};

/// Set for the process that is killed: where it writes, and how.
const FOLDER: &str = "LARDER_TEST_WRITES_POLICIES_IN";
const IN_PLACE: &str = "LARDER_TEST_WRITES_IN_PLACE";
/// How often it is killed: in the soak 1,000 times.
fn kills() -> u64 {
    match std::env::var_os("LARDER_SOAK") {
        Some(_) => 1_000,
        None => 60,
    }
}

fn kept(version: u64) -> Kept {
    let policy = |index| EndpointConfig {
        service_name: "svc".into(),
        endpoint: format!("/a/{index}"),
        method: "GET".into(),
        cache_enabled: true,
        mode: larder_core::Mode::On,
        ttl_seconds: 60.0,
        watch: None,
        jitter: 0.05,
        stale_while_revalidate_seconds: 0.0,
        stale_if_error_seconds: 0.0,
        negative_ttl_seconds: 0.0,
        soft_load_timeout_seconds: 0.0,
        load_timeout_seconds: 30.0,
        max_value_bytes: 1,
        include_query: larder_core::QueryRule::All,
        vary: Vec::new(),
        tags: Vec::new(),
        circuit_breaker: false,
        reason: "a policy caches this endpoint".into(),
        source: Source::Policy,
        version,
    };
    Kept {
        etag: None,
        config: ServiceConfig {
            service_name: "svc".into(),
            version,
            policies: (0..300).map(policy).collect(),
        },
    }
}

fn known_good(folder: &Path) -> KnownGood {
    KnownGood::new(folder.to_owned(), Service::new("svc").unwrap())
}

#[test]
fn the_process_that_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let known_good = known_good(Path::new(&folder));
    for version in 1.. {
        if std::env::var_os(IN_PLACE).is_some() {
            let file = Path::new(&folder).join("policies/svc.json");
            // As it is written, so that a kill finds it in the midst of that, however fast the machine is.
            serde_json::to_writer(std::fs::File::create(file).unwrap(), &kept(version)).unwrap();
        } else {
            known_good.write(&kept(version)).unwrap();
        }
    }
}

/// Dies with the test.
struct Writer(Child);

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Kills a writer again and again; how often what it left did not read, and how often it died in mid-write.
fn kill_writers(folder: &Path, in_place: bool) -> (u64, u64) {
    known_good(folder).write(&kept(0)).unwrap();
    let (mut unreadable, mut in_mid_write) = (0, 0);
    for kill in 0..kills() * 20 {
        // Where the disk is slow, most of the time goes by after the rename, and a kill then leaves nothing half: it takes more of them.
        if kill >= kills() && (in_place || in_mid_write >= kills() / 10) {
            break;
        }
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "known_good::killed::the_process_that_is_killed"])
            .env(FOLDER, folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if in_place {
            command.env(IN_PLACE, "1");
        }
        let before = modified(folder);
        let writer = Writer(command.spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(20);
        let written_since = |before| {
            while modified(folder) == before {
                assert!(Instant::now() < deadline, "the writer wrote nothing");
                std::thread::sleep(Duration::from_micros(200));
            }
            (modified(folder), Instant::now())
        };
        let (first, begin) = written_since(before);
        let (_, end) = written_since(first);
        // Not always at the same point of a write.
        std::thread::sleep((end - begin).mul_f64((kill * 137 % 1_000) as f64 / 1_000.0));
        drop(writer);
        let read = known_good(folder).read();
        unreadable += u64::from(read.is_none_or(|kept| kept.config.policies.len() != 300));
        in_mid_write += remove_leftovers(folder);
    }
    (unreadable, in_mid_write)
}

fn modified(folder: &Path) -> Option<std::time::SystemTime> {
    let file = std::fs::metadata(folder.join("policies/svc.json")).ok()?;
    file.modified().ok()
}

fn remove_leftovers(folder: &Path) -> u64 {
    let mut removed = 0;
    for entry in std::fs::read_dir(folder.join("policies")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_string_lossy().starts_with(".svc~") {
            std::fs::remove_file(entry.path()).unwrap();
            removed += 1;
        }
    }
    removed
}

#[test]
fn a_kill_in_mid_write_leaves_the_last_version_whole() {
    let private = || {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("state");
        (folder, inner)
    };
    let (_folder, naive) = private();
    let (unreadable, _) = kill_writers(&naive, true);
    assert!(
        unreadable > 0,
        "a file that is written in place is found cut"
    );

    let (_folder, ours) = private();
    let (unreadable, in_mid_write) = kill_writers(&ours, false);
    println!("{in_mid_write} kills came between the begin and the end of a write");
    assert_eq!(unreadable, 0);
    assert!(
        in_mid_write >= kills() / 10,
        "only {in_mid_write} kills came in mid-write"
    );
}
