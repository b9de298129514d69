//! What larder-http guarantees, over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod client;
mod endless;
mod few_descriptors;
mod hosts;
mod http2;
mod identities;
mod methods;
mod orderly_end;
mod queries;
mod reports;
mod sizes;
mod slow_clients;
mod switched_off;
#[cfg(feature = "tls")]
mod tls;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use larder_core::{Cache, Event, FixedGovernor, Gate, Governor, Key, Policy, PolicyPatch, Service};
use larder_http::{Limits, serve};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Longer than anything here takes on a loaded machine; who waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server on a free port.
struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<std::io::Result<()>>,
}

impl Server {
    async fn start(router: Router, limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async move {
            // An abandoned server ends too.
            let _ = stopped.await;
        };
        let ended = tokio::spawn(serve(listener, router, limits, shutdown));
        Self {
            address,
            stop,
            ended,
        }
    }
}

/// A cache of the service `shop`, its governor's policy, and what was reported to it.
struct Watched {
    cache: Cache,
    governor: Arc<Recorder>,
}

struct Recorder {
    fixed: FixedGovernor,
    events: Mutex<Vec<(String, Event)>>,
}

impl Governor for Recorder {
    fn gate(&self, key: &Key) -> Gate {
        self.fixed.gate(key)
    }

    fn policy(&self, key: &Key) -> Arc<Policy> {
        self.fixed.policy(key)
    }

    fn template(&self, _key: &Key) -> Option<Box<str>> {
        None
    }

    fn record(&self, key: &Key, event: Event) {
        let key = key.as_str().to_owned();
        self.events.lock().unwrap().push((key, event));
    }

    fn record_refresh(&self, _key: &Key, _load: Option<Duration>) {}
}

impl Watched {
    fn new(patch: PolicyPatch) -> Self {
        let policy = patch.apply(&Policy::default()).unwrap();
        let governor = Arc::new(Recorder {
            fixed: FixedGovernor::new(policy),
            events: Mutex::default(),
        });
        let cache = Cache::builder(Service::new("shop").unwrap())
            .governor(Arc::clone(&governor) as Arc<dyn Governor>)
            .build();
        Self { cache, governor }
    }

    fn events(&self) -> Vec<(String, Event)> {
        self.governor.events.lock().unwrap().clone()
    }

    async fn keys(&self) -> Vec<String> {
        let page = self.cache.store().scan(None, None, 100).await.unwrap();
        let keys = page.entries.iter();
        keys.map(|entry| entry.key.as_str().to_owned()).collect()
    }
}
