//! Log-in and log-out: two forms, which work without a script.

use std::net::IpAddr;
use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::{Form, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, StatusCode, header};
use larder_http::Problem;
use larder_model::Secret;

use super::{Frame, show};
use crate::access::{Caller, LogInError, Who, no_cookie};
use crate::cause::Author;
use crate::gate::Tried;
use crate::plane::Plane;
use crate::proxies::Client;
use crate::target::Asked;

/// Where the pages are.
pub(crate) const PATH: &str = "/ui/login";

#[derive(Template)]
#[template(path = "login.html")]
struct LogIn {
    frame: Frame,
    /// Where to go on.
    then: String,
    name: String,
    trouble: Option<String>,
    has_users: bool,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Then {
    then: Option<String>,
}

pub(super) async fn page(
    State(plane): State<Arc<Plane>>,
    asked: Result<Asked<Then>, Problem>,
) -> Response {
    match asked {
        Ok(Asked(asked)) => form(&plane, StatusCode::OK, asked.then, String::new(), None),
        Err(problem) => problem.into_response(),
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Said {
    name: String,
    password: String,
    #[serde(default)]
    then: String,
}

pub(super) async fn log_in(
    State(plane): State<Arc<Plane>>,
    Extension(client): Extension<Client>,
    Form(said): Form<Said>,
) -> Response {
    let Said {
        name,
        password,
        then,
    } = said;
    let password = Secret::new(password);
    let refuse = |status, trouble: String| {
        let name: String = name.chars().take(64).collect();
        let tried = Tried(Author {
            name: format!("user {}", larder_model::escape(&name)),
            is_verified: false,
        });
        let mut response = form(&plane, status, Some(then.clone()), name, Some(trouble));
        response.extensions_mut().insert(tried);
        response
    };
    if !client.is_sealed && !is_here(client.address) {
        let trouble = "A password is taken over TLS alone, or on the control plane's machine: others could read it on the way.";
        return refuse(StatusCode::FORBIDDEN, trouble.to_owned());
    }
    let begun = plane.log_in(&name, password, client.address).await;
    let error = match begun {
        Ok(ticket) => return go(&place(&then), ticket.cookie(client.is_sealed)),
        Err(error) => error,
    };
    let (status, after) = match &error {
        LogInError::Wrong => (StatusCode::UNAUTHORIZED, None),
        LogInError::TooOften(after) => (StatusCode::TOO_MANY_REQUESTS, Some(after.as_secs() + 1)),
        LogInError::Busy => (StatusCode::SERVICE_UNAVAILABLE, Some(1)),
        LogInError::Failed(why) => {
            tracing::error!(why, "a log-in failed");
            (StatusCode::SERVICE_UNAVAILABLE, None)
        }
    };
    let mut response = refuse(status, error.to_string());
    if let Some(after) = after {
        let after = HeaderValue::from(after);
        response.headers_mut().insert(header::RETRY_AFTER, after);
    }
    response
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Leaving {
    csrf: String,
}

pub(super) async fn log_out(
    State(plane): State<Arc<Plane>>,
    caller: Caller,
    Extension(client): Extension<Client>,
    Form(leaving): Form<Leaving>,
) -> Response {
    if let Who::User(user) = &caller.who {
        if !user.ticket.is_told(&leaving.csrf) {
            return Problem::new(StatusCode::FORBIDDEN)
                .detail("this was not sent by a page of this session: load the page anew")
                .into_response();
        }
        if let Err(error) = plane
            .log_out(&user.name, &user.ticket, client.address)
            .await
        {
            tracing::error!(%error, "a session could not be ended");
            return Problem::new(StatusCode::SERVICE_UNAVAILABLE)
                .detail("the database did not answer: you are still logged in")
                .into_response();
        }
    }
    go(PATH, no_cookie(client.is_sealed))
}

/// The page, with what went wrong.
fn form(
    plane: &Plane,
    status: StatusCode,
    then: Option<String>,
    name: String,
    trouble: Option<String>,
) -> Response {
    let page = LogIn {
        frame: Frame::of(PATH, &Caller::nobody()),
        then: place(then.as_deref().unwrap_or_default()),
        name,
        trouble,
        has_users: plane.access.has_users(),
    };
    let mut response = show(status, &page);
    // With no-referrer browsers would send the form as if from nowhere.
    let policy = HeaderValue::from_static("same-origin");
    response
        .headers_mut()
        .insert(header::REFERRER_POLICY, policy);
    response
}

/// Another page, which is asked for by GET.
fn go(place: &str, cookie: Option<HeaderValue>) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    let headers = response.headers_mut();
    if let Ok(place) = HeaderValue::from_str(place) {
        headers.insert(header::LOCATION, place);
    }
    if let Some(cookie) = cookie {
        headers.insert(header::SET_COOKIE, cookie);
    }
    response
}

/// Where to go on: a page of ours, and nowhere else, whatever a link says.
fn place(then: &str) -> String {
    let is_ours = then == "/" || then.starts_with("/ui/");
    let is_plain = then
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    let is_page = !then.starts_with("/ui/log");
    match is_ours && is_plain && is_page && then.len() <= 1_000 {
        true => then.to_owned(),
        false => "/".to_owned(),
    }
}

/// Without keys and users, whoever is here needs no log-in either.
fn is_here(address: Option<IpAddr>) -> bool {
    address.is_some_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_in_leads_to_pages_of_ours_alone() {
        for page in ["/", "/ui/overrides", "/ui/services/svc/a?method=POST"] {
            assert_eq!(place(page), page);
        }
        for other in [
            "",
            "//evil.example",
            "/\\evil.example",
            "/ui/\\..",
            "https://evil.example",
            "/api/services",
            "/ui/login?then=/",
            "/ui/logout",
            "/ui/a\r\nSet-Cookie: a=b",
        ] {
            assert_eq!(place(other), "/", "{other}");
        }
    }
}
