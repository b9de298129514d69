//! One endpoint: what is in force and why, what was measured, what was decided, and how to change it.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use larder_decide::Record;
use larder_http::Problem;
use larder_model::api::{EndpointConfig, Source};
use larder_model::{Endpoint, Method, Mode};

use super::chart::Chart;
use super::curve::Curve;
use super::figures::{Figures, Tile, ago};
use super::{Frame, Invalidating, href_of, keys, name, overrides, path_of, show, state, state_of};
use crate::access::Caller;
use crate::measured::BUCKET_SECONDS;
use crate::plane::Plane;
use crate::target::OfEndpoint;

#[derive(Template)]
#[template(path = "endpoint.html")]
struct OneEndpoint {
    frame: Frame,
    service: String,
    service_href: String,
    /// What the keys of it begin with.
    keys_prefix: String,
    name: String,
    /// With its method, as the API takes it.
    full_name: String,
    state: String,
    class: &'static str,
    mode: &'static str,
    source: &'static str,
    reason: String,
    config: EndpointConfig,
    tiles: Vec<Tile>,
    chart: Chart,
    curve: Option<Curve>,
    policy_url: String,
    /// That of the policy that was set; empty: none was.
    etag: String,
    has_policy: bool,
    /// The policy that was set, as JSON: what the form does not name stays.
    keeps: String,
    set_mode: String,
    set_ttl: String,
    /// The override in force.
    over: Option<overrides::Row>,
    invalidating: Invalidating,
    decision: Option<Decided>,
    history: Vec<Decided>,
}

/// A decision as it is shown.
struct Decided {
    when: String,
    state: String,
    class: &'static str,
    reason: String,
    flips: Vec<String>,
}

/// So many decisions of the past are shown.
const MOST_PAST: u32 = 50;

pub(super) async fn endpoint(
    State(plane): State<Arc<Plane>>,
    caller: Caller,
    target: Result<OfEndpoint, Problem>,
) -> Response {
    let (service, asked) = match target {
        Ok(OfEndpoint(service, endpoint)) => (service, endpoint),
        Err(problem) => return problem.into_response(),
    };
    let now = crate::auto::now();
    let config = plane.registry.config(&service, &asked);
    let method = Method::clone(asked.method());
    let endpoint = Endpoint::new(method, &config.endpoint).unwrap_or(asked);
    let history = plane
        .engines
        .history(&service, &endpoint, u64::MAX, MOST_PAST)
        .await;
    let history = history.unwrap_or_else(|error| {
        tracing::error!(%error, "the decisions of the past can't be read");
        Vec::new()
    });
    let record = plane.engines.last(&service, &endpoint).await;
    let record = record.or_else(|| history.first().copied());
    let set = plane.registry.service(&service);
    let over = set.as_ref().and_then(|snapshot| {
        let mut overrides = snapshot.overrides();
        let method = endpoint.method().as_str();
        overrides.find(|over| over.endpoint == endpoint.template() && over.method == method)
    });
    let set = set.and_then(|snapshot| snapshot.policy(&endpoint));
    let window = plane.measured.window(&service, &endpoint, now);
    let minutes = plane.measured.minutes(&service, &endpoint, now);
    let (state, class) = state_of(&config);
    let decided = |record: &Record| Decided::of(record, now.as_secs());
    let page = OneEndpoint {
        frame: Frame::of("", &caller),
        service: service.as_str().to_owned(),
        service_href: href_of(&service),
        keys_prefix: keys::encoded(before_parameters(endpoint.template())),
        name: name(endpoint.method().as_str(), endpoint.template()),
        full_name: endpoint.to_string(),
        state,
        class,
        mode: word(config.mode),
        source: source(&config),
        // What services were told does not change with the reason alone.
        reason: match (config.source, &record) {
            (Source::Auto, Some(record)) => record.sentence(),
            _ => config.reason.clone(),
        },
        tiles: Figures(window).tiles(),
        chart: Chart::new(&minutes, BUCKET_SECONDS, "the last five minutes"),
        curve: record.as_ref().map(Curve::of),
        policy_url: format!("/api/policies/{}{}", service.as_str(), path_of(&endpoint)),
        etag: set
            .as_ref()
            .map_or_else(String::new, |set| plane.registry.etag(set.version)),
        has_policy: set.is_some(),
        keeps: set.as_ref().map_or_else(String::new, |set| {
            serde_json::to_string(&set.policy).unwrap_or_default()
        }),
        set_mode: set
            .as_ref()
            .and_then(|set| set.policy.mode)
            .map_or("on", word)
            .to_owned(),
        set_ttl: set
            .as_ref()
            .and_then(|set| set.policy.ttl_seconds)
            .map_or_else(String::new, |ttl| ttl.to_string()),
        over: over.map(|over| overrides::row(&plane, over)),
        invalidating: Invalidating::endpoint(&service, &endpoint),
        decision: record.as_ref().map(decided),
        history: history.iter().map(decided).collect(),
        config,
    };
    show(StatusCode::OK, &page)
}

impl OneEndpoint {
    /// The modes there are, and what they do.
    fn modes(&self) -> [(&'static str, &'static str); 4] {
        [
            ("on", "on: cached"),
            ("off", "off: not cached"),
            ("auto", "auto: as the engine decides"),
            ("shadow", "shadow: the engine only says what it would do"),
        ]
    }
}

impl Decided {
    fn of(record: &Record, now: u64) -> Self {
        let (state, class) = state(record.after.is_on, record.after.ttl);
        let is_only_said = !record.limits.is_applied;
        Self {
            when: ago(now.saturating_sub(record.figures.now as u64)),
            state: match is_only_said {
                true => format!("would be {state}"),
                false => state,
            },
            class,
            reason: record.sentence(),
            flips: record
                .flips()
                .into_iter()
                .map(|flip| flip.sentence)
                .collect(),
        }
    }
}

fn before_parameters(template: &str) -> &str {
    template.split('{').next().unwrap_or_default()
}

fn source(config: &EndpointConfig) -> &'static str {
    match config.source {
        Source::Override => "an override",
        Source::Policy => "set by hand",
        Source::Auto => "left to the engine",
        Source::Default => "nobody set anything",
    }
}

fn word(mode: Mode) -> &'static str {
    match mode {
        Mode::On => "on",
        Mode::Off => "off",
        Mode::Auto => "auto",
        Mode::Shadow => "shadow",
    }
}
