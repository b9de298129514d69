//! Which service and endpoint a URL means.

use std::borrow::Cow;
use std::convert::Infallible;
use std::net::IpAddr;

use axum::extract::{FromRequestParts, Query};
use http::request::Parts;
use http::{Extensions, StatusCode};
use larder_http::Problem;
use larder_model::{Endpoint, Method, Service};
use serde::de::DeserializeOwned;

use crate::access::Caller;
use crate::cause::{Author, Cause, CauseError};
use crate::proxies::Client;

/// The service that the third part of the path names: `/api/config/{service}`.
pub(crate) struct OfService(pub(crate) Service);

/// The service and the endpoint: `/api/config/{service}/{*endpoint}?method=POST`.
pub(crate) struct OfEndpoint(pub(crate) Service, pub(crate) Endpoint);

/// The service and the endpoint that are to be changed, by whom and why:
/// `/api/policies/{service}/{*endpoint}?author=alice&reason=launch`.
pub(crate) struct OfChange(pub(crate) Service, pub(crate) Endpoint, pub(crate) Cause);

/// The service, the endpoint, and a time in seconds since 1970: `/api/explain/{service}/{*endpoint}?at=1796000000`.
pub(crate) struct OfPast(
    pub(crate) Service,
    pub(crate) Endpoint,
    pub(crate) Option<u64>,
);

/// The service and the number of a revision: `/api/revisions/{service}/{number}`.
pub(crate) struct OfRevision(pub(crate) Service, pub(crate) u64);

/// What the query asks for.
pub(crate) struct Asked<T>(pub(crate) T);

/// Where the caller is, and who, as far as that is known.
pub(crate) struct Peer {
    pub(crate) address: Option<IpAddr>,
    pub(crate) author: Option<Author>,
}

impl Peer {
    fn of(parts: &Parts) -> Self {
        let caller = parts.extensions.get::<Caller>();
        Self {
            address: address(&parts.extensions),
            author: caller.and_then(Caller::author),
        }
    }

    /// What he says of a change, checked.
    pub(crate) fn cause(
        self,
        author: Option<String>,
        reason: Option<String>,
    ) -> Result<Cause, CauseError> {
        Cause::of(self.author, author, reason, self.address)
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct MethodQuery {
    method: Option<String>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeQuery {
    method: Option<String>,
    author: Option<String>,
    reason: Option<String>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct PastQuery {
    method: Option<String>,
    at: Option<u64>,
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let query = Query::try_from_uri(&parts.uri);
        query
            .map(|Query(asked)| Self(asked))
            .map_err(|error| bad(error.body_text()))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Peer {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self::of(parts))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for OfPast {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Asked(query) = Asked::<PastQuery>::from_request_parts(parts, state).await?;
        let (service, endpoint) = of_path(parts.uri.path(), query.method.as_deref())?;
        Ok(Self(service, endpoint, query.at))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for OfService {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let (service, _) = split(parts.uri.path());
        Ok(Self(read_service(service)?))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for OfRevision {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let (service, rest) = split(parts.uri.path());
        let number = rest.split('/').next().unwrap_or_default();
        let number = number
            .parse()
            .map_err(|_| bad("a revision is a number, such as 7"))?;
        Ok(Self(read_service(service)?, number))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for OfEndpoint {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Asked(query) = Asked::<MethodQuery>::from_request_parts(parts, state).await?;
        let (service, endpoint) = of_path(parts.uri.path(), query.method.as_deref())?;
        Ok(Self(service, endpoint))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for OfChange {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Asked(query) = Asked::<ChangeQuery>::from_request_parts(parts, state).await?;
        let (service, endpoint) = of_path(parts.uri.path(), query.method.as_deref())?;
        let cause = Peer::of(parts).cause(query.author, query.reason);
        Ok(Self(service, endpoint, cause.map_err(bad)?))
    }
}

/// Where the caller of a request is.
pub(crate) fn address(extensions: &Extensions) -> Option<IpAddr> {
    let client: Option<&Client> = extensions.get();
    client.and_then(|client| client.address)
}

/// The part of the path behind the third `/`: `/api/overrides/{id}`.
pub(crate) fn id_of(path: &str) -> &str {
    split(path).0
}

fn of_path(path: &str, method: Option<&str>) -> Result<(Service, Endpoint), Problem> {
    let method = match method {
        Some(name) => Method::new(name).map_err(bad)?,
        None => Method::get(),
    };
    let (service, endpoint) = split(path);
    let endpoint = Endpoint::new(method, &template(endpoint)).map_err(bad)?;
    Ok((read_service(service)?, endpoint))
}

/// `/api/config/{service}/{rest}`, still percent-encoded: a `%2F` in an endpoint is no `/`.
fn split(path: &str) -> (&str, &str) {
    let rest = path.splitn(4, '/').nth(3).unwrap_or("");
    rest.split_once('/').unwrap_or((rest, ""))
}

fn read_service(name: &str) -> Result<Service, Problem> {
    Service::new(name).map_err(bad)
}

/// Clients write an endpoint in three ways: `products`, `/products` (so that a `//` comes of it), and encoded as one
/// component, which begins with `%2F`. All mean the same. Braces come encoded from most of them.
fn template(raw: &str) -> String {
    let raw = raw.trim_start_matches('/');
    let is_component = raw
        .get(..3)
        .is_some_and(|begin| begin.eq_ignore_ascii_case("%2f"));
    let raw = if is_component {
        replace(raw, "%2f", "/")
    } else {
        Cow::Borrowed(raw)
    };
    let raw = replace(&raw, "%7b", "{");
    let raw = replace(&raw, "%7d", "}");
    let raw = replace(&raw, "%3a", ":");
    replace(&raw, "%2a", "*").into_owned()
}

/// Replaces an encoded byte, whose letters may be small or capital.
fn replace<'a>(text: &'a str, encoded: &str, plain: &str) -> Cow<'a, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let text = text.replace(encoded, plain);
    Cow::Owned(text.replace(&encoded.to_ascii_uppercase(), plain))
}

pub(crate) fn bad(error: impl ToString) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST)
        .detail(larder_model::escape(&error.to_string()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_however_they_are_encoded() {
        for (path, expected) in [
            ("/api/config/svc/products", "products"),
            ("/api/config/svc//products", "products"),
            ("/api/config/svc/%2Fproducts%2f7", "/products/7"),
            ("/api/config/svc/a%2Fb", "a%2Fb"),
            ("/api/config/svc/products/%7Bid%7D", "products/{id}"),
            ("/api/config/svc/files/%7b%2Arest%7d", "files/{*rest}"),
            ("/api/config/svc/", ""),
            ("/api/config/svc", ""),
        ] {
            let (service, endpoint) = split(path);
            assert_eq!((service, template(endpoint).as_str()), ("svc", expected));
        }
    }
}
