//! Applies what is pending as soon as the store can be used, and looks for what dead processes left.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::apply::chance;
use super::{Applied, Apply, Outbox};

/// How often journals of dead processes are looked for, about.
const LOOK: Duration = Duration::from_secs(5);
/// How long to wait after a round that applied nothing: doubled each time, to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// An outage that goes on is logged at most once in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

impl Outbox {
    /// Applies what is pending, whenever there is something, until the outbox is dropped. To be spawned once.
    ///
    /// Costs nothing while nothing is pending, but for a look into the journal's folder every few seconds.
    pub fn run<A: Apply>(self: &Arc<Self>, store: A) -> impl Future<Output = ()> + Send + use<A> {
        let (outbox, wake) = (Arc::downgrade(self), Arc::clone(&self.wake));
        async move {
            let mut drive = Drive::new();
            while let Some(outbox) = outbox.upgrade() {
                let wait = drive.round(&outbox, &store).await;
                let is_idle = outbox.is_empty();
                // From here on it ends with those who use it.
                drop(outbox);
                if is_idle {
                    // Either is a reason to go on.
                    let _ = tokio::time::timeout(wait, wake.notified()).await;
                } else {
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// Looks for journals of dead processes, and writes down what could not be written down before. Reads and writes
    /// files.
    fn tend(&self) {
        self.adopt();
        let mut journal = self.journal();
        if journal.is_behind() {
            // Its error is logged, and whoever added it was told.
            let _ = journal.rewrite(|| self.tombstones().pending());
        }
    }
}

struct Drive {
    look_at: Instant,
    pause: Duration,
    logged_at: Option<Instant>,
    syncing: Option<JoinHandle<()>>,
}

impl Drive {
    fn new() -> Self {
        Self {
            look_at: Instant::now(),
            pause: FIRST_PAUSE,
            logged_at: None,
            syncing: None,
        }
    }

    /// Answers how long to wait before the next one.
    async fn round(&mut self, outbox: &Arc<Outbox>, store: &impl Apply) -> Duration {
        if Instant::now() >= self.look_at {
            let tended = Arc::clone(outbox);
            // It does not panic; and if the runtime ends, so does this.
            let _ = tokio::task::spawn_blocking(move || tended.tend()).await;
            self.look_at = Instant::now() + LOOK.mul_f64(0.75 + chance() / 2.0);
        }
        self.sync(outbox);
        let until_look = self.look_at.saturating_duration_since(Instant::now());
        if outbox.is_empty() {
            return until_look;
        }
        let applied = outbox.apply(store).await;
        self.log(&applied);
        if applied.left == 0 {
            self.pause = FIRST_PAUSE;
            return until_look;
        }
        if applied.applied > 0 {
            self.pause = FIRST_PAUSE;
        }
        let pause = self.pause.mul_f64(0.5 + chance() / 2.0);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        pause
    }

    /// Forces the journal to the disk, beside all else: a disk that hangs must not keep the store waiting.
    fn sync(&mut self, outbox: &Outbox) {
        let is_free = self.syncing.as_ref().is_none_or(JoinHandle::is_finished);
        if is_free && let Some(journal) = outbox.journal().take_unsynced() {
            self.syncing = Some(tokio::task::spawn_blocking(|| journal.sync()));
        }
    }

    fn log(&mut self, applied: &Applied) {
        let Applied { left, error, .. } = applied;
        let is_due = self.logged_at.is_none_or(|at| at.elapsed() >= LOG_INTERVAL);
        match error {
            Some(error) if is_due => {
                self.logged_at = Some(Instant::now());
                tracing::warn!(pending = left, %error, "invalidations that the store did not confirm are pending: what they name is loaded anew until it does; other processes may see the old values, so bring the store back");
            }
            None if *left == 0 && self.logged_at.take().is_some() => {
                tracing::info!("the store has confirmed all that was pending");
            }
            _ => {}
        }
    }
}
