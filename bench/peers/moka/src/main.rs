//! `moka::sync` with a time to live and a bound in bytes.

use std::time::Duration;

use bytes::Bytes;
use larder_bench_load::{Error, Key, Prepared, grown, keys, on_threads, requests, serve, value};

fn main() -> Result<(), Error> {
    serve(std::env::args().skip(1), |scene| {
        let all = keys(scene.keys)?;
        let requests = requests(scene.keys, scene.operations);
        let (cache, grown_bytes) = grown(|| {
            let cache = moka::sync::Cache::builder()
                .max_capacity(8 << 30)
                .weigher(|key: &Key, value: &Bytes| (key.as_str().len() + value.len()) as u32)
                .time_to_live(Duration::from_secs(3_600))
                .build();
            for key in &all {
                cache.insert(key.clone(), value(key, scene.value_bytes));
            }
            cache.run_pending_tasks();
            Ok(cache)
        })?;
        let threads = scene.workers;
        let round = move || {
            Ok(on_threads(threads, &requests, |part| {
                for request in part {
                    let found = cache.get(&all[*request as usize]);
                    assert!(std::hint::black_box(found).is_some());
                }
            }))
        };
        Ok(Prepared { grown_bytes, round })
    })
}
