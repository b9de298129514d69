//! Measured windows out: every 5 s, in order, with a bounded backlog.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
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
/// So many records of keys, answers and invalidations are taken over at a time; they take at most 64 KB.
const MAX_RECORDS: usize = 3_200;
/// After this time the control plane decides nothing by a window's keys.
const KEYS_COUNT: Duration = Duration::from_secs(60);
/// So many windows are sent at a time.
const BATCH: usize = 400;
/// And so many bytes: the control plane takes a MiB.
const BATCH_BYTES: usize = 900_000;
/// A window takes no more, but for its path and its records, of which each takes at most so many; in bytes.
const WINDOW_BYTES: usize = 1_500;
const RECORD_BYTES: usize = 20;
/// A store that fails for one in so many lookups has fewer hits than there could be.
const FAILING: u64 = 20;

pub(crate) struct Report {
    pub(crate) shared: Arc<Shared>,
    pub(crate) remote: Arc<Remote>,
    pub(crate) reporter: Reporter,
    pub(crate) backlog: Backlog,
    pub(crate) turns: Turns,
}

/// What was measured of an endpoint: its window, and its keys if it is watched.
type Measured = (String, Window, Option<Evidence>);

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
        measured.retain(tells_something);
        self.turns.share_out(&mut measured);
        let store_failed = self.has_store_failed(&measured);
        let length = ended - std::mem::replace(&mut self.reporter.began, ended);
        self.backlog.forget_keys();
        for (endpoint, window, evidence) in measured {
            let mut report = self.reporter.report(endpoint, window);
            report.evidence = evidence;
            report.length_ms = millis(length);
            report.store_failed = store_failed;
            self.backlog.push(report, ended);
        }
        self.shared.status().dropped_windows = self.backlog.dropped;
    }

    /// Whether the store failed so often since the last time that its hits say nothing.
    fn has_store_failed(&self, measured: &[Measured]) -> bool {
        let errors = self.shared.store_errors.swap(0, Ordering::Relaxed);
        let lookups = measured
            .iter()
            .map(|(_, window, _)| window.hits + window.misses);
        errors > 0 && errors.saturating_mul(FAILING) >= lookups.sum::<u64>()
    }

    /// Sends until nothing is left or the control plane does not take it.
    async fn deliver(&mut self) {
        while !self.backlog.waiting.is_empty() {
            let windows = self.backlog.batch();
            let sent = windows.len();
            let batch = SignalBatch {
                signals: Vec::new(),
                windows,
            };
            match self.remote.report(&batch).await {
                Ok(()) => self.backlog.delivered(sent),
                // It will never take these: another try would keep all later ones waiting.
                Err(FetchError::Status(status)) if is_final(status) => {
                    tracing::warn!(%status, windows = sent, "the control plane refused what was measured");
                    self.backlog.drop_oldest(sent);
                }
                Err(error) => {
                    tracing::debug!(%error, "what was measured waits for the control plane");
                    break;
                }
            }
        }
        self.shared.status().dropped_windows = self.backlog.dropped;
    }
}

/// Whether there is anything to report. A process may do nothing but invalidate what others read.
fn tells_something((_, window, evidence): &Measured) -> bool {
    let tells = |evidence: &Evidence| evidence.has_erased() || !evidence.answers.is_empty();
    *window != Window::default() || evidence.as_ref().is_some_and(tells)
}

/// For whose keys there was no room, and how often in a row.
#[derive(Default)]
pub(crate) struct Turns(HashMap<String, u32>);

impl Turns {
    /// Keeps the keys for which there is room: first of those endpoints that had to wait for longest, then of those that were
    /// asked for most.
    fn share_out(&mut self, measured: &mut [Measured]) {
        let before = std::mem::take(&mut self.0);
        let waited = |endpoint: &str| before.get(endpoint).copied().unwrap_or(0);
        let mut in_turn: Vec<&mut Measured> = measured.iter_mut().collect();
        in_turn.sort_by_key(|(endpoint, window, _)| {
            std::cmp::Reverse((waited(endpoint), window.requests()))
        });
        let mut room = MAX_RECORDS;
        for (endpoint, _, evidence) in in_turn {
            let Some(evidence) = evidence else { continue };
            if !evidence.cut_to(room) {
                self.0.insert(endpoint.clone(), waited(endpoint) + 1);
            }
            room -= evidence.records();
        }
    }
}

/// How many bytes a text takes in JSON, but for its quotes.
fn json_bytes(text: &str) -> usize {
    let escaped = |byte| match byte {
        b'"' | b'\\' => 2,
        ..b' ' => 6,
        _ => 1,
    };
    text.bytes().map(escaped).sum()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn is_final(status: reqwest::StatusCode) -> bool {
    // A key can be given, or given another role, before these windows are too old.
    status.is_client_error() && !matches!(status.as_u16(), 401 | 403 | 408 | 425 | 429)
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
            store_failed: false,
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
    /// Endpoints of which it was dropped which keys were invalidated.
    untold: HashSet<String>,
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

    /// How many bytes it takes at the most when it is sent.
    fn bytes(&self) -> usize {
        let records = self.report.evidence.as_ref().map_or(0, Evidence::records);
        WINDOW_BYTES + json_bytes(&self.report.endpoint) + RECORD_BYTES * records
    }
}

impl Backlog {
    /// Forgets the keys of windows that are so old that nothing is decided by them; what was invalidated is told.
    fn forget_keys(&mut self) {
        for waiting in &mut self.waiting {
            if waiting.ended.elapsed() > KEYS_COUNT {
                let evidence = waiting.report.evidence.take();
                let erased = evidence.map(Evidence::into_erased);
                waiting.report.evidence = erased.filter(Evidence::has_erased);
            }
        }
    }

    fn push(&mut self, mut report: WindowReport, ended: Instant) {
        if self.waiting.len() >= MAX_BACKLOG {
            self.drop_oldest(1);
        }
        if let Some(evidence) = &mut report.evidence {
            evidence.erased_more |= self.untold.remove(&report.endpoint);
        }
        self.waiting.push_back(Waiting { report, ended });
    }

    /// What is to be sent next.
    fn batch(&self) -> Vec<WindowReport> {
        let mut bytes = 0;
        let fits = |waiting: &&Waiting| {
            bytes += waiting.bytes();
            bytes <= BATCH_BYTES
        };
        let batch = self.waiting.iter().take(BATCH).take_while(fits);
        batch.map(Waiting::now).collect()
    }

    fn delivered(&mut self, sent: usize) {
        self.waiting.drain(..sent);
    }

    fn drop_oldest(&mut self, count: usize) {
        for Waiting { report, .. } in self.waiting.drain(..count) {
            self.dropped += 1;
            if report
                .evidence
                .is_some_and(|evidence| evidence.has_erased())
            {
                self.untold.insert(report.endpoint);
            }
        }
    }
}

#[cfg(test)]
mod tests;
