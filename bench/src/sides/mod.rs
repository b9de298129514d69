//! Larder as a side: what runs in a process of its own, and is asked for its rounds.

mod embedded;
pub(crate) mod framed;
mod in_process;
mod one_key;
mod others;
mod race;
pub(crate) mod redis;
mod redis_cluster;
mod watched;

use std::path::Path;
use std::sync::Arc;

use clap::ValueEnum;
use larder_bench_load::{Error, Scene};
use larder_core::Store;

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

/// The store that a scene's place names: a URL, or a folder. Inside a runtime.
fn store(scene: &Scene) -> Result<Arc<dyn Store>, Error> {
    if scene.place.contains("://") {
        return Ok(Arc::new(redis::connect_inside(scene, redis::options())?));
    }
    Ok(embedded::open(Path::new(&scene.place), scene)?)
}

/// Two worker threads.
fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    Ok(builder.worker_threads(2).enable_all().build()?)
}
