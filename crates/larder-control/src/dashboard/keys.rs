//! What lies in the store that the control plane has: a service's keys, and one entry.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use larder_core::{Key, Service};
use larder_http::Problem;
use larder_model::api::{EntryDetail, KeyExplanation, KeySummary};

use super::figures::{bytes, seconds};
use super::{Frame, Invalidating, href_of, show};
use crate::access::Caller;
use crate::plane::Plane;
use crate::routes::keys::{self, WhichKey, WhichKeys};
use crate::target::{Asked, OfService};

#[derive(Template)]
#[template(path = "keys.html")]
struct Keys {
    frame: Frame,
    service: String,
    service_href: String,
    prefix: String,
    has_store: bool,
    store: String,
    /// Why they can't be listed.
    trouble: String,
    keys: Vec<Row>,
    /// Where the next page is; empty: nowhere.
    next: String,
    is_first: bool,
}

struct Row {
    key: String,
    href: String,
    ttl: String,
    size: String,
}

#[derive(Template)]
#[template(path = "entry.html")]
struct OneEntry {
    frame: Frame,
    service: String,
    service_href: String,
    keys_href: String,
    key: String,
    has_store: bool,
    trouble: String,
    explained: Option<Explained>,
    invalidating: Invalidating,
}

struct Explained {
    verdict: String,
    class: &'static str,
    because: String,
    rule: String,
    policy: String,
    store: String,
    lease: String,
    is_pending: bool,
    entry: Option<Shown>,
}

/// An entry as it is shown.
struct Shown {
    facts: Vec<(&'static str, String)>,
    stamps: Vec<(String, String, &'static str)>,
    value: Option<String>,
    is_cut: bool,
    why: Option<String>,
}

/// So many bytes of a value are shown.
const SHOWN: u64 = 4_096;

pub(super) async fn list(
    State(plane): State<Arc<Plane>>,
    caller: Caller,
    target: Result<OfService, Problem>,
    which: Result<Asked<WhichKeys>, Problem>,
) -> Response {
    let (service, which) = match (target, which) {
        (Ok(OfService(service)), Ok(Asked(which))) => (service, which),
        (Err(problem), _) | (_, Err(problem)) => return problem.into_response(),
    };
    let prefix = which.prefix.clone();
    let is_first = which.after.is_none();
    let mut page = Keys {
        frame: Frame::of("", &caller),
        service: service.as_str().to_owned(),
        service_href: href_of(&service),
        prefix: prefix.clone(),
        has_store: plane.store.is_some(),
        store: String::new(),
        trouble: String::new(),
        keys: Vec::new(),
        next: String::new(),
        is_first,
    };
    if page.has_store {
        match keys::keys(&plane, &service, which).await {
            Ok(list) => {
                page.store = list.store;
                page.keys = list.keys.into_iter().map(row).collect();
                page.next = list.next.map_or_else(String::new, |after| {
                    format!("?prefix={}&after={}", encoded(&prefix), encoded(&after))
                });
            }
            Err(problem) => page.trouble = said(&problem),
        }
    }
    show(StatusCode::OK, &page)
}

pub(super) async fn entry(
    State(plane): State<Arc<Plane>>,
    caller: Caller,
    target: Result<OfService, Problem>,
    which: Result<Asked<WhichKey>, Problem>,
) -> Response {
    let (service, key) = match (target, which) {
        (Ok(OfService(service)), Ok(Asked(which))) => (service, which.key),
        (Err(problem), _) | (_, Err(problem)) => return problem.into_response(),
    };
    let of_key = Key::parse(&key).map(|key| Service::from(&key));
    if of_key.is_ok_and(|of_key| of_key != service) {
        let problem = Problem::new(StatusCode::BAD_REQUEST);
        return problem
            .detail("the key is of another service")
            .into_response();
    }
    let mut page = OneEntry {
        frame: Frame::of("", &caller),
        service: service.as_str().to_owned(),
        service_href: href_of(&service),
        keys_href: format!("/ui/keys/{}", service.as_str()),
        has_store: plane.store.is_some(),
        trouble: String::new(),
        explained: None,
        invalidating: Invalidating::key(&key),
        key,
    };
    if page.has_store {
        match keys::explain(&plane, &caller, &page.key).await {
            Ok(explanation) => page.explained = Some(explained(explanation)),
            Err(problem) => page.trouble = said(&problem),
        }
    }
    show(StatusCode::OK, &page)
}

fn row(key: KeySummary) -> Row {
    let service = key.key.split(':').nth(1).unwrap_or_default();
    Row {
        href: format!("/ui/keys/{service}/entry?key={}", encoded(&key.key)),
        ttl: key.ttl_seconds.map_or_else(|| "no end".to_owned(), seconds),
        size: key.bytes.map_or_else(|| "–".to_owned(), bytes),
        key: key.key,
    }
}

fn explained(explanation: KeyExplanation) -> Explained {
    let class = match explanation.lookup.as_str() {
        "hit" => "on",
        "bypass" => "off",
        _ => "",
    };
    Explained {
        class,
        verdict: explanation.lookup,
        because: explanation.because,
        rule: explanation.rule,
        policy: explanation.policy,
        store: explanation.store,
        lease: match explanation.lease_left_seconds {
            Some(left) => format!("held for {} more, unless it is extended", seconds(left)),
            None => "none: nobody loads it".to_owned(),
        },
        is_pending: explanation.pending,
        entry: explanation.entry.map(shown),
    }
}

fn shown(entry: EntryDetail) -> Shown {
    let mut form = entry.form;
    for (is_so, word) in [(entry.packed, ", packed"), (entry.sealed, ", sealed")] {
        if is_so {
            form.push_str(word);
        }
    }
    let time = |time: Option<f64>, none: &str| time.map_or_else(|| none.to_owned(), seconds);
    let mut facts = vec![
        ("Form", form),
        ("Size in the store", bytes(entry.bytes)),
        ("Lives for", time(entry.left_seconds, "no end")),
        ("Age", time(entry.age_seconds, "it does not say")),
    ];
    if let Some(fresh) = entry.fresh_seconds {
        facts.push(("Fresh for, in all", seconds(fresh)));
    }
    if let Some(value) = entry.value_bytes {
        facts.push(("The value", bytes(value)));
    }
    let stamps = entry.stamps.into_iter().map(|stamp| {
        let (words, class) = match stamp.state.as_str() {
            "same" => ("as it was", "on"),
            "renewed" => ("invalidated since", "off"),
            "other_life" => ("its server lost writes since", "off"),
            _ => ("an invalidation is pending", "off"),
        };
        (stamp.name, words.to_owned(), class)
    });
    Shown {
        facts,
        stamps: stamps.collect(),
        is_cut: entry.value_bytes.is_some_and(|bytes| bytes > SHOWN),
        value: entry.value,
        why: entry.why,
    }
}

/// What a problem says.
fn said(problem: &Problem) -> String {
    problem
        .text()
        .unwrap_or("the store did not answer")
        .to_owned()
}

/// A text as a part of a query.
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
