//! Processes of two containers can't see whether the others live, so they don't share a folder.

use std::os::unix::fs::FileExt as _;

use larder_embedded::{EmbeddedStore, OpenError};

use crate::support::{Place, Process, get, in_role_behind, key, options, role, say, set};

/// Where the control block names the PID namespace of those who have the folder open.
const PID_NAMESPACE_AT: u64 = 72;

#[test]
fn a_foreign_pid_namespace_is_refused_while_the_folder_is_open() {
    let place = Place::new();
    let store = place.open(options());
    set(&store, &key("/a"), "x");
    let unshare = ["unshare", "--pid", "--fork", "--kill-child"];
    let may_unshare = std::process::Command::new(unshare[0])
        .args(&unshare[1..])
        .arg("true")
        .status();
    if may_unshare.is_ok_and(|status| status.success()) {
        let mut child = Process::spawn(in_role_behind(
            &unshare,
            "namespaces::child",
            "foreign",
            &place.folder,
        ));
        child.expect("refused");
        drop(store);
        let mut child = Process::spawn(in_role_behind(
            &unshare,
            "namespaces::child",
            "foreign",
            &place.folder,
        ));
        child.expect("opened");
    } else {
        let control = std::fs::OpenOptions::new()
            .write(true)
            .open(place.folder.join("control"))
            .unwrap();
        control
            .write_all_at(&1_u64.to_le_bytes(), PID_NAMESPACE_AT)
            .unwrap();
        let mut child = Process::start("namespaces::child", "foreign", &place.folder);
        child.expect("refused");
    }
}

#[test]
fn child() {
    let Some(folder) = role("foreign") else {
        return;
    };
    match EmbeddedStore::open(&folder, options()) {
        Ok(store) => {
            assert!(get(&store, &key("/a")).is_some());
            say("opened");
        }
        Err(error @ OpenError::PidNamespace { .. }) => {
            assert!(error.to_string().contains("LARDER_DIR"), "{error}");
            say("refused");
        }
        Err(error) => say(&format!("failed: {error}")),
    }
}
