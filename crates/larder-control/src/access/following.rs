//! Follows what other processes change, and writes down which keys were used.

use std::time::Duration;

use crate::plane::Plane;
use crate::registry::ChangeError;

/// How often it is looked: what is revoked elsewhere is revoked here after so long.
const EVERY: Duration = Duration::from_secs(2);
/// Uses are written down each so many times.
const USES: u32 = 30;

/// Looks again and again.
pub(crate) async fn run(plane: &Plane) {
    let mut is_failing = false;
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for tick in 1_u32.. {
        ticks.tick().await;
        let followed = follow(plane, tick.is_multiple_of(USES)).await;
        if let Err(error) = &followed
            && !is_failing
        {
            tracing::warn!(%error, "the database can't be asked for keys: those that are known are used");
        }
        is_failing = followed.is_err();
    }
}

async fn follow(plane: &Plane, writes_uses: bool) -> Result<(), ChangeError> {
    if plane.access.refresh().await? {
        // Who changed them elsewhere wrote that into the trail.
        plane.registry.catch_up().await?;
    }
    if writes_uses {
        plane.access.write_uses().await?;
    }
    Ok(())
}
