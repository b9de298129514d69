//! Processes of two containers can't see whether the others live, and those of other clocks can't tell when an entry ends: so
//! they don't share a folder.

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use larder_embedded::{EmbeddedStore, OpenError};

use crate::support::{Place, Process, get, in_role_behind, key, options, role, say, set};

/// Where the control block names the namespaces of those who have the folder open.
const PID_NAMESPACE_AT: u64 = 72;
const TIME_NAMESPACE_AT: u64 = 88;

/// What a process of a foreign namespace says: while others have the folder open, and when it has it alone. The latter is not
/// said where this user may not make a namespace.
fn said(unshare: &[&str], word_at: u64) -> (String, Option<String>) {
    let place = Place::new();
    let store = place.open(options());
    set(&store, &key("/a"), "x");
    let mut may_unshare = Command::new(unshare[0]);
    let may_unshare = may_unshare.args(&unshare[1..]).arg("true").status();
    if may_unshare.is_ok_and(|status| status.success()) {
        let shared = hear(unshare, &place.folder);
        drop(store);
        (shared, Some(hear(unshare, &place.folder)))
    } else {
        let mut control = std::fs::OpenOptions::new();
        let control = control.write(true).open(place.folder.join("control"));
        let foreign = 1_u64.to_le_bytes();
        control.unwrap().write_all_at(&foreign, word_at).unwrap();
        (hear(&["env"], &place.folder), None)
    }
}

fn hear(behind: &[&str], folder: &Path) -> String {
    let command = in_role_behind(behind, "namespaces::child", "foreign", folder);
    Process::spawn(command).hear().unwrap()
}

#[test]
fn a_foreign_pid_namespace_is_refused_while_the_folder_is_open() {
    let unshare = ["unshare", "--pid", "--fork", "--kill-child"];
    let (shared, alone) = said(&unshare, PID_NAMESPACE_AT);
    assert_eq!(shared, "another PID namespace");
    assert!(alone.is_none_or(|alone| alone == "opened, an entry"));
}

#[test]
fn a_foreign_time_namespace_is_refused_while_the_folder_is_open_and_begins_cold_after() {
    let unshare = [
        "unshare",
        "--time",
        "--fork",
        "--kill-child",
        "--boottime",
        "3600",
    ];
    let (shared, alone) = said(&unshare, TIME_NAMESPACE_AT);
    assert_eq!(shared, "another time namespace");
    assert!(alone.is_none_or(|alone| alone == "opened, empty"));
}

#[test]
fn child() {
    let Some(folder) = role("foreign") else {
        return;
    };
    match EmbeddedStore::open(&folder, options()) {
        Ok(store) if get(&store, &key("/a")).is_some() => say("opened, an entry"),
        Ok(_) => say("opened, empty"),
        Err(error) => {
            assert!(error.to_string().contains("LARDER_DIR"), "{error}");
            match error {
                OpenError::PidNamespace { .. } => say("another PID namespace"),
                OpenError::TimeNamespace { .. } => say("another time namespace"),
                error => say(&format!("failed: {error}")),
            }
        }
    }
}
