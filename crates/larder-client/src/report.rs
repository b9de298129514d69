//! Measured windows out: every 5 s, in order, with a bounded backlog.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use larder_core::api::{SignalBatch, WindowReport};
use larder_core::{Evidence, Service, Window};
use tokio::sync::watch;

use crate::client::Shared;
use crate::fetch::{FetchError, Remote};

/// What was measured is sent this often.
const INTERVAL: Duration = Duration::from_secs(5);
/// The last report may take this long.
const LAST_REPORT: Duration = Duration::from_secs(2);
/// At most this many windows wait to be delivered.
const MAX_BACKLOG: usize = 10_000;
/// So many records of keys and answers are sent at a time; one takes at most 20 bytes.
const MAX_RECORDS: usize = 3_200;
/// After this time the control plane decides nothing by a window's keys.
const KEYS_COUNT: Duration = Duration::from_secs(60);
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
        let ended = Instant::now();
        let policies = self.shared.policies.load();
        let unknown = self.shared.recorder.take().into_iter();
        let unknown = unknown.map(|(endpoint, window)| (endpoint, window, None));
        let mut measured: Vec<_> = policies.measured().chain(unknown).collect();
        measured.retain(|(_, window, _)| *window != Window::default());
        share_out(&mut measured);
        let length = ended - std::mem::replace(&mut self.reporter.began, ended);
        self.backlog.forget_keys();
        for (endpoint, window, evidence) in measured {
            let mut report = self.reporter.report(endpoint, window);
            report.evidence = evidence;
            report.length_ms = millis(length);
            self.backlog.push(report, ended);
        }
        self.shared.status().dropped_windows = self.backlog.dropped;
    }

    /// Sends until nothing is left or the control plane does not take it.
    async fn deliver(&mut self) {
        while !self.backlog.waiting.is_empty() {
            let sent = self.backlog.waiting.len().min(BATCH);
            let windows = self.backlog.waiting.iter().take(sent).map(Waiting::now);
            let windows = windows.collect();
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

/// Keeps the keys of those endpoints that were asked for most, as far as there is room for keys.
fn share_out(measured: &mut [(String, Window, Option<Evidence>)]) {
    let mut by_requests: Vec<&mut (String, Window, Option<Evidence>)> =
        measured.iter_mut().collect();
    by_requests.sort_by_key(|(_, window, _)| std::cmp::Reverse(window.requests()));
    let mut records = 0;
    for (_, _, evidence) in by_requests {
        records += evidence
            .as_ref()
            .map_or(0, |it| it.keys.len() + it.answers.len());
        if records > MAX_RECORDS {
            *evidence = None;
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
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
    store_id: u32,
    /// When the windows that are being counted began.
    began: Instant,
}

impl Reporter {
    pub(crate) fn new(service: &Service, store_id: u32) -> Result<Self, getrandom::Error> {
        let started = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Ok(Self {
            service: service.as_str().to_owned(),
            instance: format!("{:016x}{:016x}", getrandom::u64()?, getrandom::u64()?),
            boot: started.as_secs(),
            sequence: 0,
            store_id,
            began: Instant::now(),
        })
    }

    /// The name under which it reports.
    pub(crate) fn instance(&self) -> &str {
        &self.instance
    }

    fn report(&mut self, endpoint: String, window: Window) -> WindowReport {
        self.sequence += 1;
        WindowReport {
            service_name: self.service.clone(),
            endpoint,
            window,
            evidence: None,
            length_ms: 0,
            ended_ago_ms: 0,
            store_id: self.store_id,
            instance: self.instance.clone(),
            boot: self.boot,
            sequence: self.sequence,
        }
    }
}

/// Windows that wait to be delivered, oldest first.
#[derive(Default)]
pub(crate) struct Backlog {
    waiting: VecDeque<Waiting>,
    dropped: u64,
}

/// A window that waits, and when it ended.
struct Waiting {
    report: WindowReport,
    ended: Instant,
}

impl Waiting {
    /// As it is to be sent now.
    fn now(&self) -> WindowReport {
        WindowReport {
            ended_ago_ms: millis(self.ended.elapsed()),
            ..self.report.clone()
        }
    }
}

impl Backlog {
    /// Forgets the keys of windows that are so old that nothing is decided by them.
    fn forget_keys(&mut self) {
        for waiting in &mut self.waiting {
            if waiting.ended.elapsed() > KEYS_COUNT {
                waiting.report.evidence = None;
            }
        }
    }

    fn push(&mut self, report: WindowReport, ended: Instant) {
        if self.waiting.len() >= MAX_BACKLOG {
            self.waiting.pop_front();
            self.dropped += 1;
        }
        self.waiting.push_back(Waiting { report, ended });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_windows_are_dropped_and_counted() {
        let mut reporter = Reporter::new(&Service::new("svc").unwrap(), 0).unwrap();
        let mut backlog = Backlog::default();
        for _ in 0..MAX_BACKLOG + 5 {
            backlog.push(
                reporter.report("/a".into(), Window::default()),
                Instant::now(),
            );
        }
        assert_eq!((backlog.waiting.len(), backlog.dropped), (MAX_BACKLOG, 5));
        assert_eq!(backlog.waiting.front().unwrap().report.sequence, 6);
    }
}
