//! The overrides in force, of all services.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use larder_model::api::Override;
use larder_model::{Endpoint, Method, Service};

use super::figures::{lasts, who};
use super::{Frame, href, name, show};
use crate::access::Caller;
use crate::plane::Plane;

#[derive(Template)]
#[template(path = "overrides.html")]
struct Overrides {
    frame: Frame,
    overrides: Vec<Row>,
}

pub(super) struct Row {
    name: String,
    href: String,
    sets: String,
    pub(super) left: String,
    pub(super) who: String,
    pub(super) why: String,
    pub(super) url: String,
    pub(super) etag: String,
}

pub(super) async fn overrides(State(plane): State<Arc<Plane>>, caller: Caller) -> Response {
    let services = plane.registry.services();
    let seen = services
        .values()
        .filter(|snapshot| caller.sees(snapshot.service().as_str()));
    let overrides = seen.flat_map(|snapshot| snapshot.overrides());
    let page = Overrides {
        frame: Frame::of("/ui/overrides", &caller),
        overrides: overrides.map(|over| row(&plane, over)).collect(),
    };
    show(StatusCode::OK, &page)
}

/// An override as it is shown.
pub(super) fn row(plane: &Plane, over: Override) -> Row {
    let now = crate::auto::now().as_secs();
    let service = Service::new(&over.service_name);
    let method = Method::new(&over.method);
    let endpoint = method
        .ok()
        .and_then(|method| Endpoint::new(method, &over.endpoint).ok());
    let href = match (&service, &endpoint) {
        (Ok(service), Some(endpoint)) => href(service, endpoint),
        _ => String::new(),
    };
    Row {
        name: format!(
            "{} of {}",
            name(&over.method, &over.endpoint),
            over.service_name
        ),
        href,
        sets: serde_json::to_string(&over.policy).unwrap_or_default(),
        left: lasts(over.expires_at_seconds.saturating_sub(now)),
        who: who(&over.author, over.author_verified),
        why: over.reason,
        url: format!("/api/overrides/{}", over.id),
        etag: plane.registry.etag_of_override(&over.id),
    }
}
