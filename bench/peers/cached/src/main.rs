//! `cached`'s sharded store with a time to live and a bound in entries (it has none in bytes).

use std::time::Duration;

use bytes::Bytes;
use cached::ShardedLruTtlCache;
use larder_bench_load::{Error, Key, Prepared, grown, keys, on_threads, requests, serve, value};

fn main() -> Result<(), Error> {
    serve(std::env::args().skip(1), |scene| {
        let all = keys(scene.keys)?;
        let requests = requests(scene.keys, scene.operations);
        let (cache, grown_bytes) = grown(|| {
            // A shard that is fuller than the next evicts: room for twice as many.
            let cache = ShardedLruTtlCache::<Key, Bytes>::builder()
                .max_size(scene.keys * 2)
                .ttl(Duration::from_secs(3_600))
                .build()?;
            for key in &all {
                cache.set(key.clone(), value(key, scene.value_bytes));
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
