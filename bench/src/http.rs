//! The sample service's hit of 10 KiB, reporting to a control plane, against the same route from memory, nginx, Varnish, a
//! route with one bare Redis `GET`, and Express with node-redis. The load is `wrk`'s, from the same machine.

use std::process::Command;

use anyhow::bail;
use larder_testing::redis::RedisServer;

use crate::load::wrk_says;
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
    let file = file.display().to_string();
    // The mark is about the cache, so the route beside it has the same accept loop, with the same timers.
    let memory = Server::axum(&["larder", "memory", &file])?;
    let bare_loop = Server::axum(&["axum", "memory", &file])?;
    let nginx = Server::nginx(folder.path(), service.port)?;
    let varnish = Server::varnish(folder.path(), service.port)?;
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
        "axum::serve from memory",
        "requests/s",
        None,
        || service.load(),
        || bare_loop.load(),
    )?;
    report.add(
        name,
        "nginx proxy_cache",
        "requests/s",
        Mark::AtLeast(1.0),
        || service.load(),
        || nginx.load(),
    )?;
    report.add(
        name,
        "Varnish",
        "requests/s",
        None,
        || service.load(),
        || varnish.load(),
    )?;
    drop((service, varnish, nginx, memory, bare_loop));

    let redis = RedisServer::start();
    let service = Server::service(folder.path(), &control, &[("REDIS_URL", &redis.url())])?;
    service.prepare()?;
    let bare = Server::axum(&["larder", "redis", &redis.url(), KEY])?;
    let express = Server::express(&redis.url())?;
    let name = "http hit, redis";
    report.add(
        name,
        "axum with a bare GET",
        "requests/s",
        Mark::AtLeast(0.95),
        || service.load(),
        || bare.load(),
    )?;
    report.add(
        name,
        "Express with node-redis",
        "requests/s",
        None,
        || service.load(),
        || express.load(),
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
        let mut wrk = Command::new("wrk");
        wrk_says(wrk.args(["-t", "1", "-c", CONNECTIONS, "-d", SECONDS, &url]))
    }
}
