//! `auto`, with the service's own process, real clients and a real control plane: what pays is cached with a TTL and a reason, what
//! turns volatile is not any more, and what is unsafe or has an identity never is.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use larder::http::{Caching, CachingLayer, Limits};
use larder::{Cache, Settings};
use larder_control::ControlPlane;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::{in_process, send};

/// How slow what is to be cached is.
const SLOW: Duration = Duration::from_millis(200);
/// Five requests a second of each kind.
const PACE: Duration = Duration::from_millis(200);

/// The service's own process. Ends with the test.
struct Service {
    child: Child,
    address: SocketAddr,
}

impl Service {
    /// With a store of its own; without a control plane if none is named.
    fn start(folder: &Path, name: &str, control: Option<SocketAddr>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_product-service"));
        command
            .env_clear()
            .env("LARDER_DIR", folder.join(name))
            .env("PRODUCTS_DB", folder.join("products.db"))
            .env("SLOW_QUERY_MS", SLOW.as_millis().to_string())
            .env("PORT", "0")
            .env("RUST_LOG", "product_service=info")
            .current_dir(folder)
            .stdout(Stdio::piped());
        if let Some(control) = control {
            command.env("CONTROL_PLANE_URL", format!("http://{control}"));
        }
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once("address=")?.1.trim().parse().unwrap()))
            .expect("it says where it listens");
        // What else it prints is read away.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) async fn start_control(folder: &Path, tick: Duration) -> SocketAddr {
    let mut settings = larder_control::Settings::new(folder.join("control.db"));
    settings.tick = tick;
    let control = ControlPlane::open(settings).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { control.run(listener, std::future::pending()).await });
    address
}

/// A service whose answers depend on who asks, and which takes orders.
async fn start_personal(folder: &Path, control: SocketAddr) -> SocketAddr {
    let url = format!("http://{control}");
    let dir = folder.join("personal").display().to_string();
    let set = |name: &str| match name {
        "CONTROL_PLANE_URL" => Some(url.clone()),
        "LARDER_DIR" => Some(dir.clone()),
        "LARDER_JOURNAL" => Some("off".to_owned()),
        _ => None,
    };
    let settings = Settings::read(set, folder).unwrap();
    let builder = Cache::builder("personal", settings).unwrap();
    let cache = builder.store(in_process()).build().unwrap();
    let me = async |caching: Caching| {
        let load = || async {
            tokio::time::sleep(SLOW).await;
            Ok::<_, std::io::Error>("yours".to_owned())
        };
        caching.get_or_load(load).await.unwrap().value
    };
    let routes = get(me).post(me).layer(CachingLayer::new(&cache));
    let routes = Router::new().route("/me", routes);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let forever = std::future::pending();
    tokio::spawn(larder::http::serve(
        listener,
        routes,
        Limits::default(),
        forever,
    ));
    address
}

/// What a user sees, and what is told of it.
struct Scene {
    control: SocketAddr,
    traffic: JoinSet<()>,
}

impl Scene {
    /// Leaves an endpoint to the engine.
    async fn leave(&self, endpoint: &str) {
        let target = format!("/api/policies/{endpoint}");
        let (status, body) = send(self.control, "PUT", &target, "", r#"{"mode":"auto"}"#).await;
        assert_eq!(status, 200, "{body}");
    }

    /// Asks five times a second until the end; `target` is told how often it was asked before.
    fn ask(
        &mut self,
        of: SocketAddr,
        method: &'static str,
        header: &'static str,
        target: fn(usize) -> String,
    ) {
        self.traffic.spawn(async move {
            let mut pace = tokio::time::interval(PACE);
            let mut requests = JoinSet::new();
            for count in 0.. {
                pace.tick().await;
                let target = target(count);
                requests.spawn(async move { send(of, method, &target, header, "").await });
                while requests.try_join_next().is_some() {}
            }
        });
    }

    async fn config(&self, endpoint: &str) -> Value {
        self.get(&format!("/api/config/{endpoint}")).await
    }

    async fn explain(&self, endpoint: &str) -> Value {
        self.get(&format!("/api/explain/{endpoint}")).await
    }

    async fn get(&self, target: &str) -> Value {
        let (status, body) = send(self.control, "GET", target, "", "").await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Waits until an endpoint's policy in force is so, and says how long that took; what is never to be cached is not, meanwhile.
    async fn until(
        &self,
        what: &str,
        within: Duration,
        endpoint: &str,
        is_so: fn(&Value) -> bool,
    ) -> Value {
        let began = Instant::now();
        loop {
            for never in [
                "personal/me",
                "personal/me?method=POST",
                "product-service/products/1?method=PUT",
            ] {
                let config = self.config(never).await;
                assert_eq!(config["cache_enabled"], false, "{config}");
            }
            let config = self.config(endpoint).await;
            if is_so(&config) {
                println!(
                    "{what} after {:.1} s: {}",
                    began.elapsed().as_secs_f64(),
                    config["reason"]
                );
                return config;
            }
            assert!(
                began.elapsed() < within,
                "not {what} within {within:?}: {config}"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn is_cached(config: &Value) -> bool {
    config["cache_enabled"] == true
}

fn is_off(config: &Value) -> bool {
    !is_cached(config)
}

fn is_short(config: &Value) -> bool {
    is_off(config) || config["ttl_seconds"].as_f64().unwrap() <= 5.0
}

fn is_longer(config: &Value) -> bool {
    is_cached(config) && !is_short(config)
}

/// The times are those that are promised with a tick of ten seconds. Who is patient waits until the TTL has grown before the content
/// turns volatile.
async fn story(tick: Duration, is_patient: bool) {
    let folder = tempfile::tempdir().unwrap();
    let control = start_control(folder.path(), tick).await;
    let service = Service::start(folder.path(), "one", Some(control));
    let personal = start_personal(folder.path(), control).await;
    let mut scene = Scene {
        control,
        traffic: JoinSet::new(),
    };
    for endpoint in [
        "product-service/products/:id",
        "product-service/products/:id?method=PUT",
        "personal/me",
        "personal/me?method=POST",
    ] {
        scene.leave(endpoint).await;
    }
    let product = |count: usize| format!("/products/{}?page={}", count % 2 + 1, count % 20);
    scene.ask(service.address, "GET", "", product);
    scene.ask(personal, "GET", "Cookie: session=ann-s\r\n", |_| {
        "/me".to_owned()
    });
    scene.ask(personal, "POST", "", |_| "/me".to_owned());

    let seconds = Duration::from_secs;
    let products = "product-service/products/1";
    let config = scene
        .until("cached", seconds(60), products, is_cached)
        .await;
    assert!(config["ttl_seconds"].as_f64().unwrap() >= 1.0, "{config}");
    assert_eq!(config["source"], "auto");
    let reason = config["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("auto: on for") && reason.contains("ms on average"),
        "{reason}"
    );
    let began = Instant::now();
    loop {
        let (_, body) = send(service.address, "GET", "/products/1?page=0", "", "").await;
        if body.starts_with(r#"{"cached":true"#) {
            break;
        }
        assert!(began.elapsed() < seconds(10), "{body}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    if is_patient {
        scene
            .until("longer", seconds(240), products, is_longer)
            .await;
    }

    // Another process changes both products each second; nobody tells the cache.
    let writer = Arc::new(Service::start(folder.path(), "other", None));
    let began = Instant::now();
    let writes = Arc::clone(&writer);
    scene.traffic.spawn(async move {
        let mut pace = tokio::time::interval(Duration::from_secs(1));
        for price in 1_000.. {
            pace.tick().await;
            for product in ["/products/1", "/products/2"] {
                let change = format!(r#"{{"price":{price}}}"#);
                send(writes.address, "PUT", product, "", &change).await;
            }
        }
    });
    scene.until("short", seconds(90), products, is_short).await;
    let left = seconds(180).saturating_sub(began.elapsed());
    let config = scene.until("off", left, products, is_off).await;
    assert_eq!(config["source"], "auto");
    let me = scene.explain("personal/me").await;
    assert_eq!(me["decision"]["code"], "uncacheable", "{me}");
    let order = scene.config("personal/me?method=POST").await;
    assert!(
        order["reason"]
            .as_str()
            .unwrap()
            .contains("not a safe method"),
        "{order}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_pays_is_cached_until_it_turns_volatile_and_what_is_personal_never_is() {
    story(Duration::from_secs(1), false).await;
}

/// With ticks as they are: some minutes, so only where `LARDER_SOAK` is set.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_in_full_time() {
    if std::env::var_os("LARDER_SOAK").is_some() {
        story(Duration::from_secs(10), true).await;
    }
}
