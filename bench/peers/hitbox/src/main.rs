//! hitbox: an async function whose results moka keeps, in the format that its documentation calls fast.

use std::time::Duration;

use hitbox::policy::PolicyConfig;
use hitbox_backend::format::BincodeFormat;
use hitbox_derive::cached;
use hitbox_fn::Cache;
use hitbox_moka::MokaBackend;
use larder_bench_load::{Error, Prepared, grown, key, on_threads, requests, serve, value};

#[cached(skip(value_bytes))]
async fn product(index: u64, value_bytes: usize) -> String {
    let value = key(index as usize).map(|key| value(&key, value_bytes));
    String::from_utf8_lossy(&value.unwrap_or_default()).into_owned()
}

fn main() -> Result<(), Error> {
    serve(std::env::args().skip(1), |scene| {
        let requests = requests(scene.keys, scene.operations);
        let value_bytes = scene.value_bytes;
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let (cache, grown_bytes) = grown(|| {
            let backend = MokaBackend::builder()
                .max_bytes(8 << 30)
                .value_format(BincodeFormat)
                .build();
            let policy = PolicyConfig::builder().ttl(Duration::from_secs(3_600));
            let cache = Cache::builder()
                .backend(backend)
                .policy(policy.build())
                .build();
            runtime.block_on(async {
                for index in 0..scene.keys as u64 {
                    product(index, value_bytes).cache(&cache).await;
                }
            });
            Ok(cache)
        })?;
        let threads = scene.workers;
        let round = move || {
            Ok(on_threads(threads, &requests, |part| {
                let runtime = tokio::runtime::Builder::new_current_thread().build();
                let Ok(runtime) = runtime else { return };
                runtime.block_on(async {
                    for request in part {
                        let found = product(u64::from(*request), value_bytes);
                        std::hint::black_box(found.cache(&cache).await);
                    }
                });
            }))
        };
        Ok(Prepared { grown_bytes, round })
    })
}
