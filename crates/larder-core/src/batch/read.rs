//! The read of a lookup of many keys: each within the life that its own policy allows.

use std::collections::BTreeMap;

use larder_model::Key;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cache::{Inner, read_typed};
use crate::flight::Seen;
use crate::form::{Form, Optional};
use crate::governor::Gate;
use crate::load::outlives;
use crate::store::{Stored, Ttl};

/// A key that the store is asked for.
pub(super) struct Asked {
    pub(super) key: Key,
    pub(super) gate: Gate,
    pub(super) seen: Seen,
}

/// `Inner::find` of many, in their order.
pub(super) async fn find_each<T>(inner: &Inner, asked: &[Asked]) -> Vec<Option<(Option<T>, u64)>>
where
    T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
{
    let longest = |one: &Asked| Optional::<T>::longest(one.gate);
    let lives: Vec<_> = asked.iter().map(|one| (&one.key, longest(one))).collect();
    let stored = read_each(inner, &lives).await;
    let mut cuts = Vec::new();
    let found = asked
        .iter()
        .zip(stored)
        .map(|(one, stored)| {
            let stored = stored?;
            let left = stored.ttl;
            let (value, bytes) = inner.decode(Some(stored), read_typed::<Option<T>>)?;
            let ttl = Optional::<T>::ttl(&value, one.gate)?;
            if outlives(left, longest(one)?, ttl) {
                cuts.push((&one.key, Some(ttl)));
            }
            Some((value, bytes))
        })
        .collect();
    // A read cuts.
    read_each(inner, &cuts).await;
    found
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
