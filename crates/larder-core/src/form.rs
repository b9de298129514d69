//! In which form callers want values.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use larder_model::{Key, Policy};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cache::{Inner, read_typed};
use crate::json::Json;
use crate::store::Stored;

/// In which form a caller wants values: as its own type, as one that may be absent, or as JSON text.
pub(crate) trait Form: 'static {
    /// What the loader makes.
    type Made: Send + 'static;
    /// What the caller gets.
    type Value: Clone + Send + Sync + 'static;

    /// The value of what was loaded, and its JSON if it can be written so.
    fn finish(made: Self::Made) -> Result<(Self::Value, Option<Bytes>), Arc<str>>;

    /// The value of an entry.
    fn read(inner: &Inner, key: &Key, stored: Stored) -> Option<Self::Value>;

    /// How long a value is fresh.
    fn ttl(_value: &Self::Value, policy: &Policy) -> Duration {
        policy.ttl()
    }
}

pub(crate) struct Typed<T>(PhantomData<fn() -> T>);

impl<T> Form for Typed<T>
where
    T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
{
    type Made = T;
    type Value = T;

    fn finish(made: T) -> Result<(T, Option<Bytes>), Arc<str>> {
        let json = Json::of(&made).ok().map(Json::into_bytes);
        Ok((made, json))
    }

    fn read(_inner: &Inner, _key: &Key, stored: Stored) -> Option<T> {
        read_typed(stored)
    }
}

pub(crate) struct Optional<T>(PhantomData<fn() -> T>);

impl<T> Form for Optional<T>
where
    T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
{
    type Made = Option<T>;
    type Value = Option<T>;

    fn finish(made: Option<T>) -> Result<(Option<T>, Option<Bytes>), Arc<str>> {
        let json = Json::of(&made).ok().map(Json::into_bytes);
        Ok((made, json))
    }

    fn read(_inner: &Inner, _key: &Key, stored: Stored) -> Option<Option<T>> {
        read_typed(stored)
    }

    fn ttl(value: &Option<T>, policy: &Policy) -> Duration {
        match value {
            Some(_) => policy.ttl(),
            None => policy.negative_ttl(),
        }
    }
}

pub(crate) struct Text<V>(PhantomData<fn() -> V>);

impl<V: Serialize + Send + 'static> Form for Text<V> {
    type Made = V;
    type Value = Json;

    fn finish(made: V) -> Result<(Json, Option<Bytes>), Arc<str>> {
        let json = Json::of(&made).map_err(|error| Arc::from(error.to_string()))?;
        let bytes = json.as_bytes().clone();
        Ok((json, Some(bytes)))
    }

    fn read(inner: &Inner, key: &Key, stored: Stored) -> Option<Json> {
        inner.read_json(key, stored)
    }
}
