//! The sample service's hit of 10 KiB, reporting to a control plane, against the same route from memory, nginx, and a
//! route with one bare Redis `GET`. The load is `wrk`'s, from the same machine.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use larder_http::Limits;
use larder_testing::redis::RedisServer;
use redis::AsyncCommands as _;

use crate::report::{Mark, Report};
use crate::server::Server;

/// The answer is a little longer.
const NAME_BYTES: usize = 10 << 10;
const CONNECTIONS: &str = "64";
const SECONDS: &str = "2s";
const KEY: &str = "cache:product-service:/products";

pub(crate) fn measure(report: &mut Report) -> anyhow::Result<()> {
    if !report.wants("http hit, embedded") && !report.wants("http hit, redis") {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let control = Server::control(folder.path())?;
    let service = Server::service(folder.path(), &control, &[])?;
    let body = service.prepare()?;
    let file = folder.path().join("body.json");
    std::fs::write(&file, &body)?;
    let memory = Server::peer(&["serve-memory", "{port}", &file.display().to_string()])?;
    let nginx = Server::nginx(folder.path(), service.port)?;
    let name = "http hit, embedded";
    report.add(
        name,
        "axum from memory",
        "requests/s",
        Mark::AtLeast(0.85),
        || service.load(),
        || memory.load(),
    )?;
    report.add(
        name,
        "nginx proxy_cache",
        "requests/s",
        Mark::AtLeast(1.0),
        || service.load(),
        || nginx.load(),
    )?;
    drop((service, nginx, memory));

    let redis = RedisServer::start();
    let service = Server::service(folder.path(), &control, &[("REDIS_URL", &redis.url())])?;
    service.prepare()?;
    let bare = Server::peer(&["serve-redis", "{port}", &redis.url(), KEY])?;
    let name = "http hit, redis";
    report.add(
        name,
        "axum with a bare GET",
        "requests/s",
        Mark::AtLeast(0.95),
        || service.load(),
        || bare.load(),
    )
}

impl Server {
    /// Makes the list 10 KiB long and cached; answers it.
    fn prepare(&self) -> anyhow::Result<Vec<u8>> {
        let change = format!("{{\"name\":\"{}\"}}", "x".repeat(NAME_BYTES));
        let url = format!("http://127.0.0.1:{}/products", self.port);
        let put = [
            "-sf",
            "-X",
            "PUT",
            "-H",
            "content-type: application/json",
            "-d",
            &change,
        ];
        let status = Command::new("curl")
            .args(put)
            .arg(format!("{url}/1"))
            .output()?
            .status;
        anyhow::ensure!(status.success(), "the product can't be changed");
        for _ in 0..3 {
            let body = Command::new("curl").args(["-sf", &url]).output()?.stdout;
            if body.starts_with(br#"{"cached":true"#) {
                return Ok(body);
            }
        }
        bail!("the service does not cache");
    }

    /// Requests per second.
    fn load(&self) -> anyhow::Result<f64> {
        let url = format!("http://127.0.0.1:{}/products", self.port);
        let output = Command::new("wrk")
            .args(["-t", "1", "-c", CONNECTIONS, "-d", SECONDS, &url])
            .output()
            .context("wrk is needed (scripts/bench installs it)")?;
        let text = String::from_utf8_lossy(&output.stdout);
        anyhow::ensure!(!text.contains("Non-2xx"), "{text}");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("Requests/sec:"));
        Ok(line.context("wrk says nothing")?.trim().parse()?)
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
pub(crate) async fn serve_memory(port: u16, body: &Path) -> anyhow::Result<()> {
    let body = Bytes::from(std::fs::read(body)?);
    let route = |State(body): State<Bytes>| async move { json(body) };
    serve(
        port,
        axum::Router::new()
            .route("/products", get(route))
            .with_state(body),
    )
    .await
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
pub(crate) async fn serve_redis(port: u16, url: &str, key: &str) -> anyhow::Result<()> {
    let connection = redis::Client::open(url)?
        .get_multiplexed_async_connection()
        .await?;
    let key: &'static str = key.to_owned().leak();
    let route = move || {
        let mut connection = connection.clone();
        async move {
            let value: Vec<u8> = connection.get(key).await.unwrap_or_default();
            json(value.into())
        }
    };
    serve(port, axum::Router::new().route("/products", get(route))).await
}

fn json(body: Bytes) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], body)
}

async fn serve(port: u16, router: axum::Router) -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    Ok(larder_http::serve(listener, router, Limits::default(), std::future::pending()).await?)
}
