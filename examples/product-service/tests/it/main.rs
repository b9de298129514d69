//! What the sample service promises, over a real socket and a real database.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod answers;
mod decides;
mod instances;
mod invalidated;
mod metrics;
mod monitoring;
mod store_away;
mod updates;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use larder::{Cache, InProcess, Key, Policy, Settings, Store};
use product_service::{SERVICE, Shop, policy, serve};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Longer than anything here takes on a loaded machine; who waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(20);
const QUICK: Duration = Duration::from_millis(10);
const BOTH: &str = r#"[{"id":1,"name":"Laptop","price":999},{"id":2,"name":"Mouse","price":29}]"#;

/// A running service.
struct Running {
    address: SocketAddr,
    cache: Cache,
}

fn cache_over(store: Arc<dyn Store>) -> Cache {
    let no_journal = |name: &str| (name == "LARDER_JOURNAL").then(|| "off".to_owned());
    let settings = Settings::read(no_journal, Path::new("tests")).unwrap();
    Cache::builder(SERVICE, settings)
        .unwrap()
        .store(store)
        .default_policy(policy().apply(&Policy::default()).unwrap())
        .build()
        .unwrap()
}

fn in_process() -> Arc<dyn Store> {
    Arc::new(InProcess::new(1 << 20))
}

impl Running {
    async fn start(database: &Path, slow: Duration, store: Arc<dyn Store>) -> Self {
        let shop = Shop::open(database, slow).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cache = cache_over(store);
        let served = cache.clone();
        tokio::spawn(async move { serve(listener, &served, shop, std::future::pending()).await });
        Self { address, cache }
    }

    /// With a database and a cache of its own.
    async fn alone() -> (Self, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("products.db");
        let running = Self::start(&database, QUICK, in_process()).await;
        (running, folder)
    }

    async fn get(&self, target: &str) -> (u16, String) {
        self.request("GET", target, "").await
    }

    /// The status and the body of an answer.
    async fn request(&self, method: &str, target: &str, body: &str) -> (u16, String) {
        send(self.address, method, target, "", body).await
    }

    fn key(&self, endpoint: &str) -> Key {
        self.cache.key(endpoint).unwrap()
    }

    async fn is_stored(&self, endpoint: &str) -> bool {
        self.cache.get_json(&self.key(endpoint)).await.is_some()
    }
}

/// Sends a request with these header lines besides; the status and the body of its answer.
async fn send(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &str,
    body: &str,
) -> (u16, String) {
    let length = body.len();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    tokio::time::timeout(PATIENCE, read)
        .await
        .expect("no answer")
        .unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let is_problem = head.contains("application/problem+json");
    let status = head[9..12].parse().unwrap();
    assert_eq!(is_problem, status >= 400, "{answer}");
    (status, body.to_owned())
}
