//! Framed entries in Redis, with a tag: `form=framed` looks them up without an L1, `form=near` in the L1.

use std::sync::Arc;
use std::time::Duration;

use larder_bench_load::{
    Error, Key, Prepared, Round, Scene, Tasks, keys, on_threads, requests, value,
};
use larder_core::{
    Cache, FixedGovernor, Frame, Frames, Policy, PolicyPatch, Service, Store, Tag, Ttl,
};
use larder_redis::Options;

use super::embedded::look_up;
use super::redis::{connect_inside, fill_with, options};

/// What entries live: what a frame says of its life must be so.
const TTL: Duration = Duration::from_secs(3_600);
/// Larger than what is looked up.
const L1_BYTES: u64 = 1 << 30;

pub(crate) fn cache(store: Arc<dyn Store>, l1_bytes: u64) -> Result<Cache, Error> {
    let patch = PolicyPatch {
        ttl_seconds: Some(TTL.as_secs_f64()),
        jitter: Some(0.0),
        tags: Some(vec![Tag::new("tag")?]),
        ..PolicyPatch::default()
    };
    let policy = patch.apply(&Policy::default())?;
    let cache = Cache::builder(Service::new("bench")?)
        .store(store)
        .l1_bytes(l1_bytes)
        .frames(frames())
        .governor(Arc::new(FixedGovernor::new(policy)));
    Ok(cache.build())
}

/// Nothing is packed: what is measured is the form.
fn frames() -> Frames {
    Frames::new(None).packed_from(usize::MAX)
}

/// Loads all of these, each with a value of its own.
async fn load(cache: &Cache, keys: &[Key], value_bytes: usize) -> Result<(), Error> {
    for key in keys {
        let text: String = serde_json::from_slice(&value(key, value_bytes))?;
        let loader = || async move { Ok::<_, std::convert::Infallible>(text) };
        let loaded = cache.get_or_load(key, loader).await;
        loaded.map_err(|error| format!("{key} can't be loaded: {error:?}"))?;
    }
    Ok(())
}

/// Fills the store of a cache with framed entries: as the first is, which is loaded, each with a value of its own.
pub(crate) async fn fill(cache: &Cache, keys: &[Key], value_bytes: usize) -> Result<(), Error> {
    const MOST: u64 = 1 << 20;
    let first = keys.first().ok_or("there are no keys")?;
    load(cache, std::slice::from_ref(first), value_bytes).await?;
    let stored = cache.store().get(first, Ttl::MAX).await?;
    let stored = stored.ok_or("the first was not stored")?;
    let frame = frames().decode(first, &stored.bytes, MOST);
    let frame = frame.map_err(|error| format!("the first is not framed: {error}"))?;
    let frame_of = |key: &Key| {
        let payload = value(key, value_bytes);
        let frame = Frame {
            payload,
            ..frame.clone()
        };
        frames().encode(key, &frame, MOST).unwrap_or_default()
    };
    let ttl = Ttl::new(TTL).ok_or("a life")?;
    fill_with(&**cache.store(), keys, ttl, frame_of).await
}

/// A cache over Redis whose entries are there, without an L1.
fn filled(tasks: &Tasks, scene: &Scene) -> Result<Cache, Error> {
    let cache = {
        let _inside = tasks.runtime.enter();
        let options = Options {
            notes_entries: false,
            ..options()
        };
        cache(Arc::new(connect_inside(scene, options)?), 0)?
    };
    let filling = fill(&cache, &tasks.keys, scene.value_bytes);
    tasks.runtime.block_on(filling)?;
    Ok(cache)
}

pub(super) fn hits(scene: &Scene) -> Result<Prepared<Round>, Error> {
    let tasks = Tasks::of(scene)?;
    let cache = filled(&tasks, scene)?;
    let round = move || {
        let cache = cache.clone();
        tasks.round(move |_, key| {
            let cache = cache.clone();
            async move { cache.get_json(&key).await.is_some() }
        })
    };
    Ok(Prepared {
        grown_bytes: 0,
        round: Box::new(round),
    })
}

pub(super) fn near_hits(scene: &Scene) -> Result<Prepared<Round>, Error> {
    let runtime = super::runtime()?;
    let cache = {
        let _inside = runtime.enter();
        cache(Arc::new(connect_inside(scene, options())?), L1_BYTES)?
    };
    let all = keys(scene.keys)?;
    runtime.block_on(load(&cache, &all, scene.value_bytes))?;
    let requests = requests(scene.keys, scene.operations);
    let threads = scene.workers;
    let round = move || {
        let before = cache.counts();
        let nanos = on_threads(threads, &requests, |part| {
            runtime.block_on(look_up(&cache, &all, part));
        });
        let counts = cache.counts();
        let near = counts.hits_near - before.hits_near;
        let far = counts.hits - before.hits - near;
        // Each is read at first, and anew after 10 s.
        if far > 2 * all.len() as u64 {
            return Err(format!("the L1 answered {near} hits, and the store {far}").into());
        }
        Ok(nanos)
    };
    Ok(Prepared {
        grown_bytes: 0,
        round: Box::new(round),
    })
}
