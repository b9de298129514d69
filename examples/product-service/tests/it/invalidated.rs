//! What is invalidated at the control plane is fresh at the next request of every instance: real processes, over one Redis and
//! over an embedded store each.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use larder::{Frames, Settings};
use larder_control::{ControlPlane, SharedStore};
use larder_testing::redis::RedisServer;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{PATIENCE, send};

/// A process of the sample service; killed when it is dropped.
struct Service {
    child: Child,
    address: SocketAddr,
}

impl Service {
    /// In a folder of its own, with the database of all.
    fn start(folder: &Path, products: &Path, settings: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_product-service"));
        command.current_dir(folder).env_clear();
        command
            .envs(settings.iter().copied())
            .env("PORT", "0")
            .env("SLOW_QUERY_MS", "1");
        command.env("PRODUCTS_DB", products).env("RUST_LOG", "info");
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("it says where it listens").unwrap();
            if let Some((_, rest)) = line.split_once("address=") {
                break rest.split_whitespace().next().unwrap().parse().unwrap();
            }
        };
        // What else it logs is read away.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }

    async fn is_cached(&self, path: &str) -> bool {
        let (status, body) = send(self.address, "GET", path, "", "").await;
        assert_eq!(status, 200, "{body}");
        let answer: Value = serde_json::from_str(&body).unwrap();
        answer["cached"].as_bool().unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A control plane in this process.
async fn control(folder: &Path, store: Option<SharedStore>) -> SocketAddr {
    let mut settings = larder_control::Settings::new(folder.join("control.db"));
    settings.store = store;
    let control = ControlPlane::open(settings).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { control.run(listener, std::future::pending()).await });
    address
}

/// The store of a Redis, as a control plane has it.
fn shared(url: String, folder: &Path) -> SharedStore {
    let read = |name: &str| (name == "REDIS_URL").then(|| url.clone());
    let settings = Settings::read(read, folder).unwrap();
    let store = larder::open_store(&settings).unwrap();
    let (id, of_caches) = (larder::store_id(&settings), Arc::clone(&store));
    SharedStore::new(store, id, Frames::new(None), move |service| {
        let cache = larder::Cache::builder(service.as_str(), settings.clone());
        let cache = cache.map_err(|error| error.to_string())?;
        let cache = cache.store(Arc::clone(&of_caches)).build();
        cache
            .map(|cache| larder_core::Cache::clone(&cache))
            .map_err(|error| error.to_string())
    })
}

async fn invalidate(control: SocketAddr, asked: Value) -> Value {
    let (status, body) = send(control, "POST", "/api/invalidate", "", &asked.to_string()).await;
    assert!(status < 300, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Waits until both say where they stand.
async fn both_follow(control: SocketAddr) {
    let began = Instant::now();
    loop {
        let asked = json!({"service_name": "product-service", "dry_run": true});
        if invalidate(control, asked).await["instances"]["known"] == 2 {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "they do not follow");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// That each request of either is answered anew once, and only where that was asked for.
async fn is_fresh_on_both(control: SocketAddr, both: &[Service; 2]) -> Value {
    for path in ["/products", "/products/1"] {
        for one in both {
            // A store that has much else to do may not take it in time.
            let began = Instant::now();
            while !one.is_cached(path).await {
                assert!(began.elapsed() < PATIENCE, "{path}");
            }
        }
    }
    let asked = json!({"service_name": "product-service", "endpoint": "/products", "wait_seconds": 20, "reason": "wrong prices"});
    let done = invalidate(control, asked).await;
    assert_eq!(
        (&done["state"], &done["instances"]["done"]),
        (&"done".into(), &2.into()),
        "{done}"
    );
    for one in both {
        assert!(one.is_cached("/products/1").await, "another endpoint stays");
    }
    done
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_one_redis_it_is_done_once_and_both_are_fresh() {
    let folder = tempfile::tempdir().unwrap();
    let redis = RedisServer::start();
    let control = control(folder.path(), Some(shared(redis.url(), folder.path()))).await;
    let (url, redis_url) = (format!("http://{control}"), redis.url());
    let settings = [
        ("CONTROL_PLANE_URL", url.as_str()),
        ("REDIS_URL", &redis_url),
    ];
    let products = folder.path().join("products.db");
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let both = folders
        .each_ref()
        .map(|folder| Service::start(folder.path(), &products, &settings));
    both_follow(control).await;
    let done = is_fresh_on_both(control, &both).await;
    assert_eq!(
        (&done["store"]["state"], &done["store"]["entries"]),
        (&"done".into(), &1.into()),
        "{done}"
    );
    // One loads it, for both: neither has emptied the store once more.
    assert!(!both[0].is_cached("/products").await);
    assert!(both[1].is_cached("/products").await && both[0].is_cached("/products").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_store_of_their_own_both_are_fresh_each() {
    let folder = tempfile::tempdir().unwrap();
    let control = control(folder.path(), None).await;
    let url = format!("http://{control}");
    let products = folder.path().join("products.db");
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let settings = [("CONTROL_PLANE_URL", url.as_str())];
    let both = folders
        .each_ref()
        .map(|folder| Service::start(folder.path(), &products, &settings));
    both_follow(control).await;
    let done = is_fresh_on_both(control, &both).await;
    assert_eq!(done["store"]["state"], "none", "{done}");
    for one in &both {
        assert!(!one.is_cached("/products").await && one.is_cached("/products").await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_whose_store_is_away_says_so_and_does_it_once_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut redis = RedisServer::start();
    let control = control(folder.path(), None).await;
    let (url, redis_url) = (format!("http://{control}"), redis.url());
    let settings = [
        ("CONTROL_PLANE_URL", url.as_str()),
        ("REDIS_URL", &redis_url),
    ];
    let products = folder.path().join("products.db");
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let both = folders
        .each_ref()
        .map(|folder| Service::start(folder.path(), &products, &settings));
    both_follow(control).await;
    redis.kill();
    let state = async |wait: u8| {
        let asked = json!({"service_name": "product-service", "id": "away", "wait_seconds": wait});
        invalidate(control, asked).await
    };
    let began = Instant::now();
    loop {
        let now = state(1).await;
        assert_eq!(now["state"], "pending", "{now}");
        let pending = now["instances"]["pending"].as_array().unwrap().clone();
        let says = |one: &Value| {
            one["why"]
                .as_str()
                .unwrap()
                .contains("its store could not be told")
        };
        if pending.len() == both.len() && pending.iter().all(says) {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "they do not say why: {now}");
    }
    redis.restart();
    let done = state(30).await;
    assert_eq!(done["state"], "done", "{done}");
}
