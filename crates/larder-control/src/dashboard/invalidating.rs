//! The form that invalidates: it says before what it will do, and after what it did.

use larder_core::{Endpoint, Service};
use larder_model::api::Invalidation;

use super::figures::{ago, who};
use crate::plane::Plane;

/// What a form invalidates.
pub(super) struct Invalidating {
    pub(super) title: &'static str,
    pub(super) note: &'static str,
    /// What is asked before it is done.
    pub(super) what: String,
    /// The fields that name it.
    pub(super) fields: Vec<(&'static str, String)>,
}

impl Invalidating {
    pub(super) fn service(service: &Service) -> Self {
        Self {
            title: "Invalidate all of it",
            note: "Everything that is cached of this service is loaded anew, everywhere.",
            what: format!("Invalidate everything that is cached of {service}"),
            fields: vec![("service_name", service.as_str().to_owned())],
        }
    }

    pub(super) fn endpoint(service: &Service, endpoint: &Endpoint) -> Self {
        let template = endpoint.template();
        Self {
            title: "Invalidate",
            note: "What is cached of this endpoint is loaded anew, everywhere.",
            what: format!("Invalidate what is cached of {template} of {service}"),
            fields: vec![
                ("service_name", service.as_str().to_owned()),
                ("endpoint", template.to_owned()),
            ],
        }
    }

    pub(super) fn key(key: &str) -> Self {
        Self {
            title: "Delete",
            note: "This one entry is loaded anew, everywhere.",
            what: format!("Delete {key}"),
            fields: vec![("key", key.to_owned())],
        }
    }
}

/// An invalidation as it is shown.
pub(super) struct Done {
    pub(super) when: String,
    pub(super) what: String,
    pub(super) state: &'static str,
    pub(super) class: &'static str,
    pub(super) says: String,
    pub(super) who: String,
    pub(super) why: String,
}

/// So many are shown.
const MOST: usize = 10;

/// The latest of a service.
pub(super) fn latest(plane: &Plane, service: &Service) -> Vec<Done> {
    let now = crate::auto::now().as_secs();
    let latest = plane.invalidations.latest(|of| of == service, MOST);
    latest
        .iter()
        .map(|one| done(one.describe(plane), now))
        .collect()
}

fn done(one: Invalidation, now: u64) -> Done {
    let (state, class) = match one.state {
        larder_model::api::InvalidationState::Done => ("done", "on"),
        _ => ("pending", "off"),
    };
    Done {
        when: ago(now.saturating_sub(one.at_seconds)),
        what: match one.name {
            Some(name) => format!("{} {name}", one.what),
            None => "all of it".to_owned(),
        },
        state,
        class,
        says: one.says,
        who: who(&one.author, one.author_verified),
        why: one.reason,
    }
}
