//! `quick_cache` as it comes, bounded in bytes. It has no expiry.

use bytes::Bytes;
use larder_bench_load::{Error, Key, Prepared, grown, keys, on_threads, requests, serve, value};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

#[derive(Clone)]
struct ByBytes;

impl Weighter<Key, Bytes> for ByBytes {
    fn weight(&self, key: &Key, value: &Bytes) -> u64 {
        (key.as_str().len() + value.len()) as u64
    }
}

fn main() -> Result<(), Error> {
    serve(std::env::args().skip(1), |scene| {
        let all = keys(scene.keys)?;
        let requests = requests(scene.keys, scene.operations);
        let (cache, grown_bytes) = grown(|| {
            let cache = Cache::with_weighter(scene.keys, 8 << 30, ByBytes);
            for key in &all {
                cache.insert(key.clone(), value(key, scene.value_bytes));
            }
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
