//! What is recorded of an endpoint that the control plane watches: which keys are asked for, and what the origin answers.
//! A lookup that finds the record in use is not recorded: nobody waits.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use larder_core::{Check, Checked, Clock as _, CoarseClock, Evidence, Key, PER_SECOND};
use larder_decide::KeyLog;
use twox_hash::XxHash3_64;

/// One endpoint's record; it takes no room before the endpoint is watched.
#[derive(Default)]
pub(crate) struct Watched {
    log: OnceLock<Mutex<KeyLog>>,
}

impl Watched {
    /// A key was asked for.
    pub(crate) fn saw(&self, key: &Key) {
        let hash = hash(key);
        if let Ok(mut log) = self.log().try_lock() {
            log.saw(hash, now());
        }
    }

    /// The origin answered.
    pub(crate) fn answered(&self, key: &Key, json: &[u8], check: Option<Check>) {
        let check = check.map(|check| Checked {
            age: ticks(check.age),
            has_changed: check.has_changed,
        });
        let (hash, body) = (hash(key), XxHash3_64::oneshot(json) as u16);
        self.lock().answered(hash, body, check, now());
    }

    /// A key was invalidated; `None`: more may have been.
    pub(crate) fn erased(&self, key: Option<&Key>) {
        let hash = key.map(hash);
        self.lock().erased(hash);
    }

    /// What was recorded since the last time; from now on, of the keys that are seldom asked for, this share is.
    pub(crate) fn take(&self, share: f64) -> Evidence {
        self.lock().take(share, now())
    }

    fn log(&self) -> &Mutex<KeyLog> {
        self.log.get_or_init(|| Mutex::new(KeyLog::new(now())))
    }

    fn lock(&self) -> MutexGuard<'_, KeyLog> {
        self.log().lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same in every instance.
fn hash(key: &Key) -> u32 {
    XxHash3_64::oneshot(key.as_str().as_bytes()) as u32
}

fn now() -> u32 {
    ticks(CoarseClock.now())
}

fn ticks(time: std::time::Duration) -> u32 {
    let ticks = time.as_millis() * u128::from(PER_SECOND) / 1_000;
    u32::try_from(ticks).unwrap_or(u32::MAX)
}
