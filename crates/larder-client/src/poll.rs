//! Policies in, where there is no stream: asks again and again.

use std::time::Duration;

use larder_core::api::Via;

use crate::fetch::{Fetched, Remote};
use crate::intake::Intake;

/// The control plane is asked this often, so that a change is acted on within 5 s.
const INTERVAL: Duration = Duration::from_secs(2);
/// While it is away it is asked no less often.
const MAX_INTERVAL: Duration = Duration::from_secs(4);

/// Asks once; whether there was an answer.
pub(crate) async fn ask(remote: &Remote, intake: &mut Intake) -> bool {
    let known: Vec<&str> = intake.known().collect();
    let fetched = remote.config(&known).await;
    intake.shared.status().connected = fetched.is_ok();
    match fetched {
        Ok((fetched, position)) => {
            match fetched {
                Fetched::Known(etag) => intake.has(etag.as_deref(), Via::Poll),
                Fetched::Changed { body, etag } => intake.take(&body, etag, Via::Poll).await,
            }
            let received = intake.shared.invalidations.received();
            if position.is_some_and(|position| position != received) {
                catch_up(remote, intake, &received).await;
            }
        }
        Err(error) => {
            intake.complain(&format!("no policies from the control plane: {error}"));
            return false;
        }
    }
    true
}

/// Asks for the invalidations that were missed. What can't be had is asked for the next time.
async fn catch_up(remote: &Remote, intake: &Intake, received: &str) {
    match remote.missed(received).await {
        Ok(missed) => intake.shared.invalidations.catch_up(&missed),
        Err(error) => {
            tracing::debug!(%error, "what was invalidated can't be asked for");
        }
    }
}

/// How long to wait before asking again: some 2 s, less or more by chance so that clients don't ask in step; longer
/// after failures.
pub(crate) fn pause(failures: u32, chance: f64) -> Duration {
    let longest = INTERVAL
        .mul_f64(1.5_f64.powi(failures.min(8).cast_signed()))
        .min(MAX_INTERVAL);
    longest.mul_f64(0.8 + 0.2 * chance)
}

/// From 0 to 1.
pub(crate) fn chance() -> f64 {
    getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_asked_for_in_time() {
        for failures in [0, 1, 2, 100, u32::MAX] {
            for chance in [0.0, 0.5, 1.0] {
                let pause = pause(failures, chance);
                assert!(
                    (Duration::from_millis(1_600)..=MAX_INTERVAL).contains(&pause),
                    "{pause:?}"
                );
            }
        }
    }
}
