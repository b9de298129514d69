//! The sample service's hit of 10 KiB, reporting to a control plane, against the same route from memory, nginx, and a
//! route with one bare Redis `GET`. The load is `wrk`'s, from the same machine.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use larder_http::Limits;
use larder_testing::redis::{RedisServer, free_port};
use redis::AsyncCommands as _;

use crate::report::{Mark, Report};

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
    let service = Server::service(folder.path(), &control, None)?;
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
    let service = Server::service(folder.path(), &control, Some(&redis.url()))?;
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

/// A server in a process of its own, until it is dropped.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(command: &mut Command, port: u16) -> anyhow::Result<Self> {
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("can't start {:?}", command.get_program()))?;
        let server = Self { child, port };
        let begin = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if begin.elapsed() > Duration::from_secs(10) {
                bail!("{:?} does not listen", command.get_program());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    fn control(folder: &Path) -> anyhow::Result<Self> {
        let port = free_port();
        let mut command = Command::new(built("larder")?);
        command.args(["control", "--control-port", &port.to_string()]);
        Self::start(command.current_dir(folder), port)
    }

    fn service(folder: &Path, control: &Self, redis: Option<&str>) -> anyhow::Result<Self> {
        let port = free_port();
        let mut command = Command::new(built("product-service")?);
        command
            .current_dir(folder)
            .env("PORT", port.to_string())
            .env(
                "CONTROL_PLANE_URL",
                format!("http://127.0.0.1:{}", control.port),
            )
            .env("SLOW_QUERY_MS", "0")
            .env("REDIS_URL", redis.unwrap_or_default())
            // As a service in production logs: no line for each request.
            .env("RUST_LOG", "warn");
        Self::start(&mut command, port)
    }

    fn peer(arguments: &[&str]) -> anyhow::Result<Self> {
        let port = free_port();
        let mut command = Command::new(std::env::current_exe()?);
        for argument in arguments {
            command.arg(argument.replace("{port}", &port.to_string()));
        }
        Self::start(&mut command, port)
    }

    fn nginx(folder: &Path, upstream: u16) -> anyhow::Result<Self> {
        let port = free_port();
        let here = folder.display();
        let config = format!(
            "worker_processes 1; daemon off; pid {here}/nginx.pid; error_log {here}/nginx.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000;
  proxy_cache_path {here}/nginx-cache keys_zone=all:10m;
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://127.0.0.1:{upstream}; proxy_cache all; proxy_cache_valid 200 1h; }}
  }}
}}"
        );
        let path = folder.join("nginx.conf");
        std::fs::write(&path, config)?;
        let mut command = Command::new("nginx");
        command.arg("-c").arg(&path).arg("-p").arg(folder);
        Self::start(&mut command, port)
    }

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

impl Drop for Server {
    fn drop(&mut self) {
        // nginx ends its worker only when it is asked to.
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let _ = self.child.wait();
    }
}

/// A binary that was built beside this one.
fn built(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    anyhow::ensure!(
        path.exists(),
        "{} is not built (scripts/bench does)",
        path.display()
    );
    Ok(path)
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
