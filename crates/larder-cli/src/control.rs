//! The control plane, on its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use larder::{Frames, Origin, Settings, Store};
use larder_control::{ControlPlane, SharedStore};

use crate::args::Control;
use crate::output::{Done, Output};
use crate::{invalidate, serving};

pub(crate) async fn run(
    options: Control,
    settings: Settings,
    output: &Output,
) -> anyhow::Result<Done> {
    let port = options.control_port.unwrap_or(settings.control_port);
    serving::keep_secrets_out_of_core_dumps();
    serving::allow_many_connections();
    let shutdown = serving::shutdown()?;
    let listener = serving::listen("control plane", port, "--control-port", "CONTROL_PORT").await?;
    let store = match has_store(&settings) {
        true => Some(open_store(&settings)?),
        false => None,
    };
    let plane = open(&settings, store.clone()).await?;
    output.line(&format!(
        "control plane    http://{}",
        listener.local_addr()?
    ))?;
    if let Some(store) = &store {
        let name = store.name();
        output.line(&format!("store            {}", larder::escape(&name)))?;
    }
    plane.run(listener, serving::stopped(shutdown)).await?;
    if let Some(store) = store
        && let Err(error) = store.close().await
    {
        tracing::warn!(%error, "the store did not end orderly");
    }
    Ok(Done::Yes)
}

/// The store that the settings name, in a folder of this user alone where it is an embedded one.
pub(crate) fn open_store(settings: &Settings) -> anyhow::Result<Arc<dyn Store>> {
    make_private(&settings.dir)?;
    Ok(larder::open_store(settings)?)
}

/// Whether somebody said which store services share: a folder that nobody named may be anybody's.
fn has_store(settings: &Settings) -> bool {
    let is_named = |name| settings.origin(name) != Origin::Default;
    settings.redis_url.is_some() || is_named("LARDER_DIR")
}

/// The control plane over the database in the settings' folder, with the store that services share if it has one.
pub(crate) async fn open(
    settings: &Settings,
    store: Option<Arc<dyn Store>>,
) -> anyhow::Result<ControlPlane> {
    make_private(&settings.dir)?;
    let mut plane = larder_control::Settings::new(database(settings));
    plane.allowed_hosts.clone_from(&settings.allowed_hosts);
    plane.store = store.map(|store| share(settings, store));
    Ok(ControlPlane::open(plane).await?)
}

/// The store, as the control plane uses it.
fn share(settings: &Settings, store: Arc<dyn Store>) -> SharedStore {
    let (id, frames) = (
        larder::store_id(settings),
        Frames::new(settings.seal_keys.clone()),
    );
    let (of_caches, settings) = (Arc::clone(&store), settings.clone());
    SharedStore::new(store, id, frames, move |service| {
        let cache = invalidate::cache(service, Arc::clone(&of_caches), &settings);
        let cache = cache.map_err(|error| format!("{error:#}"))?;
        Ok(larder_core::Cache::clone(&cache))
    })
}

/// The control plane's database.
pub(crate) fn database(settings: &Settings) -> PathBuf {
    settings.dir.join("control.db")
}

/// Makes a folder for this user alone, if there is none.
fn make_private(folder: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("can't make the folder {} (LARDER_DIR)", folder.display()))
}
