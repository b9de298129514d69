//! A hit in the process, expiry and counting included.

use std::time::Duration;

use larder_bench_load::{
    Error, Key, Prepared, Round, Scene, grown, keys, on_threads, requests, serve as answer, value,
};
use larder_core::{Cache, Json};

use super::watched;

const TTL: Duration = Duration::from_secs(3_600);
/// More than an entry takes beside its value, in bytes.
const OVERHEAD: u64 = 512;

pub(crate) fn serve(scene: Vec<String>) -> Result<(), Error> {
    answer(scene, |scene| match &*scene.form {
        "watched" | "counted" => watched::prepare(scene),
        _ => prepare(scene),
    })
}

fn prepare(scene: &Scene) -> Result<Prepared<Round>, Error> {
    let all = keys(scene.keys)?;
    let requests = requests(scene.keys, scene.operations);
    let (cache, grown_bytes) = grown(|| filled(&all, scene))?;
    let threads = scene.workers;
    let round = move || {
        Ok(on_threads(threads, &requests, |part| {
            look_up(&cache, &all, part);
        }))
    };
    Ok(Prepared {
        grown_bytes,
        round: Box::new(round),
    })
}

fn filled(keys: &[Key], scene: &Scene) -> Result<Cache, Error> {
    let bytes = scene.keys as u64 * (scene.value_bytes as u64 + OVERHEAD);
    let cache = Cache::in_process(bytes.max(1 << 30));
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        for key in keys {
            let json = Json::parse(value(key, scene.value_bytes))?;
            let written = cache.set_json(key, json, TTL).await;
            if !written.is_stored() {
                return Err(written.to_string().into());
            }
        }
        Ok(cache)
    })
}

fn look_up(cache: &Cache, keys: &[Key], requests: &[u32]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let Ok(runtime) = runtime else { return };
    runtime.block_on(async {
        for request in requests {
            let found = cache.get_json(&keys[*request as usize]).await;
            assert!(std::hint::black_box(found).is_some());
        }
    });
}
