//! The layer around a route's handler.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::extract::{OriginalUri, Request};
use axum::response::Response;
use http::{StatusCode, Uri};
use http_body::Body as _;
use larder_core::{Cache, Event, Key, KeySecret, Outcome, RequestScope, Variant};
use pin_project_lite::pin_project;
use tokio::task::futures::TaskLocalFuture;
use tower::{Layer, Service};

use super::extract::Caching;
use super::judge::judge;

/// Gives a route's handler the extractor [`Caching`], and reports every request once: what the cache did, how long
/// the answer took, whether it failed.
///
/// ```
/// use axum::{Json, Router, extract::State, routing::get};
/// use larder_core::Cache;
/// use larder_http::{Caching, CachingLayer, Problem};
///
/// async fn slow_query() -> Result<Vec<String>, std::io::Error> {
///     Ok(vec!["Laptop".into()])
/// }
///
/// async fn list(caching: Caching) -> Result<Json<Vec<String>>, Problem> {
///     let answer = caching.get_or_load(slow_query).await;
///     let answer = answer.map_err(|_| Problem::new(http::StatusCode::BAD_GATEWAY))?;
///     Ok(Json(answer.value))
/// }
///
/// let cache = Cache::in_process(64 << 20);
/// let router: Router = Router::new().route("/products", get(list).layer(CachingLayer::new(&cache)));
/// ```
///
/// What is never cached, whatever the policy says: anything but a GET without a body; a request that carries
/// `Authorization` or `Cookie`, unless the route is declared [`public`](CachingLayer::public) or names that header in
/// [`vary`](CachingLayer::vary).
///
/// The parameters of a query that the policy leaves out of the key (`include_query`) are taken out of the request
/// before the handler sees it, so that no answer depends on what its key doesn't name. Headers are not taken out:
/// what an answer depends on beside path and query, name in `vary`.
#[derive(Clone)]
pub struct CachingLayer {
    route: Route,
}

/// What is known of a route.
#[derive(Clone)]
pub(super) struct Route {
    pub(super) cache: Cache,
    pub(super) is_public: bool,
    /// Names of headers, in lower case.
    pub(super) vary: Vec<String>,
    pub(super) key_secret: Option<KeySecret>,
}

/// Why a route can't vary by a header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VaryError {
    /// The header holds an identity, which must not be readable in a key.
    #[error(
        "the header {0:?} holds an identity, which a key may only have as a keyed hash: set LARDER_KEY_SECRET and give the route its secret (key_secret) before vary"
    )]
    NeedsKeySecret(String),
    /// The name is no header's, or is one that Larder uses itself (`method`, `body`).
    #[error("{0:?} can't be a header to vary by: use a name such as accept-language")]
    Name(String),
}

impl CachingLayer {
    /// A route of the service that the cache is of.
    #[must_use]
    pub fn new(cache: &Cache) -> Self {
        Self {
            route: Route {
                cache: cache.clone(),
                is_public: false,
                vary: Vec::new(),
                key_secret: None,
            },
        }
    }

    /// Declares that the answer is the same for all, so that requests with `Authorization` or `Cookie` may share it.
    /// The handler must not look at either to make its answer.
    #[must_use]
    pub fn public(mut self) -> Self {
        self.route.is_public = true;
        self
    }

    /// The secret with which identities are hidden in keys (`LARDER_KEY_SECRET`).
    #[must_use]
    pub fn key_secret(mut self, secret: KeySecret) -> Self {
        self.route.key_secret = Some(secret);
        self
    }

    /// Names the request headers that the answer depends on, besides those that the policy names.
    ///
    /// # Errors
    /// [`VaryError::NeedsKeySecret`] for a header that holds an identity, if there is no
    /// [`key_secret`](CachingLayer::key_secret) to hide it; [`VaryError::Name`] for what can't be a header's name.
    pub fn vary<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Result<Self, VaryError> {
        for name in names {
            let header = http::HeaderName::try_from(name)
                .map_err(|_| VaryError::Name(name.chars().take(80).collect()))?;
            let name = header.as_str();
            // A token, and so a header's name in form, but in Vary it means that no two answers are the same.
            if name == "*" || Variant::none().with(name, "").is_err() {
                return Err(VaryError::Name(name.to_owned()));
            }
            if holds_identity(name) && self.route.key_secret.is_none() {
                return Err(VaryError::NeedsKeySecret(name.to_owned()));
            }
            self.route.vary.push(name.to_owned());
        }
        Ok(self)
    }
}

/// Whether a header's value tells who asks, or lets one ask in another's name. Told by words that such names have,
/// since services make up their own (`X-Api-Key`, `X-User-Id`).
pub(super) fn holds_identity(name: &str) -> bool {
    const WORDS: [&str; 9] = [
        "auth", "cookie", "token", "session", "key", "secret", "user", "jwt", "identity",
    ];
    name != "user-agent" && WORDS.iter().any(|word| name.contains(word))
}

impl<S> Layer<S> for CachingLayer {
    type Service = CachingService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CachingService {
            route: Arc::new(self.route.clone()),
            inner,
        }
    }
}

/// A handler with a [`CachingLayer`] around it.
#[derive(Clone)]
pub struct CachingService<S> {
    route: Arc<Route>,
    inner: S,
}

impl<S> Service<Request> for CachingService<S>
where
    S: Service<Request, Response = Response>,
{
    type Response = Response;
    type Error = S::Error;
    type Future = CachingFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let begin = Instant::now();
        let verdict = judge(&self.route, &request);
        if let Some(kept) = &verdict.kept_query {
            withhold(&mut request, kept);
        }
        let key = verdict.key.clone();
        let headers = request.headers();
        let has_identity = headers.contains_key(http::header::AUTHORIZATION)
            || headers.contains_key(http::header::COOKIE)
            || verdict
                .policy
                .vary()
                .iter()
                .any(|name| holds_identity(name));
        request.extensions_mut().insert(Caching {
            reason: verdict.reason,
            policy: verdict.policy,
            key: verdict.key,
            // What runs on behind an answer carries nobody's identity.
            cache: match has_identity {
                true => self.route.cache.in_foreground(),
                false => self.route.cache.clone(),
            },
        });
        CachingFuture {
            answer: RequestScope::around(key, self.inner.call(request)),
            route: Arc::clone(&self.route),
            about: verdict.about,
            begin,
        }
    }
}

pin_project! {
    /// What a [`CachingService`] answers. In no box: a hit would pay for that.
    pub struct CachingFuture<F> {
        #[pin]
        answer: TaskLocalFuture<RequestScope, F>,
        route: Arc<Route>,
        about: Option<Key>,
        begin: Instant,
    }
}

impl<F, E> Future for CachingFuture<F>
where
    F: Future<Output = Result<Response, E>>,
{
    type Output = Result<Response, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let response = ready!(this.answer.as_mut().poll(cx))?;
        let noted = this.answer.take_value().and_then(|scope| scope.noted());
        // Where no handler takes the method, there is no endpoint to report.
        if let Some(about) = this.about
            && response.status() != StatusCode::METHOD_NOT_ALLOWED
        {
            let event = event(noted, &response, this.begin.elapsed());
            this.route.cache.governor().record(about, event);
        }
        Poll::Ready(Ok(response))
    }
}

/// Takes all of the query but `kept` out of a request, wherever a handler can see it.
fn withhold(request: &mut Request, kept: &str) {
    if let Some(uri) = with_query(request.uri(), kept) {
        *request.uri_mut() = uri;
    }
    let original = request.extensions_mut().get_mut::<OriginalUri>();
    if let Some(OriginalUri(original)) = original
        && let Some(uri) = with_query(original, kept)
    {
        *original = uri;
    }
}

/// Never `None`: what is kept of a URI is one.
fn with_query(uri: &Uri, kept: &str) -> Option<Uri> {
    let path_and_query = match kept {
        "" => uri.path().to_owned(),
        kept => format!("{}?{kept}", uri.path()),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path_and_query.try_into().ok()?);
    Uri::from_parts(parts).ok()
}

/// What is reported of a request: what its lookup noted, if there was one.
fn event(noted: Option<Event>, response: &Response, whole: Duration) -> Event {
    let is_error = response.status().is_server_error();
    let is_client_error = response.status().is_client_error();
    let Some(noted) = noted else {
        return Event {
            outcome: Outcome::Bypass,
            latency: Some(whole),
            is_error,
            is_client_error,
            bytes: response.body().size_hint().exact().unwrap_or(0),
        };
    };
    Event {
        // Of a miss only the load counts: what it waited for the store says nothing about the origin. Who joined
        // another's load has none of his own.
        latency: match noted.outcome {
            Outcome::Miss => noted.latency,
            Outcome::Hit | Outcome::Stale => Some(whole),
            Outcome::Bypass => noted.latency.or(Some(whole)),
        },
        // A load that failed with "there is none" is no error of the origin: the answer's status tells.
        is_error,
        is_client_error,
        ..noted
    }
}
