//! Hits in the process by the policies of a control plane: `form=watched`, where the keys that are asked for are recorded,
//! and `form=counted`, where they are not.

use std::convert::Infallible;
use std::sync::Arc;

use larder_bench_load::{Error, Key, Prepared, Round, Scene, keys, on_threads, requests};
use larder_core::{Cache, InProcess, Service};

use crate::kept;

/// Larger than what is looked up.
const BYTES: u64 = 1 << 30;

pub(super) fn prepare(scene: &Scene) -> Result<Prepared<Round>, Error> {
    let folder = tempfile::tempdir()?;
    kept::keep(folder.path(), 4, scene.form == "watched")?;
    // Its tasks report, in vain.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let client = {
        let _inside = runtime.enter();
        kept::client(folder.path(), "http")?
    };
    let cache = Cache::builder(Service::new(kept::SERVICE)?)
        .store(Arc::new(InProcess::new(BYTES)))
        .governor(client)
        .build();
    let all = keys(scene.keys)?;
    let bytes = scene.value_bytes;
    look_up(&cache, &all, 0..scene.keys as u32, bytes)?;
    let requests = requests(scene.keys, scene.operations);
    let threads = scene.workers;
    let round = move || {
        let (_runtime, _folder) = (&runtime, &folder);
        let before = cache.counts().loads;
        let nanos = on_threads(threads, &requests, |part| {
            let found = look_up(&cache, &all, part.iter().copied(), bytes);
            assert!(found.is_ok(), "a lookup fails");
        });
        match cache.counts().loads - before {
            0 => Ok(nanos),
            loads => Err(format!("{loads} lookups were no hits").into()),
        }
    };
    Ok(Prepared {
        grown_bytes: 0,
        round: Box::new(round),
    })
}

fn look_up(
    cache: &Cache,
    keys: &[Key],
    requests: impl Iterator<Item = u32>,
    bytes: usize,
) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        for request in requests {
            let key = &keys[request as usize];
            let loader = move || async move { Ok::<_, Infallible>("x".repeat(bytes)) };
            std::hint::black_box(cache.get_or_load_json(key, loader).await?);
        }
        Ok(())
    })
}
