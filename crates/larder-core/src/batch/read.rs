//! The read of a lookup of many keys: each within the life that its own policy allows.

use std::collections::BTreeMap;

use larder_model::Key;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cache::Inner;
use crate::counters::Count;
use crate::form::{Optional, Readable};
use crate::governor::Gate;
use crate::read::{Look, Near, Read};
use crate::store::{Stored, Ttl};

/// A key that is asked for.
pub(super) struct Asked {
    pub(super) key: Key,
    pub(super) gate: Gate,
}

/// Where a value was found, if it was.
pub(super) enum Sight<V> {
    Near(Near<V>),
    Far(Look<V>),
}

/// What of many keys may be served, in their order.
pub(super) async fn look_each<T>(inner: &Inner, asked: &[Asked]) -> Vec<Sight<Option<T>>>
where
    T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
{
    let mut looks = Vec::with_capacity(asked.len());
    let mut lives = Vec::with_capacity(asked.len());
    for one in asked {
        let near = inner.near::<Optional<T>>(&one.key, one.gate);
        let is_asked = near.is_none() && Optional::<T>::longest(one.gate).is_some();
        lives.push((&one.key, is_asked.then_some(Ttl::MAX)));
        looks.push(match near {
            Some(near) => {
                inner.counters.add(Count::HitsNear);
                Sight::Near(near)
            }
            None => Sight::Far(Look::Nothing),
        });
    }
    let when = inner.asked();
    let stored = read_each(inner, &lives).await;
    let mut cuts = Vec::new();
    for ((one, stored), look) in asked.iter().zip(stored).zip(&mut looks) {
        if let Some(stored) = stored {
            let judged =
                inner.judge_uncut::<Optional<T>>(&one.key, one.gate, Read::first(stored, when));
            let (judged, cut) = judged.await;
            *look = Sight::Far(judged);
            cuts.push((&one.key, cut));
        }
    }
    // A read cuts.
    read_each(inner, &cuts).await;
    looks
}

/// Reads each key with the longest life that its entry may have, if it may have one: those with the same by one read.
async fn read_each(inner: &Inner, keys: &[(&Key, Option<Ttl>)]) -> Vec<Option<Stored>> {
    let mut groups: BTreeMap<Ttl, (Vec<usize>, Vec<Key>)> = BTreeMap::new();
    for (index, (key, longest)) in keys.iter().enumerate() {
        if let Some(longest) = longest {
            let (indices, group) = groups.entry(*longest).or_default();
            indices.push(index);
            group.push(Key::clone(key));
        }
    }
    let reads = groups
        .iter()
        .map(|(longest, (_, group))| inner.read_many(group, *longest));
    let read = futures_util::future::join_all(reads).await;
    let mut stored = vec![None; keys.len()];
    for ((indices, _), read) in groups.values().zip(read) {
        for (index, read) in indices.iter().zip(read) {
            stored[*index] = read;
        }
    }
    stored
}
