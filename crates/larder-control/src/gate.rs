//! What a web page must not reach: the check of every request before it is routed.
//!
//! A browser lets any page send requests to loopback, and a page may give itself a name that resolves to 127.0.0.1.
//! What it can't do is choose `Host`, `Origin` and `Sec-Fetch-Site`, or send JSON to another origin without asking
//! first, which is never allowed here: no answer has a CORS header.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::header::HeaderName;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use larder_http::{OverTls, Problem};

use crate::access::is_key_in;
use crate::cause::Author;
use crate::dashboard;
use crate::plane::Plane;
use crate::proxies::{Client, Proxies};

/// Only to these may another site's link lead: to the first page, and from there to the log-in.
const PAGES: [&str; 2] = ["/", dashboard::LOG_IN];

const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What services say of themselves: it changes nothing that somebody set.
const REPORTS: [&str; 2] = ["/api/signals", "/api/instances"];

/// So much of a refused request is written down, in bytes.
const MAX_ATTEMPT: usize = 300;

/// A name by which the control plane can't be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a host: write a name such as control.example.com, or name:port, without http:// and without *"
)]
pub struct HostError(pub String);

/// The names by which the control plane may be reached.
#[derive(Debug, Clone)]
pub(crate) struct Hosts {
    /// The port that the names of this machine come with.
    port: u16,
    /// Further names; those without a port go with any.
    others: Vec<(String, Option<u16>)>,
}

impl Hosts {
    pub(crate) fn new(port: u16, others: &[String]) -> Result<Self, HostError> {
        let read = |text: &String| -> Result<_, HostError> {
            let authority: Authority = text.parse().map_err(|_| HostError(text.clone()))?;
            if authority.host().is_empty() || text.contains(['@', '*']) {
                return Err(HostError(text.clone()));
            }
            Ok((authority.host().to_ascii_lowercase(), authority.port_u16()))
        };
        Ok(Self {
            port,
            others: others.iter().map(read).collect::<Result<_, _>>()?,
        })
    }

    /// `unsaid` is the port that goes without saying.
    fn include(&self, authority: &Authority, unsaid: u16) -> bool {
        let is = |name: &str| authority.host().eq_ignore_ascii_case(name);
        let port = authority.port_u16().unwrap_or(unsaid);
        let is_local = ["127.0.0.1", "localhost", "[::1]"].into_iter().any(is);
        (is_local && port == self.port)
            || self
                .others
                .iter()
                .any(|(other, its)| is(other) && its.is_none_or(|its| its == port))
    }
}

/// What the gate needs.
#[derive(Clone)]
pub(crate) struct Gate {
    pub(crate) hosts: Arc<Hosts>,
    pub(crate) proxies: Arc<Proxies>,
    pub(crate) plane: Arc<Plane>,
}

/// Lets a request in or refuses it, and sets the headers that every answer has.
pub(crate) async fn check(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let client = gate.proxies.client(request.headers(), request.extensions());
    request.extensions_mut().insert(client);
    let attempt = Attempt::of(&request);
    let is_change = !matches!(*request.method(), Method::GET | Method::HEAD);
    let mut response = match judge(&gate.hosts, &request) {
        Ok(()) => next.run(request).await,
        Err(problem) => {
            gate.plane.metrics.refused.inc();
            problem.into_response()
        }
    };
    gate.plane.metrics.count(response.status());
    if is_change && response.status().is_success() {
        gate.plane.live.poke();
    }
    let tried = response.extensions_mut().remove::<Tried>();
    if let Some(attempt) = attempt.filter(|_| response.status().is_client_error()) {
        let author = tried.map(|Tried(author)| author);
        attempt
            .was_refused(gate.plane, response.status(), author)
            .await;
    }
    protect(response.headers_mut(), client.is_sealed);
    response
}

/// The gate of the listener for those who scrape and probe. They come by an address, which a web page can't give itself as a
/// name, or by a name of ours.
pub(crate) async fn check_probe(
    State(gate): State<Gate>,
    request: Request,
    next: Next,
) -> Response {
    let judged = host(&request).and_then(|host| {
        let name = host.host();
        let is_address = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        let mut others = gate.hosts.others.iter();
        match is_address || is("localhost") || others.any(|(other, _)| is(other)) {
            true => Ok(()),
            false => Err(Problem::new(StatusCode::MISDIRECTED_REQUEST)
                .detail("ask by an address, or by a name in LARDER_ALLOWED_HOSTS")),
        }
    });
    let mut response = match judged {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    protect(response.headers_mut(), false);
    response
}

/// Who tried it, told by those behind the gate.
#[derive(Clone)]
pub(crate) struct Tried(pub(crate) Author);

/// A request that would change something: what instances say of themselves does not count.
struct Attempt {
    request: String,
    address: Option<IpAddr>,
}

impl Attempt {
    fn of(request: &Request) -> Option<Self> {
        let (method, path) = (request.method(), request.uri().path());
        let is_report = REPORTS.iter().any(|report| path.starts_with(report));
        if matches!(*method, Method::GET | Method::HEAD) || is_report {
            return None;
        }
        let mut text = match is_key_in(path) {
            true => format!("{method} (a URL with an API key in it)"),
            false => larder_model::escape(&format!("{method} {path}")).into_owned(),
        };
        text.truncate(text.floor_char_boundary(MAX_ATTEMPT));
        Some(Self {
            request: text,
            address: crate::target::address(request.extensions()),
        })
    }

    /// Writes it into the audit trail, also if the client goes away.
    async fn was_refused(self, plane: Arc<Plane>, status: StatusCode, author: Option<Author>) {
        let written = tokio::spawn(async move {
            let registry = &plane.registry;
            registry
                .refused(self.request, status.as_u16(), author, self.address)
                .await;
        });
        if let Err(error) = written.await {
            tracing::error!(%error, "writing a refused request down came to no end");
        }
    }
}

fn judge(hosts: &Hosts, request: &Request) -> Result<(), Problem> {
    let host = host(request)?;
    let client = request.extensions().get::<Client>();
    let unsaid = match client.is_some_and(|client| client.is_sealed) {
        true => 443,
        false => 80,
    };
    if !hosts.include(&host, unsaid) {
        return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST).detail(
            "this control plane does not go by that name: use 127.0.0.1 or localhost with its port, or add the name to LARDER_ALLOWED_HOSTS",
        ));
    }
    check_origin(request, &host)?;
    check_method(request)
}

/// The one host that a request names.
fn host(request: &Request) -> Result<Authority, Problem> {
    let bad = |detail: &'static str| Problem::new(StatusCode::BAD_REQUEST).detail(detail);
    let named = only(request.headers(), &header::HOST)
        .map_err(|()| bad("the request has more than one Host"))?;
    let named = match named {
        Some(value) => Some(authority(value).ok_or_else(|| bad("Host is not a name and a port"))?),
        None => None,
    };
    match (named, request.uri().authority()) {
        (Some(host), Some(authority)) if host != *authority => {
            Err(bad("Host and the URI name different hosts"))
        }
        (Some(host), _) => Ok(host),
        (None, Some(authority)) if !authority.as_str().contains('@') => Ok(authority.clone()),
        (None, _) => Err(bad("the request has no Host")),
    }
}

fn check_origin(request: &Request, host: &Authority) -> Result<(), Problem> {
    let foreign = || {
        Problem::new(StatusCode::FORBIDDEN)
            .detail("a page of another site may not use this control plane")
    };
    let headers = request.headers();
    let site = only(headers, &FETCH_SITE).map_err(|()| foreign())?;
    if let Some(origin) = only(headers, &header::ORIGIN).map_err(|()| foreign())? {
        // A page that says nothing of itself sends its forms as if from nowhere: that it is ours, the browser says.
        let is_own_form = origin == "null" && is_form(request) && site == Some("same-origin");
        let named = match is_over_tls(request) {
            true => origin.strip_prefix("https://"),
            false => origin
                .strip_prefix("http://")
                .or_else(|| origin.strip_prefix("https://")),
        };
        if !is_own_form && named.and_then(authority).as_ref() != Some(host) {
            return Err(foreign());
        }
    }
    match site {
        None | Some("same-origin" | "none") => Ok(()),
        Some(_) if is_navigation_to_a_page(request) => Ok(()),
        Some(_) => Err(foreign()),
    }
}

/// Whether the connection itself is sealed: a proxy in front may be, too, or not.
fn is_over_tls(request: &Request) -> bool {
    request.extensions().get::<OverTls>().is_some()
}

/// Whether this is one of the two forms that need no script.
fn is_form(request: &Request) -> bool {
    let path = request.uri().path();
    request.method() == Method::POST && (path == dashboard::LOG_IN || path == dashboard::LOG_OUT)
}

/// Whether a form comes from a page of ours, as the browser says.
fn is_own_form(request: &Request) -> bool {
    let headers = request.headers();
    let says_so = headers.contains_key(header::ORIGIN)
        || headers
            .get(FETCH_SITE)
            .is_some_and(|site| site == "same-origin");
    is_form(request) && says_so
}

fn is_navigation_to_a_page(request: &Request) -> bool {
    let is = |name: &str, value: &str| {
        request
            .headers()
            .get(name)
            .is_some_and(|given| given == value)
    };
    request.method() == Method::GET
        && PAGES.contains(&request.uri().path())
        && is("sec-fetch-mode", "navigate")
        && is("sec-fetch-dest", "document")
}

fn check_method(request: &Request) -> Result<(), Problem> {
    if is_form(request) && !is_own_form(request) {
        return Err(Problem::new(StatusCode::FORBIDDEN)
            .detail("a form is taken from the pages of this control plane alone"));
    }
    match *request.method() {
        Method::GET | Method::HEAD | Method::PUT | Method::POST | Method::DELETE => Ok(()),
        _ => Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED)
            .detail("use GET, HEAD, PUT, POST or DELETE")),
    }
}

/// Whether a request is JSON where it would change something, which no form can send, but for the two forms that are ours.
/// `DELETE` without a body can't come from a form either.
pub(crate) fn is_json_where_it_must_be(request: &Request) -> bool {
    let headers = request.headers();
    match *request.method() {
        Method::GET | Method::HEAD => true,
        Method::DELETE if !headers.contains_key(header::CONTENT_TYPE) => true,
        _ => {
            let form = match is_form(request) {
                true => "application/x-www-form-urlencoded",
                false => "application/json",
            };
            let value = only(headers, &header::CONTENT_TYPE).ok().flatten();
            let essence = value.and_then(|value| value.split(';').next());
            essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case(form))
        }
    }
}

/// The only value of a header; an error if there are several, or if it is not text.
fn only<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Result<Option<&'a str>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| ()),
        (Some(_), Some(_)) => Err(()),
    }
}

/// A name and a port, and nothing else.
fn authority(text: &str) -> Option<Authority> {
    let authority: Authority = text.parse().ok()?;
    let is_plain = !authority.host().is_empty() && !text.contains('@');
    let has_port = text
        .strip_prefix(authority.host())
        .is_some_and(|rest| rest.is_empty() || authority.port_u16().is_some());
    (is_plain && has_port).then_some(authority)
}

fn protect(headers: &mut HeaderMap, is_sealed: bool) {
    let fixed = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (OPENER_POLICY, "same-origin"),
        (RESOURCE_POLICY, "same-origin"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if is_sealed {
        let year = HeaderValue::from_static("max-age=31536000");
        headers.insert(header::STRICT_TRANSPORT_SECURITY, year);
    }
    // That of the log-in's form is wider.
    headers
        .entry(header::REFERRER_POLICY)
        .or_insert(HeaderValue::from_static("no-referrer"));
    // The dashboard's pages have a wider one.
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static(
            "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ));
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_list_get_in() {
        let hosts = Hosts::new(8000, &["control.example.com".into(), "lan:9000".into()]).unwrap();
        let is_in =
            |text: &str| authority(text).is_some_and(|authority| hosts.include(&authority, 80));
        for host in [
            "127.0.0.1:8000",
            "LOCALHOST:8000",
            "[::1]:8000",
            "control.example.com",
            "Control.Example.com:444",
            "lan:9000",
        ] {
            assert!(is_in(host), "{host}");
        }
        for host in [
            "127.0.0.1",
            "127.0.0.1:80",
            "0.0.0.0:8000",
            "localhost.:8000",
            "localhost:8000@evil",
            "evil@localhost:8000",
            "lan",
            "evil.example",
            "",
            ":8000",
            "localhost:",
            "localhost:99999",
        ] {
            assert!(!is_in(host), "{host}");
        }
        let plain = authority("control.example.com").unwrap();
        let sealed = Hosts::new(443, &["control.example.com:443".into()]).unwrap();
        assert!(sealed.include(&plain, 443) && !sealed.include(&plain, 80));
        assert!(
            Hosts::new(1, &["*".into()]).is_err() && Hosts::new(1, &["http://a".into()]).is_err()
        );
    }
}
