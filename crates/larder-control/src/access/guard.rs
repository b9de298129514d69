//! The check of every request that has found its route, or none: who asks, and whether he may.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use larder_http::Problem;

use super::caller::{Caller, Need, Role, Who, not_there};
use super::rates::{self, Buckets};
use super::session::Ticket;
use super::table::{self, About, Entry, Found};
use super::token::{self, Shown};
use super::{Access, Credential, Unknown};
use crate::dashboard;
use crate::gate::{Tried, is_json_where_it_must_be};
use crate::plane::Plane;
use crate::proxies::Client;
use crate::target::{address, id_of};

/// How a page says that it is one of the session's.
const TOKEN: &str = "x-csrf-token";
/// Who asks too often waits so long for his refusal: who comes again at once would else have a processor to himself.
const UNHURRIED: Duration = Duration::from_millis(50);
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
    let tried = caller.author().map(Tried);
    let mut response = match refused {
        None => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Some(Refused::Unknown(Unknown::Nothing | Unknown::NoSession))
            if is_for_a_page(&request) =>
        {
            to_log_in(&request)
        }
        Some(refused) => {
            plane.metrics.denied.inc();
            if refused.is_too_often() {
                tokio::time::sleep(UNHURRIED).await;
            }
            refused.into_response()
        }
    };
    if let Some(tried) = tried {
        response.extensions_mut().insert(tried);
    }
    response
}

/// Whether a browser asks for a page to show it: its script is told the status.
fn is_for_a_page(request: &Request) -> bool {
    let headers = request.headers();
    let mode = headers.get("sec-fetch-mode");
    request.method() == Method::GET
        && dashboard::wants_page(headers)
        && mode.is_none_or(|mode| mode == "navigate")
}

fn to_log_in(request: &Request) -> Response {
    let there = request.uri().path_and_query();
    let there = there.map_or("/", |there| there.as_str());
    let encoded = form_encoded(there);
    let place = HeaderValue::from_str(&format!("{}?then={encoded}", dashboard::LOG_IN));
    let mut response = StatusCode::SEE_OTHER.into_response();
    if let Ok(place) = place {
        response.headers_mut().insert(header::LOCATION, place);
    }
    response
}

/// A text as the value of a query's parameter.
fn form_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' => encoded.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => encoded.push(char::from(byte)),
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
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
    /// A page of the session did not send it.
    NoToken,
    TooOften(Duration),
    /// Signals, in one request or several.
    TooMany(Duration),
}

/// What is known of a request before it is known who asks.
enum Asked {
    /// Anybody may.
    Open,
    Refused(Refused),
    By {
        found: Found,
        shown: Option<Result<Credential, ()>>,
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
            shown: shown(request.headers(), is_sealed(request)),
            address: address(request.extensions()),
        },
    }
}

/// Whether nobody on the way can read along.
fn is_sealed(request: &Request) -> bool {
    let client = request.extensions().get::<Client>();
    client.is_some_and(|client| client.is_sealed)
}

fn judge(access: &Access, caller: &Caller, found: Found, request: &Request) -> Option<Refused> {
    match found {
        Found::Entry(entry) => may(access, caller, entry, request).err(),
        Found::OtherMethods(methods) => Some(Refused::NoMethod(methods)),
        Found::Nothing => Some(Refused::NoRoute),
    }
}

/// What a request shows: a key, in one header and nowhere else; or the cookie of a session.
fn shown(headers: &HeaderMap, is_sealed: bool) -> Option<Result<Credential, ()>> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let Some(first) = all.next() else {
        return Ticket::of(headers, is_sealed).map(|ticket| Ok(Credential::Session(ticket)));
    };
    let is_only_one = all.next().is_none();
    let key = first.to_str().ok().and_then(|text| text.split_once(' '));
    let key = key.filter(|(scheme, _)| is_only_one && scheme.eq_ignore_ascii_case("bearer"));
    let key = key.and_then(|(_, key)| Shown::read(key.trim()));
    Some(key.map(Credential::Key).ok_or(()))
}

/// A change by a session comes from one of its pages: browsers send its cookie along with whatever they send.
fn check_token(caller: &Caller, request: &Request) -> Result<(), Refused> {
    let Who::User(user) = &caller.who else {
        return Ok(());
    };
    // That form carries it as a field.
    let is_log_out = request.uri().path() == dashboard::LOG_OUT;
    if matches!(*request.method(), Method::GET | Method::HEAD) || is_log_out {
        return Ok(());
    }
    let said = request.headers().get(TOKEN);
    let said = said.and_then(|said| said.to_str().ok());
    let is_told = said.is_some_and(|said| user.ticket.is_told(said));
    is_told.then_some(()).ok_or(Refused::NoToken)
}

fn may(access: &Access, caller: &Caller, entry: Entry, request: &Request) -> Result<(), Refused> {
    check_token(caller, request)?;
    let path = request.uri().path();
    if !caller.may(entry.need) {
        return Err(Refused::Role(caller.role, entry.need));
    }
    match entry.about {
        About::Path if !caller.sees(id_of(path)) => return Err(Refused::NotThere),
        About::Whole if !caller.sees_all() => return Err(Refused::Whole),
        _ => {}
    }
    let taken = access.buckets(caller).take(entry.need, rates::now());
    taken.map_err(Refused::TooOften)
}

/// Takes so many signals of what a caller may send; a refusal, if there are fewer.
pub(crate) async fn charge_signals(
    plane: &Plane,
    caller: &Caller,
    many: usize,
) -> Option<Response> {
    let buckets = plane.access.buckets(caller);
    let wait = buckets.take_signals(many, rates::now()).err()?;
    plane.metrics.denied.inc();
    tokio::time::sleep(UNHURRIED).await;
    Some(Refused::TooMany(wait).into_response())
}

impl Access {
    /// What a caller takes of.
    fn buckets<'a>(&'a self, caller: &'a Caller) -> &'a Buckets {
        match &caller.who {
            Who::Key(key) => &key.live.buckets,
            Who::User(user) => &user.buckets,
            Who::Nobody | Who::Local => &self.local,
        }
    }
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
            Self::Unasked => {
                let why = "the database did not answer, so who is logged in is not known";
                return (StatusCode::SERVICE_UNAVAILABLE, why.to_owned());
            }
            Self::NoSession => "this session is over: log in again, at /ui/login".to_owned(),
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
            Self::Loading | Self::Unasked => Some(LOADING),
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
            Self::NoToken => (
                StatusCode::FORBIDDEN,
                "this was not sent by a page of this session: load the page anew".to_owned(),
            ),
            Self::Role(role, need) => (StatusCode::FORBIDDEN, other_role(*role, *need)),
            Self::Whole => (
                StatusCode::FORBIDDEN,
                "this is about all services, and the key is for certain ones: larder key create --all-services makes one for all".to_owned(),
            ),
            Self::TooOften(_) => (
                StatusCode::TOO_MANY_REQUESTS,
                "these are more requests than one may send: come again after Retry-After".to_owned(),
            ),
            Self::TooMany(_) => (
                StatusCode::TOO_MANY_REQUESTS,
                "these are more signals than one may send, and none of them counts: send them after Retry-After, or as windows"
                    .to_owned(),
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

    fn is_too_often(&self) -> bool {
        matches!(
            self,
            Self::TooOften(_) | Self::Unknown(Unknown::TooOften(_))
        )
    }

    fn after(&self) -> Option<u64> {
        match self {
            Self::Unknown(unknown) => unknown.after(),
            Self::TooOften(after) | Self::TooMany(after) => Some(seconds(*after)),
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
        Role::Read => "the role read (viewer)",
        Role::Operator => "the role operator",
        Role::Admin => "the role admin",
    };
    let needs = match need {
        Need::Report => "report, or admin",
        Need::Read => "read, or admin",
        Need::Change => "operator, or admin",
        _ => "admin",
    };
    format!(
        "who asks has {has}, and this needs {needs}: larder key create --role makes such a key, larder user role such a user"
    )
}

fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}
