//! What the control plane sends is put in force, all of it or nothing; what can't be is parked.

use std::sync::Arc;
use std::time::Instant;

use larder_core::api::{ServiceConfig, Via};

use crate::client::Shared;
use crate::known_good::{Kept, KnownGood};
use crate::policies::{Policies, Unusable};

/// A reason is cut to so many characters.
const MAX_REASON: usize = 300;

/// What is in force, and what is not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Standing {
    /// The version in force, and what the control plane calls it: the `ETag` without its quotes.
    pub(crate) version: Option<u64>,
    pub(crate) tag: Option<String>,
    /// Over what it came, or was confirmed.
    pub(crate) via: Via,
    pub(crate) since: Option<Instant>,
    pub(crate) rejected: Option<Rejected>,
}

/// What could not be put in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rejected {
    pub(crate) tag: Option<String>,
    pub(crate) reason: String,
    pub(crate) at: Instant,
}

/// Takes in what comes, over whatever it comes.
pub(crate) struct Intake {
    pub(crate) shared: Arc<Shared>,
    pub(crate) known_good: Option<Arc<KnownGood>>,
    /// The `ETag` of what is in force.
    pub(crate) etag: Option<String>,
    /// The `ETag` of what could not be put in force: it is not asked for again, and not looked at.
    pub(crate) parked: Option<String>,
    /// Whether that is what the control plane had when it was last heard of.
    pub(crate) is_parked_latest: bool,
}

impl Intake {
    /// The tags of what need not be sent: the latest first.
    pub(crate) fn known(&self) -> impl Iterator<Item = &str> {
        let mut known = [&self.etag, &self.parked];
        if self.is_parked_latest {
            known.reverse();
        }
        known.into_iter().flatten().map(String::as_str)
    }

    /// The control plane has what is known by this tag.
    pub(crate) fn has(&mut self, etag: Option<&str>, via: Via) {
        self.is_parked_latest = etag.is_some() && etag == self.parked.as_deref();
        if !self.is_parked_latest {
            self.confirm(via);
        }
    }

    /// Puts a document in force, if that can be, and keeps it then.
    pub(crate) async fn take(&mut self, body: &[u8], etag: Option<String>, via: Via) {
        if etag.is_some() && (etag == self.etag || etag == self.parked) {
            return self.has(etag.as_deref(), via);
        }
        match self.activate(body, etag.as_deref(), via) {
            Ok(config) => {
                self.etag.clone_from(&etag);
                self.is_parked_latest = false;
                self.keep(Kept { etag, config }).await;
            }
            Err(error) => self.park(etag, &error),
        }
    }

    /// What is in force is what the control plane has.
    fn confirm(&self, via: Via) {
        self.shared.standing.send_if_modified(|standing| {
            let is_news = standing.via != via || standing.rejected.is_some();
            standing.via = via;
            standing.rejected = None;
            is_news
        });
        let had_trouble = self.shared.status().trouble.take().is_some();
        if had_trouble {
            tracing::info!(
                service = self.shared.service.as_str(),
                "the control plane confirms what is in force"
            );
        }
    }

    /// Puts all of a document in force, or nothing of it.
    fn activate(
        &self,
        body: &[u8],
        etag: Option<&str>,
        via: Via,
    ) -> Result<ServiceConfig, Unusable> {
        let config: ServiceConfig = serde_json::from_slice(body)?;
        let policies = Policies::new(&config, &self.shared, &self.shared.policies.load())?;
        let policies = Arc::new(policies);
        let before = self.shared.policies.swap(Arc::clone(&policies));
        for (endpoint, counters) in before.counted().filter(|(gone, _)| !policies.has(gone)) {
            self.shared
                .recorder
                .add(endpoint.to_string(), &counters.take());
        }
        self.shared.status().trouble = None;
        self.shared.standing.send_replace(Standing {
            version: Some(config.version),
            tag: etag.map(unquoted),
            via,
            since: Some(Instant::now()),
            rejected: None,
        });
        tracing::info!(
            service = self.shared.service.as_str(),
            version = config.version,
            via = via.as_str(),
            "policies in force"
        );
        Ok(config)
    }

    fn park(&mut self, etag: Option<String>, error: &Unusable) {
        let what = format!("the control plane's answer is not put in force: {error}");
        let reason = larder_core::escape(&error.to_string())
            .chars()
            .take(MAX_REASON)
            .collect();
        let rejected = Rejected {
            tag: etag.as_deref().map(unquoted),
            reason,
            at: Instant::now(),
        };
        self.is_parked_latest = etag.is_some();
        self.parked = etag;
        self.shared.standing.send_if_modified(|standing| {
            let old = standing.rejected.as_ref();
            let is_news =
                old.is_none_or(|old| (&old.tag, &old.reason) != (&rejected.tag, &rejected.reason));
            if is_news {
                standing.rejected = Some(rejected);
            }
            is_news
        });
        self.complain(&what);
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
    pub(crate) fn complain(&self, what: &str) {
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

/// An `ETag` without its quotes: as ids of events, and reports, have it.
pub(crate) fn unquoted(etag: &str) -> String {
    let strong = etag.strip_prefix("W/").unwrap_or(etag);
    strong.trim_matches('"').to_owned()
}

/// The `ETag` of what an event calls by this id.
pub(crate) fn quoted(id: &str) -> String {
    format!("\"{id}\"")
}
