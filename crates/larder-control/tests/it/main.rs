//! What the control plane promises, over real sockets and a real database.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[macro_use]
mod places;

mod abandoned;
mod access;
mod audit;
mod automatic;
mod bad_input;
mod browser;
mod dashboard;
mod dashboard_store;
mod database;
mod followers;
mod gate;
mod hostile;
mod instances;
mod invalidate;
mod invalidation_streams;
mod never_read;
mod overrides;
mod policies;
mod postgres_away;
mod replacing;
mod replicas;
mod revisions;
mod rollups;
mod shared;
mod signals;
mod streams;

use std::path::Path;
use std::time::Duration;

use larder_control::{ControlPlane, Settings};
use larder_testing::process::PATIENCE;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Waits until it is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let began = std::time::Instant::now();
    while !is_so().await {
        assert!(
            began.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A control plane that serves on a port of its own. Ends with the test.
struct Running {
    port: u16,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
    /// Kept until the end, where it was made for this one alone.
    _folder: Option<tempfile::TempDir>,
}

/// An answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (given, value) = line.split_once(':')?;
            given.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// That it is an error that says what is wrong.
    fn is_problem(&self, status: u16) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json")
        );
        assert!(
            self.json()["detail"]
                .as_str()
                .is_some_and(|detail| detail.len() > 10),
            "{self:?}"
        );
    }
}

impl Running {
    async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    async fn start_with(set: impl FnOnce(&mut Settings)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = places::settings(&folder.path().join("control.db"));
        settings.tick = Duration::from_millis(100);
        set(&mut settings);
        let mut running = Self::start_as(settings).await;
        running._folder = Some(folder);
        running
    }

    async fn start_on(database: &Path) -> Self {
        let mut settings = places::settings(database);
        settings.tick = Duration::from_millis(100);
        Self::start_as(settings).await
    }

    /// One that runs in another process.
    fn at(port: u16) -> Self {
        Self {
            port,
            stop: None,
            task: tokio::spawn(std::future::ready(())),
            _folder: None,
        }
    }

    async fn start_as(settings: Settings) -> Self {
        let control = ControlPlane::open(settings).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let shutdown = async {
                let _ = stopped.await;
            };
            control.run(listener, shutdown).await.unwrap();
        });
        Self {
            port,
            stop: Some(stop),
            task,
            _folder: None,
        }
    }

    async fn stop(mut self) {
        drop(self.stop.take());
        self.task.await.unwrap();
    }

    /// Sends these bytes and reads what comes until the connection ends.
    async fn raw(&self, bytes: &[u8]) -> Answer {
        let exchange = async {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
            // A server that refuses early closes while the rest is still being sent.
            let _ = stream.write_all(bytes).await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            answer
        };
        let answer = tokio::time::timeout(Duration::from_secs(20), exchange)
            .await
            .unwrap();
        let text = String::from_utf8(answer).unwrap();
        let (head, body) = text
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("{text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer {
            status,
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n",
            self.port
        );
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        self.raw(head.as_bytes()).await
    }

    /// What it counts under a name.
    async fn metric(&self, name: &str) -> u64 {
        let text = self.get("/metrics").await.body;
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let value = line.unwrap_or_else(|| panic!("{name} is not in {text}"));
        value.trim().parse().unwrap()
    }

    async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    async fn put(&self, path: &str, body: &str) -> Answer {
        self.send("PUT", path, &[("Content-Type", "application/json")], body)
            .await
    }

    async fn post(&self, path: &str, body: &str) -> Answer {
        self.send("POST", path, &[("Content-Type", "application/json")], body)
            .await
    }

    async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], "").await
    }
}
