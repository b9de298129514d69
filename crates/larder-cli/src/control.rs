//! The control plane, on its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use larder::Settings;
use larder_control::ControlPlane;

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
    let address = options.control_address.unwrap_or(settings.control_address);
    let address = SocketAddr::from((address, port));
    let plane = open(&settings).await?;
    // Before anything is told to come here.
    plane.check_bind(address)?;
    let listener =
        serving::listen_at("control plane", address, "--control-port", "CONTROL_PORT").await?;
    output.line(&format!(
        "control plane    http://{}",
        listener.local_addr()?
    ))?;
    plane.run(listener, serving::stopped(shutdown)).await?;
    Ok(Done::Yes)
}

/// The control plane over the database in the settings' folder.
pub(crate) async fn open(settings: &Settings) -> anyhow::Result<ControlPlane> {
    Ok(ControlPlane::open(plane_settings(settings)?).await?)
}

/// What the control plane needs to know; its folder is made.
pub(crate) fn plane_settings(settings: &Settings) -> anyhow::Result<larder_control::Settings> {
    make_private(&settings.dir)?;
    let mut plane = larder_control::Settings::new(database(settings));
    plane.allowed_hosts.clone_from(&settings.allowed_hosts);
    Ok(plane)
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
