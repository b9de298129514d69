//! Servers in processes of their own: the binaries that were built beside this one, and their peers.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use larder_testing::redis::free_port;

use crate::side::{peer_binary, peers};

/// A server in a process of its own, until it is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
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

    /// A control plane.
    pub(crate) fn control(folder: &Path) -> anyhow::Result<Self> {
        Self::control_by(folder, Command::new(built("larder")?))
    }

    /// A control plane that has one core.
    pub(crate) fn control_on(folder: &Path, core: &str) -> anyhow::Result<Self> {
        let mut command = Command::new("taskset");
        command.args(["-c", core]).arg(built("larder")?);
        Self::control_by(folder, command)
    }

    fn control_by(folder: &Path, mut command: Command) -> anyhow::Result<Self> {
        let port = free_port();
        command.args(["control", "--control-port", &port.to_string()]);
        Self::start(command.current_dir(folder), port)
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The sample service, with these variables besides.
    pub(crate) fn service(
        folder: &Path,
        control: &Self,
        variables: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
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
            .env("REDIS_URL", "")
            // As a service in production logs: no line for each request.
            .env("RUST_LOG", "warn")
            .envs(variables.iter().copied());
        Self::start(&mut command, port)
    }

    /// An axum route of the peers' workspace: `LOOP memory FILE` or `LOOP redis URL KEY`, where the accept loop is
    /// `larder` or `axum`.
    pub(crate) fn axum(arguments: &[&str]) -> anyhow::Result<Self> {
        let port = free_port();
        let mut command = Command::new(peer_binary("axum")?);
        command.arg(port.to_string()).args(arguments);
        Self::start(&mut command, port)
    }

    /// Express with node-redis, as scripts/bench has installed it.
    pub(crate) fn express(redis: &str) -> anyhow::Result<Self> {
        let script = peers()?.join("express/server.js");
        anyhow::ensure!(
            script.exists(),
            "{} is not installed (scripts/bench does)",
            script.display()
        );
        let port = free_port();
        let mut command = Command::new("node");
        command.arg(script).args([&port.to_string(), redis]);
        Self::start(command.env("NODE_ENV", "production"), port)
    }

    /// nginx with a cache, in front of a server.
    pub(crate) fn nginx(folder: &Path, upstream: u16) -> anyhow::Result<Self> {
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

    /// Varnish, in front of a server.
    pub(crate) fn varnish(folder: &Path, upstream: u16) -> anyhow::Result<Self> {
        let port = free_port();
        let mut command = Command::new("varnishd");
        command
            // It drops no rights: its folder is this user's.
            .args(["-F", "-j", "none", "-t", "3600", "-s", "malloc,64m"])
            .args(["-a", &format!("127.0.0.1:{port}")])
            .args(["-b", &format!("127.0.0.1:{upstream}")])
            .arg("-n")
            .arg(folder.join("varnish"));
        Self::start(&mut command, port)
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
pub(crate) fn built(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    anyhow::ensure!(
        path.exists(),
        "{} is not built (scripts/bench does)",
        path.display()
    );
    Ok(path)
}
