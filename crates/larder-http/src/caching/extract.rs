//! What a handler knows of its request.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;
use larder_core::{Answer, Cache, Json, Key, LoadError, Outcome, Policy, Reason};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Problem;

/// Whether the answer to a request may come from the cache, and why; and the lookups that go by it. An extractor for
/// handlers with a [`CachingLayer`](crate::CachingLayer) around them.
///
/// A handler that keeps entries by hand asks it first:
///
/// ```
/// use axum::extract::State;
/// use larder_core::Cache;
/// use larder_http::Caching;
///
/// async fn list(State(cache): State<Cache>, caching: Caching) -> String {
///     let Some(key) = caching.key.as_ref().filter(|_| caching.should_cache()) else {
///         return slow_query().await; // caching.reason says why
///     };
///     if let Some(list) = cache.get(key).await {
///         return list;
///     }
///     let list = slow_query().await;
///     let written = cache.set(key, &list, caching.policy.ttl()).await;
///     println!("{written}");
///     list
/// }
/// # async fn slow_query() -> String { String::new() }
/// ```
#[derive(Clone)]
pub struct Caching {
    /// Why the answer may come from the cache, or may not.
    pub reason: Reason,
    /// The policy in force.
    pub policy: Arc<Policy>,
    /// Where the answer lies; also while the policy is off. `None` if it may not be cached whatever the policy says.
    pub key: Option<Key>,
    pub(super) cache: Cache,
}

impl Caching {
    /// Whether the answer may come from the cache, and be kept there.
    #[must_use]
    pub fn should_cache(&self) -> bool {
        self.reason == Reason::PolicyOn
    }

    /// [`Cache::get_or_load`] under the request's key; without one, the loader is called for this request alone.
    ///
    /// # Errors
    /// As [`Cache::get_or_load`].
    pub async fn get_or_load<T, E, F, L>(&self, loader: F) -> Result<Answer<T>, LoadError<E>>
    where
        T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
        E: Send + Sync + 'static,
        F: FnOnce() -> L + Send + 'static,
        L: Future<Output = Result<T, E>> + Send + 'static,
    {
        match &self.key {
            Some(key) => self.cache.get_or_load(key, loader).await,
            None => Box::pin(self.load_alone(loader)).await,
        }
    }

    /// [`Cache::get_or_load_optional`] under the request's key; without one, the loader is called for this request
    /// alone.
    ///
    /// # Errors
    /// As [`Cache::get_or_load`].
    pub async fn get_or_load_optional<T, E, F, L>(
        &self,
        loader: F,
    ) -> Result<Answer<Option<T>>, LoadError<E>>
    where
        T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
        E: Send + Sync + 'static,
        F: FnOnce() -> L + Send + 'static,
        L: Future<Output = Result<Option<T>, E>> + Send + 'static,
    {
        match &self.key {
            Some(key) => self.cache.get_or_load_optional(key, loader).await,
            None => Box::pin(self.load_alone(loader)).await,
        }
    }

    /// [`Cache::get_or_load_json`] under the request's key; without one, the loader is called for this request alone.
    ///
    /// # Errors
    /// As [`Cache::get_or_load_json`].
    pub async fn get_or_load_json<V, E, F, L>(
        &self,
        loader: F,
    ) -> Result<Answer<Json>, LoadError<E>>
    where
        V: Serialize + Send + 'static,
        E: Send + Sync + 'static,
        F: FnOnce() -> L + Send + 'static,
        L: Future<Output = Result<V, E>> + Send + 'static,
    {
        if let Some(key) = &self.key {
            return self.cache.get_or_load_json(key, loader).await;
        }
        let Answer { value, outcome } = Box::pin(self.load_alone(loader)).await?;
        match Json::of(&value) {
            Ok(value) => Ok(Answer { value, outcome }),
            Err(error) => Err(LoadError::NotJson(error.to_string().into())),
        }
    }

    /// Boxed where it is called: a hit has no use for it.
    async fn load_alone<T, E, L>(
        &self,
        loader: impl FnOnce() -> L,
    ) -> Result<Answer<T>, LoadError<E>>
    where
        L: Future<Output = Result<T, E>>,
    {
        let loaded = tokio::time::timeout(self.policy.load_timeout(), loader()).await;
        let value = loaded
            .map_err(|_| LoadError::TimedOut)?
            .map_err(|error| LoadError::Loader(Arc::new(error)))?;
        Ok(Answer {
            value,
            outcome: Outcome::Bypass,
        })
    }
}

impl<S: Sync> FromRequestParts<S> for Caching {
    type Rejection = NoCachingLayer;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, NoCachingLayer> {
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or(NoCachingLayer)
    }
}

/// A handler asks for [`Caching`], but its route has no [`CachingLayer`](crate::CachingLayer).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this route has no CachingLayer: add .layer(CachingLayer::new(&cache)) to it")]
pub struct NoCachingLayer;

impl IntoResponse for NoCachingLayer {
    fn into_response(self) -> Response {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR)
            .detail(self.to_string())
            .into_response()
    }
}
