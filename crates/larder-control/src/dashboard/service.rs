//! One service: its endpoints.

use std::collections::BTreeMap;
use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use larder_http::Problem;
use larder_model::{Endpoint, Service, Window};

use super::chart::Chart;
use super::figures::{Figures, Tile};
use super::{
    Frame, Invalidating, href, instances, invalidating, missing, mode_of, name, show, state_of,
};
use crate::access::Caller;
use crate::plane::Plane;
use crate::routes::instances_of;
use crate::target::OfService;

#[derive(Template)]
#[template(path = "service.html")]
struct OneService {
    frame: Frame,
    name: String,
    history_href: String,
    tiles: Vec<Tile>,
    chart: Chart,
    endpoints: Vec<Row>,
    instances: String,
    invalidated: Vec<invalidating::Done>,
    invalidating: Invalidating,
}

struct Row {
    name: String,
    /// Empty: it has no page.
    href: String,
    state: String,
    class: &'static str,
    mode: &'static str,
    reason: String,
    figures: Figures,
}

pub(super) async fn service(
    State(plane): State<Arc<Plane>>,
    caller: Caller,
    target: Result<OfService, Problem>,
) -> Response {
    let service = match target {
        Ok(OfService(service)) => service,
        Err(problem) => return problem.into_response(),
    };
    let now = crate::auto::now();
    let measured = plane.measured.list(Some(&service), now);
    let instances = instances_of(&plane, Some(&service));
    let invalidated = invalidating::latest(&plane, &service);
    let has_set = plane.registry.service(&service).is_some();
    if measured.is_empty() && !has_set && instances.is_empty() && invalidated.is_empty() {
        return missing(&caller, format!("No service {service} is known"));
    }
    let mut sum = Window::default();
    let mut windows = BTreeMap::new();
    for one in measured {
        sum.merge(&one.window);
        windows.insert((one.endpoint, one.method), one.window);
    }
    if let Some(snapshot) = plane.registry.service(&service) {
        for policy in snapshot.list().policies {
            windows.entry((policy.endpoint, policy.method)).or_default();
        }
    }
    let page = OneService {
        frame: Frame::of("", &caller),
        name: service.as_str().to_owned(),
        instances: instances::summary(&instances),
        invalidated,
        invalidating: Invalidating::service(&service),
        history_href: format!("/ui/history/{}", service.as_str()),
        tiles: Figures(sum).tiles(),
        chart: Chart::new(
            &plane.measured.hour(Some(&service), now),
            60,
            "the last hour",
        ),
        endpoints: windows
            .into_iter()
            .map(|((template, method), window)| row(&plane, &service, &template, &method, window))
            .collect(),
    };
    show(StatusCode::OK, &page)
}

fn row(plane: &Plane, service: &Service, template: &str, method: &str, window: Window) -> Row {
    let parsed = larder_model::Method::new(method).map(|method| Endpoint::new(method, template));
    let figures = Figures(window);
    // `other` is none.
    let Ok(Ok(endpoint)) = parsed else {
        return Row {
            name: template.to_owned(),
            href: String::new(),
            state: "–".to_owned(),
            class: "",
            mode: "–",
            reason: "endpoints past the bound".to_owned(),
            figures,
        };
    };
    let config = plane.registry.config(service, &endpoint);
    let (state, class) = state_of(&config);
    Row {
        name: name(method, template),
        href: href(service, &endpoint),
        state,
        class,
        mode: mode_of(&config),
        reason: config.reason,
        figures,
    }
}
