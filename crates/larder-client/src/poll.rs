//! Policies in: asks again and again, and puts in force what can be.

use std::sync::Arc;
use std::time::Duration;

use larder_core::api::ServiceConfig;
use tokio::sync::watch;

use crate::client::Shared;
use crate::fetch::{Fetched, Remote};
use crate::known_good::{Kept, KnownGood};
use crate::policies::{Policies, Unusable};

/// The control plane is asked this often, so that a change is acted on within 5 s.
const INTERVAL: Duration = Duration::from_secs(2);
/// While it is away it is asked no less often.
const MAX_INTERVAL: Duration = Duration::from_secs(4);

pub(crate) struct Poll {
    pub(crate) shared: Arc<Shared>,
    pub(crate) remote: Arc<Remote>,
    pub(crate) known_good: Option<Arc<KnownGood>>,
    /// The tag of what is in force.
    pub(crate) etag: Option<String>,
    /// The tag of an answer that could not be put in force: it is not asked for again.
    pub(crate) parked: Option<String>,
}

impl Poll {
    pub(crate) async fn run(mut self, mut closing: watch::Receiver<bool>) {
        let mut failures = 0;
        loop {
            tokio::select! {
                is_well = self.ask() => failures = if is_well { 0 } else { failures + 1 },
                _ = closing.changed() => return,
            }
            tokio::select! {
                () = tokio::time::sleep(pause(failures)) => {}
                _ = closing.changed() => return,
            }
        }
    }

    /// Asks once; whether there was an answer.
    async fn ask(&mut self) -> bool {
        let known: Vec<&str> = [&self.etag, &self.parked]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect();
        let fetched = self.remote.config(&known).await;
        self.shared.status().connected = fetched.is_ok();
        match fetched {
            Ok(fetched) => self.take(fetched).await,
            Err(error) => {
                self.complain(&format!("no policies from the control plane: {error}"));
                return false;
            }
        }
        true
    }

    async fn take(&mut self, fetched: Fetched) {
        let (body, etag) = match fetched {
            Fetched::Known(etag) if etag.is_some() && etag == self.parked => return,
            Fetched::Known(_) => return self.confirm(),
            Fetched::Changed { body, etag } => (body, etag),
        };
        match self.activate(&body) {
            Ok(config) => {
                self.etag.clone_from(&etag);
                self.parked = None;
                self.keep(Kept { etag, config }).await;
            }
            Err(error) => {
                self.parked = etag;
                self.complain(&format!(
                    "the control plane's answer is not put in force: {error}"
                ));
            }
        }
    }

    /// What is in force is what the control plane has.
    fn confirm(&mut self) {
        self.parked = None;
        let mut status = self.shared.status();
        status.from_disk = false;
        if status.trouble.take().is_some() {
            tracing::info!(
                service = self.shared.service.as_str(),
                "the control plane confirms what is in force"
            );
        }
    }

    /// Puts all of an answer in force, or nothing of it.
    fn activate(&self, body: &[u8]) -> Result<ServiceConfig, Unusable> {
        let config: ServiceConfig = serde_json::from_slice(body)?;
        let policies = Policies::new(&config, &self.shared, &self.shared.policies.load())?;
        let policies = Arc::new(policies);
        let before = self.shared.policies.swap(Arc::clone(&policies));
        for (endpoint, counters) in before.counted().filter(|(gone, _)| !policies.has(gone)) {
            self.shared
                .recorder
                .add(endpoint.to_string(), &counters.take());
        }
        let mut status = self.shared.status();
        status.version = Some(config.version);
        status.from_disk = false;
        status.trouble = None;
        tracing::info!(
            service = self.shared.service.as_str(),
            version = config.version,
            "policies in force"
        );
        Ok(config)
    }

    async fn keep(&self, kept: Kept) {
        let Some(known_good) = self.known_good.clone() else {
            return;
        };
        let written = tokio::task::spawn_blocking(move || known_good.write(&kept)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "the policies could not be kept for the next start");
        }
    }

    /// Says what is wrong, once for as long as it is the same.
    fn complain(&self, what: &str) {
        let what = larder_core::escape(what).into_owned();
        let mut status = self.shared.status();
        if status.trouble.as_deref() != Some(&what) {
            tracing::warn!(
                service = self.shared.service.as_str(),
                "{what}; what was in force stays so"
            );
            status.trouble = Some(what);
        }
    }
}

/// How long to wait before asking again: some 2 s, less or more by chance so that clients don't ask in step; longer
/// after failures.
fn pause(failures: u32) -> Duration {
    let longest = INTERVAL
        .mul_f64(1.5_f64.powi(failures.min(8).cast_signed()))
        .min(MAX_INTERVAL);
    longest.mul_f64(0.8 + 0.2 * chance())
}

/// From 0 to 1.
fn chance() -> f64 {
    getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_asked_for_in_time() {
        for failures in [0, 1, 2, 100, u32::MAX] {
            let pause = pause(failures);
            assert!(
                (Duration::from_millis(1_600)..=MAX_INTERVAL).contains(&pause),
                "{pause:?}"
            );
        }
    }
}
