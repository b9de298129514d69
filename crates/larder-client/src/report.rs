//! Measured windows out: every 5 s, in order, with a bounded backlog.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use larder_core::api::{SignalBatch, WindowReport};
use larder_core::{Service, Window};
use tokio::sync::watch;

use crate::client::Shared;
use crate::fetch::{FetchError, Remote};

/// What was measured is sent this often.
const INTERVAL: Duration = Duration::from_secs(5);
/// The last report may take this long.
const LAST_REPORT: Duration = Duration::from_secs(2);
/// At most this many windows wait to be delivered.
const MAX_BACKLOG: usize = 10_000;
/// So many windows stay under the control plane's limit for a body, however long their paths are.
const BATCH: usize = 400;

pub(crate) struct Report {
    pub(crate) shared: Arc<Shared>,
    pub(crate) remote: Arc<Remote>,
    pub(crate) reporter: Reporter,
    pub(crate) backlog: Backlog,
}

impl Report {
    pub(crate) async fn run(mut self, mut closing: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                _ = closing.changed() => break,
            }
            self.collect();
            tokio::select! {
                () = self.deliver() => {}
                _ = closing.changed() => break,
            }
        }
        self.collect();
        // What can't be delivered now is lost: the process ends.
        let _ = tokio::time::timeout(LAST_REPORT, self.deliver()).await;
    }

    /// Takes over what was measured since the last time.
    fn collect(&mut self) {
        let policies = self.shared.policies.load();
        let known = policies.measured();
        let known = known.map(|(endpoint, counters)| (endpoint.to_string(), counters.take()));
        for (endpoint, window) in known.chain(self.shared.recorder.take()) {
            if window.requests() > 0 {
                self.backlog.push(self.reporter.report(endpoint, window));
            }
        }
        self.shared.status().dropped_windows = self.backlog.dropped;
    }

    /// Sends until nothing is left or the control plane does not take it.
    async fn deliver(&mut self) {
        while !self.backlog.waiting.is_empty() {
            let sent = self.backlog.waiting.len().min(BATCH);
            let windows = self.backlog.waiting.iter().take(sent).cloned().collect();
            let batch = SignalBatch {
                signals: Vec::new(),
                windows,
            };
            match self.remote.report(&batch).await {
                Ok(()) => {}
                // It will never take these: another try would keep all later ones waiting.
                Err(FetchError::Status(status)) if is_final(status) => {
                    tracing::warn!(%status, windows = sent, "the control plane refused what was measured");
                    self.backlog.dropped += sent as u64;
                }
                Err(error) => {
                    tracing::debug!(%error, "what was measured waits for the control plane");
                    break;
                }
            }
            self.backlog.waiting.drain(..sent);
        }
        self.shared.status().dropped_windows = self.backlog.dropped;
    }
}

fn is_final(status: reqwest::StatusCode) -> bool {
    status.is_client_error() && !matches!(status.as_u16(), 408 | 425 | 429)
}

/// Who reports: a random name, and a sequence, so that a window that is sent twice counts once.
pub(crate) struct Reporter {
    service: String,
    instance: String,
    boot: u64,
    sequence: u64,
}

impl Reporter {
    pub(crate) fn new(service: &Service) -> Result<Self, getrandom::Error> {
        let started = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Ok(Self {
            service: service.as_str().to_owned(),
            instance: format!("{:016x}{:016x}", getrandom::u64()?, getrandom::u64()?),
            boot: started.as_secs(),
            sequence: 0,
        })
    }

    fn report(&mut self, endpoint: String, window: Window) -> WindowReport {
        self.sequence += 1;
        WindowReport {
            service_name: self.service.clone(),
            endpoint,
            window,
            instance: self.instance.clone(),
            boot: self.boot,
            sequence: self.sequence,
        }
    }
}

/// Windows that wait to be delivered, oldest first.
#[derive(Default)]
pub(crate) struct Backlog {
    waiting: VecDeque<WindowReport>,
    dropped: u64,
}

impl Backlog {
    fn push(&mut self, window: WindowReport) {
        if self.waiting.len() >= MAX_BACKLOG {
            self.waiting.pop_front();
            self.dropped += 1;
        }
        self.waiting.push_back(window);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_windows_are_dropped_and_counted() {
        let mut reporter = Reporter::new(&Service::new("svc").unwrap()).unwrap();
        let mut backlog = Backlog::default();
        for _ in 0..MAX_BACKLOG + 5 {
            backlog.push(reporter.report("/a".into(), Window::default()));
        }
        assert_eq!((backlog.waiting.len(), backlog.dropped), (MAX_BACKLOG, 5));
        assert_eq!(backlog.waiting.front().unwrap().sequence, 6);
    }
}
