//! Which service and endpoint a URL means.

use std::borrow::Cow;

use axum::extract::{FromRequestParts, Query};
use http::StatusCode;
use http::request::Parts;
use larder_http::Problem;
use larder_model::{Endpoint, Method, Service};

/// The service that the third part of the path names: `/api/config/{service}`.
pub(crate) struct OfService(pub(crate) Service);

/// The service and the endpoint: `/api/config/{service}/{*endpoint}?method=POST`.
pub(crate) struct OfEndpoint(pub(crate) Service, pub(crate) Endpoint);

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct MethodQuery {
    method: Option<String>,
}

/// The service, the endpoint, and a time in seconds since 1970: `/api/explain/{service}/{*endpoint}?at=1796000000`.
pub(crate) struct OfPast(
    pub(crate) Service,
    pub(crate) Endpoint,
    pub(crate) Option<u64>,
);

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct PastQuery {
    method: Option<String>,
    at: Option<u64>,
}

impl<S: Send + Sync> FromRequestParts<S> for OfPast {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let of_method = |query: &PastQuery| query.method.clone();
        let (service, endpoint, query) = of_parts(parts, of_method)?;
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

impl<S: Send + Sync> FromRequestParts<S> for OfEndpoint {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let of_method = |query: &MethodQuery| query.method.clone();
        let (service, endpoint, _) = of_parts(parts, of_method)?;
        Ok(Self(service, endpoint))
    }
}

/// The service and the endpoint of a path, and its query, which may name a method.
fn of_parts<Q: serde::de::DeserializeOwned>(
    parts: &Parts,
    of_method: impl Fn(&Q) -> Option<String>,
) -> Result<(Service, Endpoint, Q), Problem> {
    let query = Query::<Q>::try_from_uri(&parts.uri);
    let Query(query) = query.map_err(|error| bad(error.body_text()))?;
    let (service, endpoint) = of_path(parts.uri.path(), of_method(&query).as_deref())?;
    Ok((service, endpoint, query))
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

fn bad(error: impl ToString) -> Problem {
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
