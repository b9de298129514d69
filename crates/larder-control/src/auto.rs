//! The tick: what was measured becomes decisions.

use std::collections::HashSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use larder_model::{Endpoint, Service};

use crate::decision::Decision;
use crate::plane::Plane;

/// The time by the wall clock: decisions are kept across a restart. A clock that is set back makes them hold longer.
pub(crate) fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Decides again and again, while this process leads.
pub(crate) async fn run(plane: &Plane) {
    let mut begins = plane.leading.begins();
    let mut ticks = tokio::time::interval(plane.tick);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut led = false;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            // At once: nobody decided for a while.
            _ = begins.changed() => ticks.reset(),
        }
        let leads = plane.leading.holds();
        if leads && !led {
            plane.engines.forget_left_behind().await;
        }
        match leads {
            true => tick(plane, now()).await,
            false => rest(plane, now()).await,
        }
        led = leads;
    }
}

/// Another one decides: what was measured here it knows, and what was decided it keeps.
async fn rest(plane: &Plane, now: Duration) {
    plane.measured.forget_old(now);
    plane.measured.take_windows();
    plane.engines.retain(&HashSet::new()).await;
}

async fn tick(plane: &Plane, now: Duration) {
    plane.measured.forget_old(now);
    let mut waited = plane.measured.take_windows();
    if waited.crowded_out > 0 {
        plane.metrics.crowded_out.inc_by(waited.crowded_out);
        let windows = waited.crowded_out;
        tracing::warn!(
            windows,
            "more was measured than one tick takes in: the rest counts, but nothing is decided by it"
        );
    }
    let mut all = HashSet::new();
    for snapshot in plane.registry.services().values() {
        let service = snapshot.service();
        let mut news = Vec::new();
        for watched in snapshot.watched() {
            if !plane.leading.holds() {
                return;
            }
            let inbox = waited.by_service.get_mut(service);
            let windows = inbox.and_then(|inbox| inbox.remove(&watched.endpoint));
            let windows = windows.unwrap_or_default();
            all.insert((service.clone(), watched.endpoint.clone()));
            match plane.engines.tick(service, &watched, windows, now).await {
                Ok(decision) => news.extend(decision.map(|decision| (watched.endpoint, decision))),
                Err(error) => {
                    tracing::warn!(service = service.as_str(), %error, "the engine's figures could not be kept or read");
                }
            }
        }
        if !news.is_empty() {
            decide(plane, service, news).await;
        }
    }
    plane.engines.retain(&all).await;
}

async fn decide(plane: &Plane, service: &Service, news: Vec<(Endpoint, Decision)>) {
    match plane.registry.decide(service, news).await {
        Ok(changed) => {
            plane.metrics.decisions.inc_by(changed as u64);
            tracing::info!(service = service.as_str(), changed, "decided");
        }
        Err(error) => {
            tracing::warn!(service = service.as_str(), %error, "decisions could not be kept; the old ones hold");
        }
    }
}
