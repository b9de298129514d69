//! The check of every request that has found its route, or none: who asks, and whether he may.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use larder_http::Problem;

use super::caller::{Caller, Need, Role, Who, not_there};
use super::rates;
use super::table::{self, About, Entry, Found};
use super::token::{self, Shown};
use super::{Access, Unknown};
use crate::gate::is_json_where_it_must_be;
use crate::plane::Plane;
use crate::target::{address, id_of};

/// When to come again where the keys are not read yet, in seconds.
const LOADING: u64 = 2;

/// Lets a request through to its route, with its caller, or refuses it.
pub(crate) async fn check(
    State(plane): State<Arc<Plane>>,
    mut request: Request,
    next: Next,
) -> Response {
    let (caller, refused) = match ask(&request) {
        Asked::Open => (Caller::nobody(), None),
        Asked::Refused(refused) => (Caller::nobody(), Some(refused)),
        Asked::By {
            found,
            shown,
            address,
        } => match plane.access.identify(shown, address).await {
            Ok(caller) => {
                let refused = judge(&plane.access, &caller, found, &request);
                (caller, refused)
            }
            Err(unknown) => (Caller::nobody(), Some(Refused::Unknown(unknown))),
        },
    };
    let mut response = match refused {
        None => {
            request.extensions_mut().insert(caller.clone());
            next.run(request).await
        }
        Some(refused) => {
            plane.metrics.denied.inc();
            refused.into_response()
        }
    };
    // For the audit trail.
    response.extensions_mut().insert(caller);
    response
}

/// Why a request does not get through.
enum Refused {
    KeyInUrl,
    NotJson,
    Unknown(Unknown),
    NoRoute,
    /// It takes these.
    NoMethod(Vec<&'static str>),
    /// The role is another.
    Role(Role, Need),
    /// It is about all services, and the key is not.
    Whole,
    NotThere,
    TooOften(Duration),
}

/// What is known of a request before it is known who asks.
enum Asked {
    /// Anybody may.
    Open,
    Refused(Refused),
    By {
        found: Found,
        shown: Option<Result<Shown, ()>>,
        address: Option<IpAddr>,
    },
}

fn ask(request: &Request) -> Asked {
    let url = request
        .uri()
        .path_and_query()
        .map_or("", |url| url.as_str());
    if token::is_in(url) {
        return Asked::Refused(Refused::KeyInUrl);
    }
    let route = request.extensions().get::<MatchedPath>();
    let found = match route {
        Some(route) => table::find(request.method(), route.as_str()),
        None => Found::Nothing,
    };
    match &found {
        Found::Entry(_) if !is_json_where_it_must_be(request) => Asked::Refused(Refused::NotJson),
        Found::Entry(entry) if entry.need == Need::Nothing => Asked::Open,
        _ => Asked::By {
            found,
            shown: shown(request.headers()),
            address: address(request.extensions()),
        },
    }
}

fn judge(access: &Access, caller: &Caller, found: Found, request: &Request) -> Option<Refused> {
    match found {
        Found::Entry(entry) => may(access, caller, entry, request.uri().path()).err(),
        Found::OtherMethods(methods) => Some(Refused::NoMethod(methods)),
        Found::Nothing => Some(Refused::NoRoute),
    }
}

/// The key of a request: in one header, and nowhere else.
fn shown(headers: &HeaderMap) -> Option<Result<Shown, ()>> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let first = all.next()?;
    let is_only_one = all.next().is_none();
    let key = first.to_str().ok().and_then(|text| text.split_once(' '));
    let key = key.filter(|(scheme, _)| is_only_one && scheme.eq_ignore_ascii_case("bearer"));
    let key = key.and_then(|(_, key)| Shown::read(key.trim()));
    Some(key.ok_or(()))
}

fn may(access: &Access, caller: &Caller, entry: Entry, path: &str) -> Result<(), Refused> {
    if !caller.role.may(entry.need) {
        return Err(Refused::Role(caller.role, entry.need));
    }
    match entry.about {
        About::Path if !caller.sees(id_of(path)) => return Err(Refused::NotThere),
        About::Whole if !caller.sees_all() => return Err(Refused::Whole),
        _ => {}
    }
    let buckets = match &caller.who {
        Who::Key(key) => &key.live.buckets,
        Who::Nobody | Who::Local => &access.local,
    };
    let taken = buckets.take(entry.need, rates::now());
    taken.map_err(Refused::TooOften)
}

const MAKE: &str = "larder key create makes one on the control plane's machine";

impl Unknown {
    fn problem(self) -> (StatusCode, String) {
        let why = match self {
            Self::Loading => {
                let why = "the control plane has not read its keys yet: come again in a moment";
                return (StatusCode::SERVICE_UNAVAILABLE, why.to_owned());
            }
            Self::TooOften(_) => {
                let why = "too many keys that are none came from this address: come again later";
                return (StatusCode::TOO_MANY_REQUESTS, why.to_owned());
            }
            Self::NoKeys => {
                let why =
                    format!("as long as there is no API key, only this machine may ask: {MAKE}");
                return (StatusCode::FORBIDDEN, why);
            }
            Self::Nothing => format!(
                "this needs an API key, as Authorization: Bearer; services and larder take it from LARDER_CONTROL_KEY; {MAKE}"
            ),
            Self::NoKey => format!(
                "what came as Authorization is no API key: send Bearer and the key (lrd_…), once; {MAKE}"
            ),
            Self::OtherKey => format!("this API key is not known here: {MAKE}"),
            Self::Revoked => format!("this API key was revoked: {MAKE}"),
            Self::Expired => format!("the time of this API key is over: {MAKE}"),
        };
        (StatusCode::UNAUTHORIZED, why)
    }

    /// When to come again, in seconds.
    fn after(self) -> Option<u64> {
        match self {
            Self::Loading => Some(LOADING),
            Self::TooOften(after) => Some(seconds(after)),
            _ => None,
        }
    }
}

impl Refused {
    fn into_response(self) -> Response {
        let (status, why) = match &self {
            Self::KeyInUrl => (
                StatusCode::BAD_REQUEST,
                "an API key in a URL is read by whoever reads logs: send it as Authorization: Bearer, and revoke this one (larder key revoke)".to_owned(),
            ),
            Self::NotJson => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "send JSON, with Content-Type: application/json".to_owned(),
            ),
            Self::Unknown(unknown) => unknown.problem(),
            Self::NoRoute => return crate::routes::no_such_route().into_response(),
            Self::NoMethod(methods) => return no_such_method(methods),
            Self::NotThere => return not_there().into_response(),
            Self::Role(role, need) => (StatusCode::FORBIDDEN, other_role(*role, *need)),
            Self::Whole => (
                StatusCode::FORBIDDEN,
                "this is about all services, and the key is for certain ones: larder key create --all-services makes one for all".to_owned(),
            ),
            Self::TooOften(_) => (
                StatusCode::TOO_MANY_REQUESTS,
                "these are more requests than one may send: come again after Retry-After".to_owned(),
            ),
        };
        let mut response = Problem::new(status).detail(why).into_response();
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer realm=\"larder\"");
            headers.insert(header::WWW_AUTHENTICATE, scheme);
        }
        if let Some(after) = self.after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(after));
        }
        response
    }

    fn after(&self) -> Option<u64> {
        match self {
            Self::Unknown(unknown) => unknown.after(),
            Self::TooOften(after) => Some(seconds(*after)),
            _ => None,
        }
    }
}

/// RFC 9110, section 15.5.6.
fn no_such_method(methods: &[&'static str]) -> Response {
    let mut response = crate::routes::no_such_method().into_response();
    if let Ok(methods) = HeaderValue::from_str(&methods.join(", ")) {
        response.headers_mut().insert(header::ALLOW, methods);
    }
    response
}

fn other_role(role: Role, need: Need) -> String {
    let has = match role {
        Role::None => "no role",
        Role::Report => "the role report",
        Role::Read => "the role read",
        Role::Admin => "the role admin",
    };
    let needs = match need {
        Need::Report => "report, or admin",
        Need::Read => "read, or admin",
        _ => "admin",
    };
    format!("who asks has {has}, and this needs {needs}: larder key create --role makes such a key")
}

fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}
