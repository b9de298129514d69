//! The control plane, on its own.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use larder::{Frames, Origin, Settings, Store};
use larder_control::{AuditKeyPlace, ControlPlane, PostgresUrl, SharedStore, TlsFiles};

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
    let address = options.control_address.unwrap_or(settings.control_address);
    let address = SocketAddr::from((address, port));
    let mut plane = plane_settings(&settings)?;
    plane.tls = tls(&options, &settings)?;
    plane.metrics = options.metrics_address.or(settings.control_metrics);
    plane.lost_audit_key = options.lost_audit_key;
    let scheme = if plane.tls.is_some() { "https" } else { "http" };
    let store = match has_store(&settings) {
        true => Some(open_store(&settings)?),
        false => None,
    };
    plane.store = store.clone().map(|store| share(&settings, store));
    let listener =
        serving::listen_at("control plane", address, "--control-port", "CONTROL_PORT").await?;
    let stopped = serving::stopped(shutdown.clone());
    let Some(plane) = ControlPlane::open_when_there(plane, &listener, stopped).await? else {
        return Ok(Done::Yes);
    };
    // Before anything is told to come here.
    plane.check_bind(address)?;
    output.line(&format!(
        "control plane    {scheme}://{}",
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

/// The files of the certificate to show, if one is named.
fn tls(options: &Control, settings: &Settings) -> anyhow::Result<Option<TlsFiles>> {
    let certificate = options.tls_cert.clone();
    let certificate = certificate.or_else(|| settings.control_tls_cert.clone());
    let key = options.tls_key.clone();
    match (
        certificate,
        key.or_else(|| settings.control_tls_key.clone()),
    ) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Ok(Some(TlsFiles { certificate, key })),
        _ => bail!(
            "a certificate needs its key, and a key its certificate: set both CONTROL_TLS_CERT and CONTROL_TLS_KEY"
        ),
    }
}

/// The control plane over the settings' database, with the store that services share.
#[cfg(feature = "demo")]
pub(crate) async fn open(
    settings: &Settings,
    store: Arc<dyn Store>,
) -> anyhow::Result<ControlPlane> {
    let mut plane = plane_settings(settings)?;
    plane.store = Some(share(settings, store));
    Ok(ControlPlane::open(plane).await?)
}

/// What the control plane needs to know; its folder is made.
pub(crate) fn plane_settings(settings: &Settings) -> anyhow::Result<larder_control::Settings> {
    make_private(&settings.dir)?;
    let mut plane = larder_control::Settings::new(settings.dir.join("control.db"));
    plane.allowed_hosts.clone_from(&settings.allowed_hosts);
    plane.trusted_proxies.clone_from(&settings.trusted_proxies);
    if let Some(url) = &settings.database_url {
        let url = PostgresUrl::parse(url.clone());
        plane.database = url.map(larder_control::DatabasePlace::Postgres)?;
    }
    if let Some(key) = &settings.audit_key {
        plane.audit_key = AuditKeyPlace::Given(key.clone());
    }
    Ok(plane)
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

/// Makes a folder for this user alone, if there is none.
fn make_private(folder: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("can't make the folder {} (LARDER_DIR)", folder.display()))
}
