//! What happened in a cache's outbox, for those who observe the cache.

use super::OutboxCounts;
use crate::cache::Cache;

impl Cache {
    /// What the store could not be told at once, and what became of it, in this process.
    #[must_use]
    pub fn outbox_counts(&self) -> OutboxCounts {
        self.inner.outbox.counts()
    }
}
