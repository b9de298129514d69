//! What the client promises, against the real control plane and against hostile ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod away;
mod changes;
mod hostile;
mod hostile_streams;
mod instances;
mod invalidations;
mod keys;
mod lookups;
mod relay;
mod reports;
mod stopped;
mod streams;
mod tls;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_client::{Client, ClientSettings, StartError};
use larder_control::{ControlPlane, Settings};
use larder_core::{Governor as _, Key, Mode, Policy, PolicyPatch, Secret, Service};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A change is acted on within this time.
const SOON: Duration = Duration::from_secs(5);
/// For what is not about time: who finds nobody asks again more and more seldom.
const PATIENCE: Duration = Duration::from_secs(30);

fn key(endpoint: &str) -> Key {
    Key::new("svc", endpoint).unwrap()
}

fn client(port: u16, state_dir: Option<&Path>) -> Arc<Client> {
    client_with(&format!("http://127.0.0.1:{port}"), None, state_dir).unwrap()
}

fn client_with(
    url: &str,
    key: Option<Secret>,
    state_dir: Option<&Path>,
) -> Result<Arc<Client>, StartError> {
    let defaults = PolicyPatch {
        ttl_seconds: Some(77.0),
        ..PolicyPatch::default()
    };
    Client::start(ClientSettings {
        url: url.to_owned(),
        key,
        authorities: None,
        service: Service::new("svc").unwrap(),
        state_dir: state_dir.map(Path::to_owned),
        store_id: 0,
        defaults: defaults.apply(&Policy::default()).unwrap(),
    })
}

fn ttl(client: &Client, endpoint: &str) -> u64 {
    client.policy(&key(endpoint)).ttl().as_secs()
}

fn is_on(client: &Client, endpoint: &str) -> bool {
    let key = key(endpoint);
    let is_on = client.gate(&key).cache_enabled;
    assert_eq!(is_on, client.policy(&key).mode() == Mode::On);
    is_on
}

/// Waits until it is so; how long that took.
async fn until(within: Duration, what: &str, mut is_so: impl AsyncFnMut() -> bool) -> Duration {
    let began = Instant::now();
    loop {
        // Looked at once more after it: who looks may have stood still himself.
        let is_over = began.elapsed() >= within;
        if is_so().await {
            return began.elapsed();
        }
        assert!(!is_over, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A control plane that serves. Killed when it is dropped.
struct Control {
    port: u16,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
    scheme: &'static str,
    http: reqwest::Client,
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Control {
    /// On this port, or on one of its own for 0: nobody else takes that while it is away.
    async fn start(database: &Path, port: u16) -> Self {
        Self::start_with(database, port, |_| ()).await
    }

    /// One whose requests here show a key.
    async fn start_with_key(database: &Path, key: &Secret) -> Self {
        let mut control = Self::start(database, 0).await;
        let url = control.url("");
        let shown = larder_client::control_authorization(&url, key).unwrap();
        let headers = [(reqwest::header::AUTHORIZATION, shown)];
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]);
        let http = http.default_headers(headers.into_iter().collect());
        control.http = http.build().unwrap();
        control
    }

    async fn start_with(database: &Path, port: u16, set: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::new(database);
        settings.tick = Duration::from_millis(200);
        // Also where something stands between.
        settings.allowed_hosts.push("127.0.0.1".into());
        // Tests ask until something is so.
        settings.invalidations.per_minute = u32::MAX;
        set(&mut settings);
        let control = ControlPlane::open(settings).await.unwrap();
        let port = Some(port).filter(|port| *port != 0);
        let port = port.unwrap_or_else(larder_testing::redis::free_port);
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let shutdown = async {
                let _ = stopped.await;
            };
            control.run(listener, shutdown).await.unwrap();
        });
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]);
        Self {
            port,
            stop: Some(stop),
            task,
            scheme: "http",
            http: http.build().unwrap(),
        }
    }

    /// Lets it end in order.
    async fn stop(mut self) {
        drop(self.stop.take());
        (&mut self.task).await.unwrap();
    }

    /// Says that it speaks TLS, to this client.
    fn over_tls(&mut self, http: reqwest::Client) {
        self.scheme = "https";
        self.http = http;
    }

    fn url(&self, path: &str) -> String {
        format!("{}://127.0.0.1:{}{path}", self.scheme, self.port)
    }

    async fn put(&self, endpoint: &str, policy: serde_json::Value) {
        let url = self.url(&format!("/api/policies/svc{endpoint}"));
        let answer = self.http.put(url).json(&policy).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
    }

    async fn delete(&self, endpoint: &str) {
        let url = self.url(&format!("/api/policies/svc{endpoint}"));
        assert!(
            self.http
                .delete(url)
                .send()
                .await
                .unwrap()
                .status()
                .is_success()
        );
    }

    async fn get(&self, path: &str) -> serde_json::Value {
        self.http
            .get(self.url(path))
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap()
    }
}
