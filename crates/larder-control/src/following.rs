//! What other replicas did, taken over: as soon as they say so, and every few seconds, in case they could not be heard.

use std::time::Duration;

use crate::database::Heard;
use crate::plane::Plane;
use crate::registry::ChangeError;

/// How often it is looked for what was not heard.
const LOOK: Duration = Duration::from_secs(5);
/// While the database is away.
const AGAIN: Duration = Duration::from_secs(1);

/// Listens again and again; where there are no other replicas, for ever.
pub(crate) async fn run(plane: &Plane) {
    let Some(mut listener) = plane.registry.database().listener() else {
        return std::future::pending().await;
    };
    let (mut is_away, mut is_unread) = (false, false);
    loop {
        let wait = if is_away { AGAIN } else { LOOK };
        let heard = listener.wait(wait).await;
        let caught_up = plane.registry.catch_up().await;
        if let Err(error) = plane.invalidations.catch_up().await {
            tracing::debug!(%error, "what other replicas invalidated is heard of later");
        }
        match &caught_up {
            Ok(changed) => {
                if is_away {
                    tracing::info!("the database is back");
                }
                // What was to be said of it was not heard.
                if *changed > 0 && heard == Heard::Nothing {
                    listener.reconnect();
                }
            }
            Err(ChangeError::Database(error)) if !is_away => {
                tracing::warn!(%error, "the database is away: policies are served from memory, and can't be changed");
            }
            Err(ChangeError::Database(_) | ChangeError::Busy) => {}
            Err(error) if !is_unread => {
                tracing::error!(%error, "what another replica changed can't be taken over: what was before holds");
            }
            Err(_) => {}
        }
        is_away = matches!(caught_up, Err(ChangeError::Database(_)));
        is_unread = !is_away && caught_up.is_err_and(|error| !matches!(error, ChangeError::Busy));
    }
}
