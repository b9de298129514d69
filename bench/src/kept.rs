//! A client of a control plane that is away: it goes by the policies that were kept.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use larder_client::{Client, ClientSettings};
use larder_core::{Policy, Service};
use rustix::fs::Mode;
use serde_json::{Value, json};

/// As the keys of `larder_bench_load` have it.
pub(crate) const SERVICE: &str = "bench";

/// Keeps policies in a folder as a client does that got them: that of `/products/{id}`, whose answers are cached for an hour,
/// and so many others.
pub(crate) fn keep(folder: &Path, others: usize, is_watched: bool) -> anyhow::Result<()> {
    let mut policies = vec![policy("/products/{id}", is_watched)];
    policies.extend((0..others).map(|other| policy(&format!("/other{other}/{{id}}/x"), false)));
    let kept = json!({
        "etag": "\"bench-1\"",
        "config": {"service_name": SERVICE, "version": 1, "policies": policies},
    });
    // Else what lies in it is not believed.
    rustix::fs::chmod(folder, Mode::RWXU)?;
    let folder = folder.join("policies");
    std::fs::create_dir(&folder)?;
    rustix::fs::chmod(&folder, Mode::RWXU)?;
    let file = folder.join(format!("{SERVICE}.json"));
    std::fs::write(&file, kept.to_string())?;
    Ok(rustix::fs::chmod(&file, Mode::RUSR | Mode::WUSR)?)
}

fn policy(endpoint: &str, is_watched: bool) -> Value {
    let watch = is_watched.then(|| json!({"key_share": 1.0, "check_share": 0.0}));
    json!({
        "service_name": SERVICE, "endpoint": endpoint, "method": "GET", "cache_enabled": true, "mode": "on",
        "ttl_seconds": 3_600, "watch": watch, "jitter": 0.0, "negative_ttl_seconds": 0, "load_timeout_seconds": 30,
        "max_value_bytes": 1 << 20, "include_query": null, "vary": [], "circuit_breaker": false,
        "reason": "it was said so", "source": "policy", "version": 1,
    })
}

/// A client with what is kept in a folder. Inside a runtime.
pub(crate) fn client(folder: &Path, scheme: &str) -> anyhow::Result<Arc<Client>> {
    let settings = ClientSettings {
        // Nobody listens there.
        url: format!("{scheme}://127.0.0.1:9"),
        key: None,
        authorities: None,
        service: Service::new(SERVICE)?,
        state_dir: Some(folder.to_owned()),
        defaults: Policy::default(),
        store_id: 0,
    };
    let client = Client::start(settings)?;
    let version = client.status().version;
    version.context("what was kept is not in force")?;
    Ok(client)
}
