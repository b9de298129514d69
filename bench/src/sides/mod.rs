//! Larder as a side: what runs in a process of its own, and is asked for its rounds.

mod embedded;
mod in_process;
mod redis;
mod redis_cluster;

use clap::ValueEnum;
use larder_bench_load::Error;

/// A store of Larder's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StoreKind {
    /// In the process
    InProcess,
    /// A folder
    Embedded,
    /// Redis
    Redis,
}

impl StoreKind {
    /// Its name as an argument.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::InProcess => "in-process",
            Self::Embedded => "embedded",
            Self::Redis => "redis",
        }
    }
}

/// Answers the harness until it asks no more.
pub(crate) fn serve(store: StoreKind, scene: Vec<String>) -> Result<(), Error> {
    match store {
        StoreKind::InProcess => in_process::serve(scene),
        StoreKind::Embedded => embedded::serve(scene),
        StoreKind::Redis => redis::serve(scene),
    }
}
