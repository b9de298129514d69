//! Tells the control plane which policies are in force here: when that changes, and every half minute.

use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_core::api::{InstanceReport, RejectedReport};
use tokio::sync::watch;

use crate::client::Shared;
use crate::fetch::Remote;
use crate::intake::Standing;
use crate::poll::chance;

/// Told this often, if nothing changes.
const INTERVAL: Duration = Duration::from_secs(30);
/// After a failure, sooner.
const AGAIN: Duration = Duration::from_secs(5);
/// A change is told after a random part of this time: all instances have it at once.
const SPREAD: Duration = Duration::from_secs(1);
/// The last word may take this long.
const LAST_WORD: Duration = Duration::from_secs(1);

pub(crate) struct Announce {
    pub(crate) shared: Arc<Shared>,
    pub(crate) remote: Arc<Remote>,
    /// The name that is in the windows, too.
    pub(crate) instance: String,
}

impl Announce {
    pub(crate) async fn run(self, mut closing: watch::Receiver<bool>) {
        let mut has_announced = false;
        tokio::select! {
            () = self.announce(&mut has_announced) => {}
            _ = closing.changed() => {}
        }
        if has_announced {
            // Nobody is missed who said that he goes. What can't be told now is found out.
            let report = self.report(true);
            let last = self.remote.announce(&report);
            let _ = tokio::time::timeout(LAST_WORD, last).await;
        }
    }

    async fn announce(&self, has_announced: &mut bool) {
        let mut standing = self.shared.standing.subscribe();
        standing.mark_changed();
        let mut reached = self.shared.invalidations.reached();
        let mut wait = AGAIN;
        loop {
            tokio::select! {
                // Its sender lives as long as we do.
                _ = standing.changed() => tokio::time::sleep(SPREAD.mul_f64(chance())).await,
                _ = reached.changed() => tokio::time::sleep(SPREAD.mul_f64(chance())).await,
                () = tokio::time::sleep(wait.mul_f64(0.8 + 0.4 * chance())) => {}
            }
            // What changes from here on is told next time.
            standing.mark_unchanged();
            reached.mark_unchanged();
            wait = match self.remote.announce(&self.report(false)).await {
                Ok(()) => {
                    *has_announced = true;
                    INTERVAL
                }
                Err(error) => {
                    tracing::debug!(%error, "the control plane could not be told what is in force here");
                    AGAIN
                }
            };
        }
    }

    fn report(&self, leaving: bool) -> InstanceReport {
        let Standing {
            version,
            tag,
            via,
            since,
            rejected,
        } = self.shared.standing.borrow().clone();
        let reached = self.shared.invalidations.reached().borrow().clone();
        InstanceReport {
            service_name: self.shared.service.as_str().to_owned(),
            instance: self.instance.clone(),
            version,
            tag,
            via,
            activated_ago_ms: since.map_or(0, ago_ms),
            rejected: rejected.map(|rejected| RejectedReport {
                tag: rejected.tag,
                reason: rejected.reason,
                ago_ms: ago_ms(rejected.at),
            }),
            invalidated: reached.position,
            invalidation_trouble: reached.trouble,
            leaving,
        }
    }
}

fn ago_ms(then: Instant) -> u64 {
    u64::try_from(then.elapsed().as_millis()).unwrap_or(u64::MAX)
}
