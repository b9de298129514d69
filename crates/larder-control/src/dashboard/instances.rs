//! Every instance: which version it has in force, since when, over what it came, and what it rejected.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use larder_http::Problem;
use larder_model::Service;
use larder_model::api::{InstanceState, InstanceSummary, Via};

use super::figures::ago;
use super::{Frame, href_of, show};
use crate::access::Caller;
use crate::plane::Plane;
use crate::routes::{Filter, instances_of};
use crate::target::Asked;

#[derive(Template)]
#[template(path = "instances.html")]
struct Instances {
    frame: Frame,
    /// The one whose instances they are; empty: all.
    only: String,
    summary: String,
    rows: Vec<Row>,
}

struct Row {
    service: String,
    href: String,
    instance: String,
    state: &'static str,
    class: &'static str,
    version: String,
    via: &'static str,
    since: String,
    heard_of: String,
    rejected: String,
}

pub(super) async fn instances(
    State(plane): State<Arc<Plane>>,
    caller: Caller,
    filter: Result<Asked<Filter>, Problem>,
) -> Response {
    let only = match filter.and_then(|Asked(filter)| filter.only(&caller)) {
        Ok(only) => only,
        Err(problem) => return problem.into_response(),
    };
    let mut all = instances_of(&plane, only.as_ref());
    all.retain(|one| caller.sees(&one.service_name));
    // Those that stand out stand first.
    all.sort_by_key(|one| weight(one.state));
    let page = Instances {
        frame: Frame::of("/ui/instances", &caller),
        only: only.map_or_else(String::new, |only| only.as_str().to_owned()),
        summary: summary(&all),
        rows: all.into_iter().map(row).collect(),
    };
    show(StatusCode::OK, &page)
}

fn weight(state: InstanceState) -> u8 {
    match state {
        InstanceState::Rejected => 0,
        InstanceState::Stale => 1,
        InstanceState::Gone => 2,
        InstanceState::Current => 3,
    }
}

/// How many there are of each, those that there are.
pub(super) fn summary(all: &[InstanceSummary]) -> String {
    let states = [
        InstanceState::Current,
        InstanceState::Stale,
        InstanceState::Rejected,
        InstanceState::Gone,
    ];
    let counts = states.map(|state| (all.iter().filter(|one| one.state == state).count(), state));
    let words: Vec<String> = counts
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, state)| format!("{count} {}", state.as_str()))
        .collect();
    words.join(", ")
}

fn row(one: InstanceSummary) -> Row {
    let class = match one.state {
        InstanceState::Current => "on",
        InstanceState::Stale => "off",
        InstanceState::Rejected => "bad",
        InstanceState::Gone => "",
    };
    let version = match one.version {
        None => format!("none of {}", one.current_version),
        Some(version) if version == one.current_version => version.to_string(),
        Some(version) => format!("{version} of {}", one.current_version),
    };
    let rejected = one.rejected.map_or_else(String::new, |rejected| {
        let tag = rejected.tag.unwrap_or_else(|| "without a tag".to_owned());
        format!("{tag}, {}: {}", ago(rejected.seconds_ago), rejected.reason)
    });
    Row {
        href: Service::new(&one.service_name).map_or_else(|_| String::new(), |it| href_of(&it)),
        service: one.service_name,
        instance: one.instance,
        state: one.state.as_str(),
        class,
        since: match one.version {
            Some(_) => ago(one.activated_seconds_ago),
            None => "–".to_owned(),
        },
        version,
        via: match one.via {
            Via::Stream => "stream",
            Via::Poll => "asking",
            Via::LastKnownGood => "its disk",
            Via::Defaults => "its own defaults",
        },
        heard_of: ago(one.seen_seconds_ago),
        rejected,
    }
}
