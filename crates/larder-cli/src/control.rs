//! The control plane, on its own.

use std::path::Path;

use anyhow::Context as _;
use larder::Settings;
use larder_control::{AuditKeyPlace, ControlPlane, PostgresUrl};

use crate::args::Control;
use crate::output::{Done, Output};
use crate::serving;

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
    make_private(&settings.dir)?;
    let mut plane = plane_settings(&settings)?;
    plane.lost_audit_key = options.lost_audit_key;
    let stopped = serving::stopped(shutdown.clone());
    let Some(plane) = ControlPlane::open_when_there(plane, &listener, stopped).await? else {
        return Ok(Done::Yes);
    };
    output.line(&format!(
        "control plane    http://{}",
        listener.local_addr()?
    ))?;
    plane.run(listener, serving::stopped(shutdown)).await?;
    Ok(Done::Yes)
}

/// The control plane over the settings' database.
#[cfg(feature = "demo")]
pub(crate) async fn open(settings: &Settings) -> anyhow::Result<ControlPlane> {
    make_private(&settings.dir)?;
    Ok(ControlPlane::open(plane_settings(settings)?).await?)
}

/// What the control plane is told.
pub(crate) fn plane_settings(settings: &Settings) -> anyhow::Result<larder_control::Settings> {
    let mut plane = larder_control::Settings::new(settings.dir.join("control.db"));
    plane.allowed_hosts.clone_from(&settings.allowed_hosts);
    if let Some(url) = &settings.database_url {
        let url = PostgresUrl::parse(url.clone());
        plane.database = url.map(larder_control::DatabasePlace::Postgres)?;
    }
    if let Some(key) = &settings.audit_key {
        plane.audit_key = AuditKeyPlace::Given(key.clone());
    }
    Ok(plane)
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
