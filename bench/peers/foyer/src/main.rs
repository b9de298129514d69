//! `foyer`'s cache in memory, with S3-FIFO, bounded in bytes. It has no expiry.

use bytes::Bytes;
use foyer::{Cache, CacheBuilder, S3FifoConfig};
use larder_bench_load::{Error, Key, Prepared, grown, keys, on_threads, requests, serve, value};

fn main() -> Result<(), Error> {
    serve(std::env::args().skip(1), |scene| {
        let all = keys(scene.keys)?;
        let requests = requests(scene.keys, scene.operations);
        let (cache, grown_bytes) = grown(|| {
            let cache: Cache<Key, Bytes> = CacheBuilder::new(8 << 30)
                .with_shards(8)
                .with_eviction_config(S3FifoConfig::default())
                .with_weighter(|key: &Key, value: &Bytes| key.as_str().len() + value.len())
                .build();
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
