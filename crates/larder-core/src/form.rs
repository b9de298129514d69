//! In which form callers want values.

use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cache::{Inner, read_typed};
use crate::governor::Gate;
use crate::json::Json;
use crate::store::{Stored, Ttl};

/// In which form a caller wants values: as its own type, as one that may be absent, or as JSON text.
pub(crate) trait Form: 'static {
    /// What the loader makes.
    type Made: Send + 'static;
    /// What the caller gets.
    type Value: Clone + Send + Sync + 'static;

    /// The value of what was loaded, and its JSON if it can be written so.
    fn finish(made: Self::Made) -> Result<(Self::Value, Option<Bytes>), Arc<str>>;

    /// The value of an entry.
    fn read(inner: &Inner, stored: Stored) -> Option<Self::Value>;

    /// How long a value may live; `None` if it is not stored.
    fn ttl(_value: &Self::Value, gate: Gate) -> Option<Ttl> {
        gate.ttl
    }

    /// The longest that any value of this form may live: what an entry is read with, before its value is known.
    fn longest(gate: Gate) -> Option<Ttl> {
        gate.ttl
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

    fn read(_inner: &Inner, stored: Stored) -> Option<T> {
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

    fn read(_inner: &Inner, stored: Stored) -> Option<Option<T>> {
        read_typed(stored)
    }

    fn ttl(value: &Option<T>, gate: Gate) -> Option<Ttl> {
        match value {
            Some(_) => gate.ttl,
            None => gate.negative_ttl,
        }
    }

    fn longest(gate: Gate) -> Option<Ttl> {
        gate.ttl.max(gate.negative_ttl)
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

    fn read(inner: &Inner, stored: Stored) -> Option<Json> {
        inner.read_json(stored)
    }
}
