//! The checks of the embedded store.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use larder::{OpenError, Settings, Store as _, StoreStats};

use super::{Checked, Report, Verdict};
use crate::output::bytes;

/// The store makes room at three quarters, less what is about to be stored: from here on it may be as full as it gets, in percent.
const FULL: u64 = 60;

pub(crate) async fn examine(settings: &Settings) -> Report {
    let folder = settings.dir.join("store");
    let store = match larder::open_embedded(settings) {
        Ok(store) => store,
        Err(error) => {
            return Report {
                store: folder.display().to_string(),
                checks: vec![unopened(&error)],
            };
        }
    };
    let mut checks = vec![(
        "folder",
        Verdict::fine("yours alone, on a file system that can be shared by processes"),
    )];
    match store.stats().await {
        Ok(stats) => checks.extend([("room", room(&stats)), ("disk", disk(&folder, &stats))]),
        Err(error) => checks.push((
            "room",
            Verdict::warning(
                error.to_string(),
                "look into the folder's users: fuser -v data.mdb",
            ),
        )),
    }
    Report {
        store: store.name(),
        checks,
    }
}

/// Its folder, its file system, its disk: whatever keeps it from being used.
fn unopened(error: &OpenError) -> Checked {
    let text = error.to_string();
    let verdict = match error {
        OpenError::Unsafe { path, what, next } => {
            Verdict::warning(format!("{} {what}", path.display()), *next)
        }
        OpenError::System { .. } | OpenError::Lmdb { .. } => Verdict::warning(
            text,
            "make the folder usable for this user, or set LARDER_DIR to another",
        ),
        // The others say it behind the last colon.
        _ => match text.rsplit_once(": ") {
            Some((what, next)) => Verdict::warning(what, next),
            None => Verdict::warning(text, "set LARDER_DIR to another folder"),
        },
    };
    let check = match error {
        OpenError::FileSystem { .. } => "file system",
        OpenError::DiskFull { .. } => "disk",
        _ => "folder",
    };
    (check, verdict)
}

fn room(stats: &StoreStats) -> Verdict {
    let (used, limit) = (
        stats.used_bytes.unwrap_or(0),
        stats.limit_bytes.unwrap_or(u64::MAX),
    );
    let evictions = stats.evictions.unwrap_or(0);
    let percent = used.saturating_mul(100) / limit.max(1);
    let seen = format!("{} of {} used ({percent} %)", bytes(used), bytes(limit));
    if percent >= FULL && evictions > 0 {
        Verdict::warning(
            format!("{seen}: it is full, and {evictions} entries were evicted before their end"),
            "make it larger: stop all who use the folder, delete it, set LARDER_MAX_BYTES, start again",
        )
    } else {
        Verdict::fine(seen)
    }
}

fn disk(folder: &Path, stats: &StoreStats) -> Verdict {
    let taken = match std::fs::metadata(folder.join("data.mdb")) {
        Ok(file) => file.blocks().saturating_mul(512),
        Err(error) => {
            return Verdict::unknown(error.to_string(), "look at the folder's disk: df");
        }
    };
    let free = match rustix::fs::statvfs(folder) {
        Ok(disk) => disk.f_bavail.saturating_mul(disk.f_frsize),
        Err(error) => {
            return Verdict::unknown(error.to_string(), "look at the folder's disk: df");
        }
    };
    let to_come = stats.limit_bytes.unwrap_or(0).saturating_sub(taken);
    if free < to_come {
        Verdict::warning(
            format!(
                "the disk has {} free, and the store may grow by {}",
                bytes(free),
                bytes(to_come)
            ),
            "make room, set LARDER_DIR to a folder on another disk, or make the store smaller (LARDER_MAX_BYTES, with a new folder)",
        )
    } else {
        Verdict::fine(format!(
            "{} free, the store may grow by {}",
            bytes(free),
            bytes(to_come)
        ))
    }
}
