//! All services.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::response::Response;
use http::{HeaderMap, StatusCode, header};
use larder_model::{Mode, Service, Window};

use super::chart::Chart;
use super::figures::{Figures, Tile, bytes, whole};
use super::{Frame, href, href_of, instances, show, state};
use crate::access::{Caller, Services};
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
pub(crate) async fn fleet(
    plane: &Arc<Plane>,
    caller: &Caller,
    is_sealed: bool,
    headers: &HeaderMap,
) -> Response {
    let now = crate::auto::now();
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let scheme = if is_sealed { "https" } else { "http" };
    let mut windows: BTreeMap<String, Window> = BTreeMap::new();
    let mut sum = Window::default();
    let measured = plane.measured.list(None, now);
    for measured in measured
        .into_iter()
        .filter(|one| caller.sees(&one.service_name))
    {
        sum.merge(&measured.window);
        windows
            .entry(measured.service_name)
            .or_default()
            .merge(&measured.window);
    }
    let page = Fleet {
        frame: Frame::of("/", caller),
        origin: format!("{scheme}://{}", host.unwrap_or("127.0.0.1:8000")),
        tiles: Figures(sum).tiles(),
        chart: Chart::new(&hour(plane, caller, now), 60, "the last hour"),
        services: rows(plane, caller, &windows),
        advice: advice(plane, caller).await,
        store: store(plane, caller).await,
    };
    show(StatusCode::OK, &page)
}

/// The last hour of all that the caller may see.
fn hour(plane: &Plane, caller: &Caller, now: Duration) -> Vec<Window> {
    let Services::These(names) = &*caller.services else {
        return plane.measured.hour(None, now);
    };
    let mut sum: Vec<Window> = Vec::new();
    for service in names.iter().filter_map(|name| Service::new(name).ok()) {
        let hour = plane.measured.hour(Some(&service), now);
        sum.resize_with(sum.len().max(hour.len()), Window::default);
        for (sum, window) in sum.iter_mut().zip(&hour) {
            sum.merge(window);
        }
    }
    sum
}

fn rows(plane: &Plane, caller: &Caller, windows: &BTreeMap<String, Window>) -> Vec<Row> {
    let snapshots = plane.registry.services();
    let measured: BTreeMap<String, u64> = plane.measured.services().into_iter().collect();
    let names: BTreeSet<&String> = snapshots
        .keys()
        .chain(measured.keys())
        .filter(|name| caller.sees(name))
        .collect();
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

/// Its figures are of all services.
async fn store(plane: &Plane, caller: &Caller) -> Option<StoreHealth> {
    let shared = plane.store.as_ref().filter(|_| caller.sees_all())?;
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

async fn advice(plane: &Plane, caller: &Caller) -> Vec<Advice> {
    let mut all = Vec::new();
    let services = plane.registry.services();
    let seen = services
        .values()
        .filter(|snapshot| caller.sees(snapshot.service().as_str()));
    for snapshot in seen {
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
