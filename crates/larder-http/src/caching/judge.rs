//! Whether a request may be answered from the cache, and under which key.

use std::sync::Arc;

use axum::extract::{MatchedPath, OriginalUri, Request};
use http::{HeaderMap, Method, header};
use http_body::Body as _;
use larder_core::{Gate, Key, Policy, QueryRule, Reason, Variant};

use super::query::kept;
use super::route::{Route, holds_identity};

/// Headers by which some frameworks let a client change the method after the cache has seen it (CVE-2018-14773,
/// Kettle 2018).
const METHOD_OVERRIDES: [&str; 3] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
];

/// What was found of a request.
pub(super) struct Verdict {
    pub(super) reason: Reason,
    pub(super) policy: Arc<Policy>,
    /// Where its answer lies, or would lie if the policy were on; none if it may not be there.
    pub(super) key: Option<Key>,
    /// What it is reported under.
    pub(super) about: Option<Key>,
    /// What the handler may see of the query of a GET or a HEAD, if that is not all of it.
    pub(super) kept_query: Option<String>,
}

/// Judges a request by its route, by the rules that stand above every policy, and by the policy in force.
pub(super) fn judge(route: &Route, request: &Request) -> Verdict {
    let is_read = larder_core::Method::is_safe_name(request.method().as_str());
    let plain = if is_read {
        key_of(route, path(request), &Variant::none())
    } else {
        None
    };
    let about = match &plain {
        Some(plain) if *request.method() == Method::GET => Some(plain.clone()),
        _ => about(route, request),
    };
    let policy = match plain.as_ref().or(about.as_ref()) {
        Some(key) => route.cache.governor().policy(key),
        None => Arc::default(),
    };
    let rule = policy.include_query();
    let query = request.uri().query();
    let kept_query = query
        .filter(|_| is_read)
        .and_then(|query| kept(query, rule));
    let query = match &kept_query {
        Some(kept) => Some(kept.as_str()).filter(|kept| !kept.is_empty()),
        None => query,
    };
    let is_on = |key: &Key| match &about {
        // The policy was asked for by this very key.
        Some(about) if about == key => Gate::from(&*policy).cache_enabled,
        _ => route.cache.governor().gate(key).cache_enabled,
    };
    let key = key(route, &policy, plain, request, query);
    let reason = match &key {
        Err(reason) => *reason,
        Ok(key) if is_on(key) => Reason::PolicyOn,
        Ok(_) => Reason::PolicyOff,
    };
    Verdict {
        reason,
        policy,
        key: key.ok(),
        about,
        kept_query,
    }
}

/// Where a request's answer may lie.
fn key(
    route: &Route,
    policy: &Policy,
    plain: Option<Key>,
    request: &Request,
    query: Option<&str>,
) -> Result<Key, Reason> {
    check_request(request)?;
    check_identity(route, policy, request.headers())?;
    let plain = plain.ok_or(Reason::NoKey)?;
    let variant = variant(route, policy, request.headers())?;
    let path = path(request);
    let endpoint = match query {
        Some(query) => format!("{path}?{query}"),
        None if variant == Variant::none() => return Ok(plain),
        None => path.to_owned(),
    };
    let rule = policy.include_query();
    Key::with(route.cache.service(), &endpoint, rule, &variant).map_err(|_| Reason::NoKey)
}

fn check_request(request: &Request) -> Result<(), Reason> {
    let method = request.method();
    if !method.is_safe() {
        return Err(Reason::UnsafeMethod);
    }
    if *method != Method::GET {
        return Err(Reason::NotGet);
    }
    // Over the few headers that there are: three look-ups by name would hash each.
    let mut names = request.headers().keys();
    if names.any(|name| METHOD_OVERRIDES.contains(&name.as_str())) {
        return Err(Reason::MethodOverride);
    }
    if has_body(request) {
        return Err(Reason::RequestBody);
    }
    Ok(())
}

/// Whether a body comes with a request, or is announced.
fn has_body(request: &Request) -> bool {
    let headers = request.headers();
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .is_some_and(|length| length != "0");
    announced || headers.contains_key(header::TRANSFER_ENCODING) || !request.body().is_end_stream()
}

fn check_identity(route: &Route, policy: &Policy, headers: &HeaderMap) -> Result<(), Reason> {
    let identities = [
        (header::AUTHORIZATION, Reason::Authorization),
        (header::COOKIE, Reason::Cookie),
    ];
    for (name, reason) in identities {
        let is_keyed = varying(route, policy).any(|varying| varying == name.as_str());
        if headers.contains_key(&name) && !route.is_public && !is_keyed {
            return Err(reason);
        }
    }
    Ok(())
}

/// The headers that an answer depends on: as the route says, and as the policy does.
fn varying<'a>(route: &'a Route, policy: &'a Policy) -> impl Iterator<Item = &'a str> {
    let only_in_policy = policy
        .vary()
        .iter()
        .filter(|name| !route.vary.contains(name));
    route.vary.iter().chain(only_in_policy).map(String::as_str)
}

fn variant(route: &Route, policy: &Policy, headers: &HeaderMap) -> Result<Variant, Reason> {
    let mut variant = Variant::none();
    for name in varying(route, policy) {
        for value in headers.get_all(name) {
            let value = value.to_str().map_err(|_| Reason::NoKey)?;
            let with_value = match &route.key_secret {
                Some(secret) if holds_identity(name) => variant.with_hidden(name, value, secret),
                None if holds_identity(name) => return Err(Reason::NoKeySecret),
                _ => variant.with(name, value),
            };
            variant = with_value.map_err(|_| Reason::NoKey)?;
        }
    }
    Ok(variant)
}

/// The path as it came: a nested router hides its beginning from the request's URI.
fn path(request: &Request) -> &str {
    match request.extensions().get::<OriginalUri>() {
        Some(OriginalUri(uri)) => uri.path(),
        None => request.uri().path(),
    }
}

/// What a request is reported under: its path, with its method if that is not GET; the route's template if the path
/// can't be a key.
fn about(route: &Route, request: &Request) -> Option<Key> {
    let variant = Variant::none().with_method(&reported_method(request.method()));
    let template = request.extensions().get::<MatchedPath>();
    key_of(route, path(request), &variant).or_else(|| key_of(route, template?.as_str(), &variant))
}

/// `OTHER` for what a client has made up, so that it can't make up endpoints.
fn reported_method(method: &Method) -> larder_core::Method {
    const KNOWN: [Method; 9] = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
        Method::TRACE,
        Method::CONNECT,
    ];
    let name = if KNOWN.contains(method) {
        method.as_str()
    } else {
        "OTHER"
    };
    larder_core::Method::new(name).unwrap_or_else(|_| larder_core::Method::get())
}

fn key_of(route: &Route, path: &str, variant: &Variant) -> Option<Key> {
    Key::with(route.cache.service(), path, &QueryRule::All, variant).ok()
}
