//! The sample service, on its own: set by the environment, or by `.env` in the working directory.

use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::Context as _;
use larder::{Cache, Policy, Settings};
use product_service::{LOG, SERVICE, Shop, policy, serve};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter = std::env::var("RUST_LOG")
        .ok()
        .filter(|told| !told.is_empty());
    let filter = filter.unwrap_or_else(|| LOG.to_owned());
    let filter: Targets = filter.parse().context("RUST_LOG: say target=level,…")?;
    let lines = tracing_subscriber::fmt::layer().with_ansi(std::io::stdout().is_terminal());
    tracing_subscriber::registry()
        .with(lines)
        .with(filter)
        .init();
    let settings = Settings::from_env()?;
    let listener = listen(settings.port).await?;
    let slow = Duration::from_millis(settings.slow_query_ms);
    let shop = Shop::open(&settings.products_db, slow).await?;
    let cache = Cache::builder(SERVICE, settings)?
        .default_policy(policy().apply(&Policy::default())?)
        .build()?;
    tracing::info!(address = %listener.local_addr()?, "serving /products");
    let mut terminated = signal(SignalKind::terminate())?;
    let shutdown = async move {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminated.recv() => {}
        }
    };
    serve(listener, &cache, shop, shutdown).await?;
    cache.close().await;
    Ok(())
}

async fn listen(port: u16) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await;
    listener.with_context(|| format!("can't listen on port {port}: set PORT to another"))
}
