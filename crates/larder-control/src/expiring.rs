//! Ends overrides when their time is over.

use std::time::Duration;

use crate::moment::Moment;
use crate::plane::Plane;

/// What could not be ended is tried again after this.
const AGAIN: Duration = Duration::from_secs(1);

/// Looks at the clocks again and again, while this process leads.
pub(crate) async fn run(plane: &Plane) {
    let mut is_failing = false;
    loop {
        if !plane.leading.holds() {
            tokio::time::sleep(AGAIN).await;
            continue;
        }
        let ended = plane.registry.expire(Moment::now()).await;
        if let Err(error) = &ended
            && !is_failing
        {
            tracing::warn!(%error, "an override that is over could not be ended: it holds until it can");
        }
        is_failing = ended.is_err();
        let sleep = match is_failing {
            true => AGAIN,
            false => plane.registry.sleep(Moment::now()),
        };
        tokio::time::sleep(sleep).await;
    }
}
