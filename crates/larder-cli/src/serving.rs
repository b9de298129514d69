//! What the commands that serve have in common.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, bail};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::filter::Targets;

/// A listener on loopback. A port that is taken is an error that names what chooses another.
pub(crate) async fn listen(
    what: &str,
    port: u16,
    flag: &str,
    variable: &str,
) -> anyhow::Result<TcpListener> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    listen_at(what, address, flag, variable).await
}

/// A listener at an address. A port that is taken is an error that names what chooses another.
pub(crate) async fn listen_at(
    what: &str,
    address: SocketAddr,
    flag: &str,
    variable: &str,
) -> anyhow::Result<TcpListener> {
    let port = address.port();
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => bail!(
            "port {port} is taken, so the {what} can't listen there: choose another with {flag} or {variable}"
        ),
        Err(error) => Err(error).with_context(|| format!("the {what} can't listen on {address}")),
    }
}

/// Becomes true with the first Ctrl-C or SIGTERM; the second ends the process at once.
pub(crate) fn shutdown() -> anyhow::Result<watch::Receiver<bool>> {
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut terminations = signal(SignalKind::terminate())?;
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupts.recv() => {}
                _ = terminations.recv() => {}
            }
            if sender.send_replace(true) {
                std::process::exit(130);
            }
        }
    });
    Ok(receiver)
}

/// Waits for the shutdown.
pub(crate) async fn stopped(mut shutdown: watch::Receiver<bool>) {
    // The sender lives as long as the process.
    let _ = shutdown.wait_for(|is_stopped| *is_stopped).await;
}

/// Logs to standard error: `RUST_LOG`, else `default`.
pub(crate) fn log(default: &str) {
    use std::io::IsTerminal as _;
    use tracing_subscriber::prelude::*;
    let told = std::env::var("RUST_LOG")
        .ok()
        .filter(|told| !told.is_empty());
    let told = told.as_deref().map(str::parse::<Targets>).transpose();
    let filter = match &told {
        Ok(Some(told)) => told.clone(),
        // What is said here can be read.
        _ => default.parse().unwrap_or_default(),
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    tracing_subscriber::registry()
        .with(lines)
        .with(filter)
        .init();
    if let Err(error) = told {
        // Most commands log nothing of themselves.
        let error = larder::escape(&error.to_string()).to_string();
        eprintln!(
            "larder: RUST_LOG is left out ({error}): use a level such as debug, or target=level,…"
        );
    }
}

/// Lets the process have as many files open as the system lets it: many shells allow 1,024 unless asked, and each client
/// that follows a stream has one.
pub(crate) fn allow_many_connections() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        ..limit
    };
    // Up to its own bound a process may raise it; where that fails, connections wait to be accepted.
    let _ = setrlimit(Resource::Nofile, most);
}

/// Lets no crash write the process's memory, with all secrets in it, to the disk; `LARDER_CORE_DUMP=1` does.
pub(crate) fn keep_secrets_out_of_core_dumps() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    if std::env::var_os("LARDER_CORE_DUMP").is_some_and(|value| value == "1") {
        return;
    }
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    // Lowering a limit needs no right.
    let _ = setrlimit(Resource::Core, none);
}
