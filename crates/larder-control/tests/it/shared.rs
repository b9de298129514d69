//! A control plane that has the store which services share, and what lies in it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use larder::{Cache, Frames, Key, Policy, PolicyPatch, Store};
use larder_control::SharedStore;
use larder_testing::process::PATIENCE;

use crate::until;

/// A store, and the settings that name it.
#[derive(Clone)]
pub(crate) struct Shared {
    settings: larder::Settings,
    pub(crate) store: Arc<dyn Store>,
}

impl Shared {
    /// The embedded one in a folder, or the Redis of a URL. A machine that stands still is no reason to go without.
    pub(crate) fn open(folder: &Path, redis: Option<String>) -> Self {
        Self::open_within(folder, redis, PATIENCE)
    }

    /// The same, where an operation is given up after so long.
    pub(crate) fn open_within(folder: &Path, redis: Option<String>, deadline: Duration) -> Self {
        let folder = folder.display().to_string();
        let environment = move |name: &str| match name {
            "LARDER_DIR" => Some(folder.clone()),
            "REDIS_URL" => redis.clone(),
            _ => None,
        };
        let settings = larder::Settings::read(environment, Path::new("/nowhere")).unwrap();
        let store = larder::open_store_within(&settings, deadline).unwrap();
        Self { settings, store }
    }

    /// As a control plane has it.
    pub(crate) fn of_plane(&self) -> SharedStore {
        self.of_plane_if(Arc::new(AtomicBool::new(true)))
    }

    /// The same, over which a cache can be opened only while that is so.
    pub(crate) fn of_plane_if(&self, opens: Arc<AtomicBool>) -> SharedStore {
        let (this, id) = (self.clone(), larder::store_id(&self.settings));
        let open = move |service: &larder::Service| {
            if !opens.load(Ordering::SeqCst) {
                return Err("its folder is full".to_owned());
            }
            let cache = this.cache(service.as_str(), PolicyPatch::default());
            Ok(larder_core::Cache::clone(&cache))
        };
        SharedStore::new(Arc::clone(&self.store), id, Frames::new(None), open)
    }

    /// A service's cache over it.
    pub(crate) fn cache(&self, service: &str, policy: PolicyPatch) -> Cache {
        let builder = Cache::builder(service, self.settings.clone()).unwrap();
        let policy = policy.apply(&Policy::default()).unwrap();
        let builder = builder.default_policy(policy);
        builder.store(Arc::clone(&self.store)).build().unwrap()
    }

    /// Stores a value under each of these endpoints of `svc`: plain, or framed with these tags.
    pub(crate) async fn fill(&self, endpoints: &[&str], tags: &[&str]) {
        let tags = tags.iter().map(|tag| larder::Tag::new(tag).unwrap());
        let policy = PolicyPatch {
            tags: Some(tags.collect()),
            ..PolicyPatch::default()
        };
        let cache = self.cache("svc", policy);
        for endpoint in endpoints {
            // A store that has much else to do may not take it in time.
            until("it is stored", async || {
                let value = endpoint.len();
                let load = async move || Ok::<_, String>(value);
                cache.get_or_load(&key(endpoint), load).await.unwrap();
                self.has(endpoint).await
            })
            .await;
        }
    }

    /// Whether there is a value to be served.
    pub(crate) async fn has(&self, endpoint: &str) -> bool {
        let cache = self.cache("svc", PolicyPatch::default());
        cache.get::<usize>(&key(endpoint)).await.is_some()
    }
}

fn key(endpoint: &str) -> Key {
    Key::new("svc", endpoint).unwrap()
}
