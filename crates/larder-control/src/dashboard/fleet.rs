//! All services.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use askama::Template;
use axum::response::Response;
use http::{HeaderMap, StatusCode, header};
use larder_model::{Mode, Service, Window};

use super::chart::Chart;
use super::figures::{Figures, Tile, bytes, whole};
use super::{Frame, href, href_of, instances, show, state};
use crate::plane::Plane;
use crate::routes::instances_of;

#[derive(Template)]
#[template(path = "fleet.html")]
struct Fleet {
    frame: Frame,
    origin: String,
    tiles: Vec<Tile>,
    chart: Chart,
    services: Vec<Row>,
    advice: Vec<Advice>,
    store: Option<StoreHealth>,
}

/// The store that the control plane has.
struct StoreHealth {
    name: String,
    /// Empty: it does not answer.
    facts: Vec<(&'static str, String)>,
}

struct Row {
    name: String,
    href: String,
    figures: Figures,
    endpoints: u64,
    policies: u64,
    version: u64,
    instances: String,
    instances_href: String,
}

/// What the engine decided, or would.
struct Advice {
    name: String,
    href: String,
    state: String,
    class: &'static str,
    reason: String,
}

/// So much advice is shown.
const MOST_ADVICE: usize = 20;

/// The first page.
pub(crate) async fn fleet(plane: &Arc<Plane>, headers: &HeaderMap) -> Response {
    let now = crate::auto::now();
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let mut windows: BTreeMap<String, Window> = BTreeMap::new();
    let mut sum = Window::default();
    for measured in plane.measured.list(None, now) {
        sum.merge(&measured.window);
        windows
            .entry(measured.service_name)
            .or_default()
            .merge(&measured.window);
    }
    let page = Fleet {
        frame: Frame::of("/"),
        origin: format!("http://{}", host.unwrap_or("127.0.0.1:8000")),
        tiles: Figures(sum).tiles(),
        chart: Chart::new(&plane.measured.hour(None, now), 60, "the last hour"),
        services: rows(plane, &windows),
        advice: advice(plane).await,
        store: store(plane).await,
    };
    show(StatusCode::OK, &page)
}

fn rows(plane: &Plane, windows: &BTreeMap<String, Window>) -> Vec<Row> {
    let snapshots = plane.registry.services();
    let measured: BTreeMap<String, u64> = plane.measured.services().into_iter().collect();
    let names: BTreeSet<&String> = snapshots.keys().chain(measured.keys()).collect();
    let row = |name: &String| {
        let snapshot = snapshots.get(name);
        Some(Row {
            href: href_of(&Service::new(name).ok()?),
            name: name.clone(),
            figures: Figures(windows.get(name).copied().unwrap_or_default()),
            endpoints: measured.get(name).copied().unwrap_or(0),
            policies: snapshot.map_or(0, |one| one.policies() as u64),
            version: snapshot.map_or(0, |one| one.version()),
            instances: instances::summary(&instances_of(plane, Service::new(name).ok().as_ref())),
            instances_href: format!("/ui/instances?service={name}"),
        })
    };
    names.into_iter().filter_map(row).collect()
}

async fn store(plane: &Plane) -> Option<StoreHealth> {
    let shared = plane.store.as_ref()?;
    let facts = shared.stats().await.map_or_else(Vec::new, |stats| {
        let count = |count: Option<u64>| count.map(whole);
        let used = stats.used_bytes.map(|used| match stats.limit_bytes {
            Some(limit) => format!("{} of {}", bytes(used), bytes(limit)),
            None => bytes(used),
        });
        let facts = [
            ("Entries", count(stats.entries)),
            ("Used", used),
            ("Evicted", count(stats.evictions)),
            ("Expired", count(stats.expired)),
            ("Damaged", count(stats.damaged)),
        ];
        let told = facts
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        told.collect()
    });
    Some(StoreHealth {
        name: shared.name(),
        facts,
    })
}

async fn advice(plane: &Plane) -> Vec<Advice> {
    let mut all = Vec::new();
    for snapshot in plane.registry.services().values() {
        for watched in snapshot.watched() {
            if all.len() >= MOST_ADVICE {
                return all;
            }
            let (service, endpoint) = (snapshot.service(), &watched.endpoint);
            let Some(record) = plane.engines.last(service, endpoint).await else {
                continue;
            };
            let is_shadow = plane.registry.config(service, endpoint).mode == Mode::Shadow;
            if is_shadow && !record.after.is_on {
                continue;
            }
            let (state, class) = state(record.after.is_on, record.after.ttl);
            all.push(Advice {
                name: format!("{} of {}", endpoint, service.as_str()),
                href: href(service, endpoint),
                state: match is_shadow {
                    true => format!("would be {state}"),
                    false => state,
                },
                class,
                reason: record.sentence(),
            });
        }
    }
    all
}
