//! The dashboard: what the API tells programs, for people. Made on the server; its script takes the parts that change from
//! the page as it is then, and changes things over the API alone.

mod assets;
mod audit;
mod chart;
mod curve;
mod endpoint;
mod figures;
mod fleet;
mod history;
mod instances;
mod invalidating;
mod keys;
mod login;
mod over_time;
mod overrides;
mod series;
mod service;

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::{get, post};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use larder_http::Problem;
use larder_model::api::{EndpointConfig, Source};
use larder_model::{Endpoint, Mode, Service};

use crate::access::{Caller, Need, Who};
use crate::plane::Plane;
pub(crate) use figures::{lasts, number};
pub(crate) use fleet::fleet;
use invalidating::Invalidating;

/// Where users log in, and out.
pub(crate) const LOG_IN: &str = login::PATH;
pub(crate) const LOG_OUT: &str = "/ui/logout";

/// Nothing that is not ours, and nothing in the page's own text, is run, shown or sent to.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
    form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The pages but the first, and what they load.
pub(crate) fn routes() -> Router<Arc<Plane>> {
    Router::new()
        .route("/ui/services/{service}", get(service::service))
        .route("/ui/services/{service}/", get(endpoint::endpoint))
        .route(
            "/ui/services/{service}/{*endpoint}",
            get(endpoint::endpoint),
        )
        .route("/ui/history/{service}", get(history::history))
        .route("/ui/over-time/{service}", get(over_time::over_time))
        .route("/ui/instances", get(instances::instances))
        .route("/ui/keys/{service}", get(keys::list))
        .route("/ui/keys/{service}/entry", get(keys::entry))
        .route("/ui/overrides", get(overrides::overrides))
        .route("/ui/audit", get(audit::audit))
        .route("/ui/assets/{name}", get(assets::asset))
        .route(LOG_IN, get(login::page).post(login::log_in))
        .route(LOG_OUT, post(login::log_out))
}

/// Whether a page is wanted rather than text: only browsers say so.
pub(crate) fn wants_page(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT);
    let accept = accept.and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

/// What every page has around what is its own.
struct Frame {
    css: String,
    js: String,
    here: &'static str,
    /// Whether the caller may see pages; else he is to log in.
    sees_pages: bool,
    /// Whether he may change what holds.
    may_change: bool,
    user: Option<User>,
}

/// Who is logged in.
struct User {
    name: String,
    role: &'static str,
    /// What his pages say with each change.
    token: String,
}

/// A page that the head of every page leads to.
struct Page {
    href: &'static str,
    name: &'static str,
    is_here: bool,
}

impl Frame {
    fn of(here: &'static str, caller: &Caller) -> Self {
        let user = match &caller.who {
            Who::User(user) => Some(User {
                name: user.name.clone(),
                role: user.role.as_str(),
                token: user.ticket.token(),
            }),
            _ => None,
        };
        Self {
            user,
            sees_pages: caller.may(Need::Read),
            may_change: caller.may(Need::Change),
            css: assets::href("dashboard.css"),
            js: assets::href("dashboard.js"),
            here,
        }
    }

    fn pages(&self) -> Vec<Page> {
        let all = [
            ("/", "Fleet"),
            ("/ui/instances", "Instances"),
            ("/ui/overrides", "Overrides"),
            ("/ui/audit", "Audit"),
            ("/openapi.json", "API"),
        ];
        let page = |(href, name)| Page {
            href,
            name,
            is_here: href == self.here,
        };
        let seen = all.into_iter().filter(|_| self.sees_pages);
        seen.map(page).collect()
    }
}

fn show(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(text) => {
            let policy = (
                header::CONTENT_SECURITY_POLICY,
                HeaderValue::from_static(POLICY),
            );
            (status, [policy], Html(text)).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "a page could not be made");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR)
                .detail("the page could not be made")
                .into_response()
        }
    }
}

#[derive(Template)]
#[template(path = "missing.html")]
struct Missing {
    frame: Frame,
    what: String,
}

/// That there is no such page, and why.
fn missing(caller: &Caller, what: impl Into<String>) -> Response {
    let page = Missing {
        frame: Frame::of("", caller),
        what: what.into(),
    };
    show(StatusCode::NOT_FOUND, &page)
}

/// A template as the path of a URL has it.
fn path_of(endpoint: &Endpoint) -> String {
    let template = endpoint.template();
    let template = template.replace('{', "%7B").replace('}', "%7D");
    match endpoint.method().as_str() {
        "GET" => template,
        method => format!("{template}?method={method}"),
    }
}

fn href_of(service: &Service) -> String {
    format!("/ui/services/{}", service.as_str())
}

fn href(service: &Service, endpoint: &Endpoint) -> String {
    format!("{}{}", href_of(service), path_of(endpoint))
}

/// An endpoint's name: GET goes without saying.
fn name(method: &str, template: &str) -> String {
    match method {
        "GET" => template.to_owned(),
        method => format!("{method} {template}"),
    }
}

/// Whether an endpoint is cached, in a word or two, and the class that colours it.
fn state(is_on: bool, ttl_seconds: f64) -> (String, &'static str) {
    match is_on {
        true => (format!("on, {}", figures::seconds(ttl_seconds)), "on"),
        false => ("off".to_owned(), "off"),
    }
}

fn state_of(config: &EndpointConfig) -> (String, &'static str) {
    state(config.cache_enabled, config.ttl_seconds)
}

fn mode_of(config: &EndpointConfig) -> &'static str {
    match (config.source, config.mode) {
        (Source::Default, _) => "–",
        (_, Mode::On) => "on",
        (_, Mode::Off) => "off",
        (_, Mode::Auto) => "auto",
        (_, Mode::Shadow) => "shadow",
    }
}
