//! An API key: what is stored of it, and what happens with it while the process runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use larder_model::Secret;
use larder_model::api::{ApiKey, KeyRole, NewApiKey};
use tokio::sync::watch;

use super::rates::Buckets;
use super::services::{Services, ServicesError};
use super::token::{self, Digest};

/// No name of a key is longer, in bytes.
const MAX_NAME: usize = 64;
/// Seconds: that a key was used is known to this.
const USED: u64 = 300;

/// A key as it is stored.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct StoredKey {
    pub(crate) id: String,
    pub(crate) digest: Digest,
    pub(crate) name: String,
    pub(crate) role: KeyRole,
    pub(crate) services: Arc<Services>,
    pub(crate) made_at: u64,
    pub(crate) expires_at: Option<u64>,
    pub(crate) revoked_at: Option<u64>,
    pub(crate) used_at: Option<u64>,
}

/// Why no key is made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NewKeyError {
    #[error("a key has a name that says what it is for: one line of 1 to 64 bytes")]
    Name,
    #[error("the time at which the key ends is over")]
    Expired,
    #[error(transparent)]
    Services(#[from] ServicesError),
    #[error("the system gives no random numbers")]
    NoRandomness,
}

impl StoredKey {
    /// A new key, and its text, which is kept nowhere.
    pub(crate) fn make(new: &NewApiKey, now: u64) -> Result<(Self, Secret), NewKeyError> {
        let name = new.name.trim();
        if !is_name(name, MAX_NAME) {
            return Err(NewKeyError::Name);
        }
        if new.expires_at_seconds.is_some_and(|at| at <= now) {
            return Err(NewKeyError::Expired);
        }
        let services = Services::of_names(&new.services)?;
        let (id, text) = token::make().map_err(|_| NewKeyError::NoRandomness)?;
        let key = Self {
            id,
            digest: Digest::of(text.expose()),
            name: name.to_owned(),
            role: new.role,
            services: Arc::new(services),
            made_at: now,
            expires_at: new.expires_at_seconds,
            revoked_at: None,
            used_at: None,
        };
        Ok((key, text))
    }

    pub(crate) fn describe(&self) -> ApiKey {
        ApiKey {
            id: self.id.clone(),
            name: self.name.clone(),
            role: self.role,
            services: self.services.names(),
            made_at_seconds: self.made_at,
            expires_at_seconds: self.expires_at,
            revoked_at_seconds: self.revoked_at,
            used_at_seconds: self.used_at,
        }
    }
}

/// Whether a text is one line that can name something.
pub(crate) fn is_name(text: &str, most: usize) -> bool {
    !text.is_empty() && text.len() <= most && !text.chars().any(char::is_control)
}

/// A key in this process. Its clones are one.
#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) stored: Arc<StoredKey>,
    pub(crate) live: Arc<Live>,
}

/// What outlives a change of what is stored.
pub(crate) struct Live {
    /// Becomes true when it is revoked.
    over: watch::Sender<bool>,
    /// Seconds since 1970; 0: not by this process.
    used_at: AtomicU64,
    /// What of it was written down.
    written_at: AtomicU64,
    pub(crate) buckets: Buckets,
    streams: AtomicUsize,
}

impl Key {
    /// A key that was read from the database; `before` is what it was here.
    pub(crate) fn new(stored: StoredKey, before: Option<&Self>) -> Self {
        let live = before.map(|before| Arc::clone(&before.live));
        let live = live.unwrap_or_else(|| {
            Arc::new(Live {
                over: watch::Sender::new(false),
                used_at: AtomicU64::new(0),
                written_at: AtomicU64::new(0),
                buckets: Buckets::default(),
                streams: AtomicUsize::new(0),
            })
        });
        if stored.revoked_at.is_some() {
            live.over.send_replace(true);
        }
        Self {
            stored: Arc::new(stored),
            live,
        }
    }

    /// It was used: known to five minutes, so that it need not be written down each time.
    pub(crate) fn was_used(&self, now: u64) {
        let now = now - now % USED;
        if self.live.used_at.load(Ordering::Relaxed) != now {
            self.live.used_at.store(now, Ordering::Relaxed);
        }
    }

    /// When it was used in this process.
    pub(crate) fn used_at(&self) -> Option<u64> {
        let used_at = self.live.used_at.load(Ordering::Relaxed);
        (used_at > 0).then_some(used_at)
    }

    /// The same, once: to be written down.
    pub(crate) fn unwritten_use(&self) -> Option<u64> {
        let used_at = self.used_at()?;
        let before = self.live.written_at.swap(used_at, Ordering::Relaxed);
        (before != used_at).then_some(used_at)
    }

    /// Ends when it is revoked, or its time is over.
    pub(crate) fn over(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut over = self.live.over.subscribe();
        let now = crate::auto::now().as_secs();
        let left = self.stored.expires_at.map(|at| at.saturating_sub(now));
        async move {
            // Where the key is forgotten, its sender is dropped: it is over, too.
            let revoked = async { over.wait_for(|is_over| *is_over).await.is_ok() };
            match left {
                Some(left) => {
                    let _ = tokio::time::timeout(Duration::from_secs(left), revoked).await;
                }
                None => {
                    revoked.await;
                }
            }
        }
    }

    /// A place for one more stream, if there are not `most` already.
    pub(crate) fn stream(&self, most: usize) -> Option<StreamOfKey> {
        let taken =
            self.live
                .streams
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |streams| {
                    (streams < most).then_some(streams + 1)
                });
        taken.ok().map(|_| StreamOfKey(Arc::clone(&self.live)))
    }
}

/// A stream's place among those of its key, given back when it is dropped.
pub(crate) struct StreamOfKey(Arc<Live>);

impl Drop for StreamOfKey {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}
