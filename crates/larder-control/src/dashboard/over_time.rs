//! One service over the last day, by minute, or over the last 90 days, by hour: what is kept for longer than memory has it.

use std::collections::BTreeMap;
use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use larder_http::Problem;
use larder_model::{Service, Window};

use super::figures::{ms, time, whole};
use super::series::{Plot, Series, hit_ms_mean};
use super::{Frame, figures, href_of, show};
use crate::access::Caller;
use crate::plane::Plane;
use crate::rollups::Step;
use crate::routes::unread;
use crate::target::{Asked, OfService};

#[derive(Template)]
#[template(path = "over_time.html")]
struct OverTime {
    frame: Frame,
    service: String,
    service_href: String,
    spans: [Span; 2],
    span: &'static str,
    /// Empty: nothing is kept of that time.
    plots: Vec<Plot>,
    /// The times below the pictures, oldest first, as far from each other as from the next.
    times: &'static [&'static str],
    rows: Vec<Row>,
}

/// One that can be chosen.
struct Span {
    href: &'static str,
    name: &'static str,
    is_here: bool,
}

/// Several stretches, in figures.
struct Row {
    when: String,
    requests: String,
    hits: String,
    origin: String,
    hit: String,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Shown {
    step: Option<Step>,
}

pub(super) async fn over_time(
    State(plane): State<Arc<Plane>>,
    caller: Caller,
    target: Result<OfService, Problem>,
    shown: Result<Asked<Shown>, Problem>,
) -> Response {
    let page = async {
        let OfService(service) = target?;
        let Asked(Shown { step }) = shown?;
        made(&plane, &caller, &service, step.unwrap_or(Step::Minute)).await
    };
    page.await.unwrap_or_else(|problem| problem.into_response())
}

async fn made(
    plane: &Plane,
    caller: &Caller,
    service: &Service,
    step: Step,
) -> Result<Response, Problem> {
    let (length, span) = (step.seconds(), step.kept_seconds());
    let now = crate::auto::now().as_secs();
    let begin = (now - now % length).saturating_sub(span);
    let count = usize::try_from(span / length).unwrap_or_default();
    let database = plane.registry.database();
    let most = u32::try_from(count).unwrap_or(u32::MAX);
    let kept = database.rollups(Some(service), length, begin, most).await;
    let kept = kept.map_err(unread)?;
    let kept: Vec<(u64, Window)> = kept
        .into_iter()
        .map(|(_, at, window)| (at, window))
        .collect();
    let page = OverTime {
        frame: Frame::of("", caller),
        service: service.as_str().to_owned(),
        service_href: href_of(service),
        spans: [
            Span {
                href: "?step=minute",
                name: "Last day",
                is_here: step == Step::Minute,
            },
            Span {
                href: "?step=hour",
                name: "Last 90 days",
                is_here: step == Step::Hour,
            },
        ],
        span: match step {
            Step::Minute => "the last day",
            Step::Hour => "the last 90 days",
        },
        plots: plots(&kept, begin, length, count),
        times: match step {
            Step::Minute => &["24 h ago", "18 h", "12 h", "6 h", "now"],
            Step::Hour => &["90 days", "60 days", "30 days", "now"],
        },
        rows: rows(&kept, step),
    };
    Ok(show(StatusCode::OK, &page))
}

fn plots(kept: &[(u64, Window)], begin: u64, length: u64, count: usize) -> Vec<Plot> {
    let place = |at: u64| usize::try_from(at.saturating_sub(begin) / length).ok();
    let measured: Vec<(usize, Window)> = kept
        .iter()
        .filter_map(|(at, window)| Some((place(*at)?, *window)))
        .filter(|(place, _)| *place < count)
        .collect();
    if measured.is_empty() {
        return Vec::new();
    }
    let series = Series {
        count,
        measured: &measured,
    };
    vec![series.hits(), series.latencies()]
}

/// By hour, or by day; newest first.
fn rows(kept: &[(u64, Window)], step: Step) -> Vec<Row> {
    let each = step.larger_seconds();
    let mut sums: BTreeMap<u64, Window> = BTreeMap::new();
    for (at, window) in kept {
        sums.entry(at - at % each).or_default().merge(window);
    }
    let rows = sums.iter().rev();
    rows.map(|(at, window)| row(*at, window, step)).collect()
}

fn row(at: u64, window: &Window, step: Step) -> Row {
    let none = || "–".to_owned();
    // `2026-11-28T14:00:00Z`, as far as it tells them apart.
    let when: String = match step {
        Step::Minute => time(at).chars().take(16).collect(),
        Step::Hour => time(at).chars().take(10).collect(),
    };
    Row {
        when: when.replace('T', " "),
        requests: whole(window.requests()),
        hits: window.hit_ratio().map_or_else(none, figures::percent),
        origin: window.origin_ms_mean().map_or_else(none, ms),
        hit: hit_ms_mean(window).map_or_else(none, ms),
    }
}
