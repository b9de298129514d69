//! What the figures were measured on, and with which versions.

use std::process::Command;

use serde::{Deserialize, Serialize};

/// What the peers are built with.
const PEERS_LOCK: &str = include_str!("../peers/Cargo.lock");
/// What Express is installed with.
const EXPRESS_LOCK: &str = include_str!("../peers/express/package-lock.json");

const CRATES: [&str; 12] = [
    "moka",
    "quick_cache",
    "foyer",
    "cached",
    "hitbox",
    "hitbox-moka",
    "heed",
    "redb",
    "redis",
    "rustis",
    "axum",
    "tokio",
];
const MODULES: [&str; 2] = ["express", "redis"];
/// Programs, how they are asked for their version, and the word before it.
const PROGRAMS: [(&str, &str, &str); 6] = [
    ("redis-server", "--version", "v="),
    ("nginx", "-v", "nginx/"),
    ("varnishd", "-V", "varnish-"),
    ("node", "--version", "v"),
    ("wrk", "-v", "wrk "),
    ("rustc", "--version", "rustc "),
];

/// A machine, and what was on it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: u64,
    pub(crate) kernel: String,
    pub(crate) larder: String,
    /// Names and versions of the peers.
    pub(crate) versions: Vec<(String, String)>,
}

impl Machine {
    /// This one.
    pub(crate) fn here() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let (cpu, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
        let field = |text: &str, name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name))
                .map(|rest| rest.trim_start_matches([' ', '\t', ':']).to_owned())
        };
        let kib = field(&memory, "MemTotal").and_then(|text| text.split(' ').next()?.parse().ok());
        Self {
            processor: field(&cpu, "model name").unwrap_or_else(|| "unknown processor".to_owned()),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: kib.map_or(0, |kib: u64| (kib + (1 << 19)) >> 20),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            larder: env!("CARGO_PKG_VERSION").to_owned(),
            versions: versions(),
        }
    }

    /// Whether figures of both can stand in one table.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.processor == other.processor
            && self.cores == other.cores
            && self.kernel == other.kernel
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Larder {}, {} × {}, {} GiB, Linux {}",
            self.larder, self.cores, self.processor, self.memory_gib, self.kernel
        )?;
        let versions: Vec<String> = self
            .versions
            .iter()
            .map(|(name, version)| format!("{name} {version}"))
            .collect();
        write!(f, "; {}", versions.join(", "))
    }
}

fn versions() -> Vec<(String, String)> {
    let crates = CRATES
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), locked(PEERS_LOCK, name)?)));
    let modules = MODULES
        .iter()
        .filter_map(|name| Some((format!("npm {name}"), installed(EXPRESS_LOCK, name)?)));
    let programs = PROGRAMS.iter().filter_map(|(name, argument, before)| {
        Some(((*name).to_owned(), said(name, argument, before)?))
    });
    crates.chain(modules).chain(programs).collect()
}

/// A crate's version in a `Cargo.lock`.
fn locked(lock: &str, name: &str) -> Option<String> {
    let package = format!("\nname = \"{name}\"\nversion = \"");
    let rest = lock.split_once(&package)?.1;
    Some(rest.split_once('"')?.0.to_owned())
}

/// A module's version in a `package-lock.json`.
fn installed(lock: &str, name: &str) -> Option<String> {
    let lock: serde_json::Value = serde_json::from_str(lock).ok()?;
    let module = &lock["packages"][format!("node_modules/{name}")];
    Some(module["version"].as_str()?.to_owned())
}

/// What a program says of its version; nothing where it isn't there.
fn said(program: &str, argument: &str, before: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let rest = text.split_once(before)?.1;
    let version = rest.split([' ', '\n', ')', ';', '_']).next()?;
    Some(version.to_owned())
}

/// Today, by the machine's clock.
pub(crate) fn today() -> String {
    let date = Command::new("date").args(["-u", "+%F"]).output();
    date.map_or_else(
        |_| "unknown day".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_peer_has_a_version() {
        for name in CRATES {
            assert!(locked(PEERS_LOCK, name).is_some(), "{name}");
        }
        for name in MODULES {
            assert!(installed(EXPRESS_LOCK, name).is_some(), "{name}");
        }
        assert_eq!(said("no-such-program", "-v", "v"), None);
    }
}
