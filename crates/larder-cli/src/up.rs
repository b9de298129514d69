//! The control plane and the sample service, in one process.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use larder::{Cache, Policy, Settings};
use product_service::{SERVICE, Shop};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::args::{Said, Up};
use crate::output::{Done, Output};
use crate::policy_api::ControlPlane as PolicyApi;
use crate::{control, serving};

pub(crate) async fn run(
    options: Up,
    mut settings: Settings,
    output: &Output,
) -> anyhow::Result<Done> {
    serving::keep_secrets_out_of_core_dumps();
    serving::allow_many_connections();
    let shutdown = serving::shutdown()?;
    let control_port = options.control_port.unwrap_or(settings.control_port);
    let control_listener = serving::listen(
        "control plane",
        control_port,
        "--control-port",
        "CONTROL_PORT",
    )
    .await?;
    let port = options.port.unwrap_or(settings.port);
    let listener = serving::listen("product service", port, "--port", "PORT").await?;
    let control_address = control_listener.local_addr()?;
    settings.control_plane_url = Some(format!("http://{control_address}"));

    let store = control::open_store(&settings)?;
    let plane = control::open(&settings, Arc::clone(&store)).await?;
    let (stop_plane, plane_stopped) = oneshot::channel::<()>();
    let plane = tokio::spawn(async move {
        let stopped = async {
            // Its other end is dropped, never used.
            let _ = plane_stopped.await;
        };
        plane.run(control_listener, stopped).await
    });
    set_first_policy(&settings).await?;
    let slow = Duration::from_millis(settings.slow_query_ms);
    let shop = Shop::open(&settings.products_db, slow).await?;
    let cache = Cache::builder(SERVICE, settings)?
        .store(store)
        .default_policy(product_service::policy().apply(&Policy::default())?)
        .build()?;
    greet(output, &cache, control_address, &listener)?;
    product_service::serve(listener, &cache, shop, serving::stopped(shutdown)).await?;
    cache.close().await;
    // Only now: closing the cache sends the last that was measured.
    drop(stop_plane);
    plane.await??;
    Ok(Done::Yes)
}

/// Caching is on from the start, by a policy that can be seen and changed; one that is there stays.
async fn set_first_policy(settings: &Settings) -> anyhow::Result<()> {
    let api = PolicyApi::of(settings)?;
    let endpoint = "/products".parse()?;
    let service = SERVICE.parse()?;
    if api.policy(&service, &endpoint).await?.is_some() {
        return Ok(());
    }
    let said = Said::of(
        "larder up",
        "so that the sample service is cached from the start",
    );
    let policy = product_service::policy();
    api.put(&service, &endpoint, &policy, None, &said).await?;
    Ok(())
}

/// Says where everything is, and what to try.
fn greet(
    output: &Output,
    cache: &Cache,
    control: SocketAddr,
    listener: &TcpListener,
) -> anyhow::Result<()> {
    let service = listener.local_addr()?;
    let store = cache.store().name();
    output.line(&format!(
        "product service  http://{service}
control plane    http://{control}
store            {}

Try, in another terminal:
  curl http://{service}/products
  curl http://{service}/products   (again: at once)
  curl -X PUT http://{service}/products/1 -H 'content-type: application/json' -d '{{\"price\":899}}'

Ctrl-C ends it.",
        larder::escape(&store)
    ))?;
    std::io::stdout().flush()?;
    Ok(())
}
