//! In which form callers want values.

use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cache::{Inner, read_typed};
use crate::governor::Gate;
use crate::json::Json;
use crate::raw::Raw;
use crate::store::Ttl;

/// In which form a caller reads values.
pub(crate) trait Readable: 'static {
    /// What the caller gets.
    type Value: Clone + Send + Sync + 'static;
    /// How much a value takes beside its JSON, as a multiple of that, about.
    const DECODED: u8;
    /// Whether the whole syntax of the bytes was checked, as [`Json`] promises, once a value was read.
    const IS_CHECKED: bool = false;

    /// The value for those who read it again in this form; `None` where the bytes are as good.
    fn decoded(value: &Self::Value) -> Option<Arc<dyn Any + Send + Sync>> {
        (Self::DECODED > 0).then(|| Arc::new(value.clone()) as _)
    }

    /// The value of an entry.
    fn read(inner: &Inner, raw: Raw) -> Option<Self::Value>;

    /// How long a value may live; `None` if it is not stored.
    fn ttl(_value: &Self::Value, gate: Gate) -> Option<Ttl> {
        gate.ttl
    }

    /// The longest that any value of this form may live: what an entry is read with, before its value is known.
    fn longest(gate: Gate) -> Option<Ttl> {
        gate.ttl
    }
}

/// In which form a caller wants values that may have to be loaded: as its own type, as one that may be absent, or as JSON text.
pub(crate) trait Form: Readable {
    /// What the loader makes.
    type Made: Send + 'static;

    /// The value of what was loaded, and its JSON if it can be written so.
    fn finish(made: Self::Made) -> Result<(Self::Value, Option<Bytes>), Arc<str>>;
}

/// As it is: decoded by the caller, if at all.
pub(crate) struct Undecoded;

impl Readable for Undecoded {
    type Value = Raw;
    const DECODED: u8 = 0;

    fn read(_inner: &Inner, raw: Raw) -> Option<Raw> {
        Some(raw)
    }
}

pub(crate) struct Typed<T>(PhantomData<fn() -> T>);

impl<T> Form for Typed<T>
where
    T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
{
    type Made = T;

    fn finish(made: T) -> Result<(T, Option<Bytes>), Arc<str>> {
        let json = Json::of(&made).ok().map(Json::into_bytes);
        Ok((made, json))
    }
}

impl<T> Readable for Typed<T>
where
    T: DeserializeOwned + Clone + Send + Sync + 'static,
{
    type Value = T;
    const DECODED: u8 = 2;

    fn read(_inner: &Inner, raw: Raw) -> Option<T> {
        read_typed(raw)
    }
}

pub(crate) struct Optional<T>(PhantomData<fn() -> T>);

impl<T> Form for Optional<T>
where
    T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
{
    type Made = Option<T>;

    fn finish(made: Option<T>) -> Result<(Option<T>, Option<Bytes>), Arc<str>> {
        let json = Json::of(&made).ok().map(Json::into_bytes);
        Ok((made, json))
    }
}

impl<T> Readable for Optional<T>
where
    T: DeserializeOwned + Clone + Send + Sync + 'static,
{
    type Value = Option<T>;
    const DECODED: u8 = 2;

    fn read(_inner: &Inner, raw: Raw) -> Option<Option<T>> {
        read_typed(raw)
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

    fn finish(made: V) -> Result<(Json, Option<Bytes>), Arc<str>> {
        let json = Json::of(&made).map_err(|error| Arc::from(error.to_string()))?;
        let bytes = json.as_bytes().clone();
        Ok((json, Some(bytes)))
    }
}

impl<V: 'static> Readable for Text<V> {
    type Value = Json;
    const DECODED: u8 = 0;
    const IS_CHECKED: bool = true;

    fn read(inner: &Inner, raw: Raw) -> Option<Json> {
        inner.read_json(raw)
    }
}
