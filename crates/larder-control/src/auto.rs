//! The tick: what was measured becomes decisions.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::plane::Plane;

/// Decisions are made this often.
const TICK: Duration = Duration::from_secs(2);

/// The time by the wall clock: decisions are kept across a restart. A clock that is set back makes them hold longer.
pub(crate) fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Decides again and again.
pub(crate) async fn run(plane: &Plane) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        tick(plane, now()).await;
    }
}

async fn tick(plane: &Plane, now: Duration) {
    plane.measured.forget_old(now);
    for snapshot in plane.registry.services().values() {
        if !snapshot.has_auto() {
            continue;
        }
        let service = snapshot.service();
        let decided = plane.registry.decide(service, |endpoint, current| {
            let window = plane.measured.window(service, endpoint, now);
            larder_decide::decide(endpoint.method().as_str(), &window, current, now)
        });
        match decided.await {
            Ok(0) => {}
            Ok(changed) => {
                plane.metrics.decisions.inc_by(changed as u64);
                tracing::info!(service = service.as_str(), changed, "decided");
            }
            Err(error) => {
                tracing::warn!(service = service.as_str(), %error, "decisions could not be kept; the old ones hold");
            }
        }
    }
}
