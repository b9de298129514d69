//! How servers are dealt with.

use std::time::Duration;

use crate::tls::Tls;

/// A value may be that much longer than `max_value_bytes` before it is read away.
const MARGIN_BYTES: usize = 64 << 10;

/// How a server is dealt with.
#[derive(Debug, Clone)]
pub struct Options {
    /// After this time an operation is given up, unless its answer has arrived: a process that stood still has a moment (2 ms) to
    /// read it. Default: 100 ms.
    pub deadline: Duration,
    /// After this time an attempt to connect is given up. Default: 1 s.
    pub connect_timeout: Duration,
    /// So many operations without an answer in a row, and no more are sent until a probe was answered. Default: 3.
    pub failures: u32,
    /// More commands than this do not wait for an answer at once: further operations are refused. A `set` is four, a
    /// lease up to seven. Default: 8,192.
    pub max_in_flight: usize,
    /// Longer values are taken as absent, in bytes. Default: 1 MiB.
    pub max_value_bytes: usize,
    /// Whom to trust over TLS, and which certificate to show. Default: the machine's authorities, and none.
    pub tls: Tls,
    /// What becomes of entries that a server took before it was restarted, or before another one was promoted. Default:
    /// [`AfterFailover::Strict`].
    pub after_failover: AfterFailover,
    /// Whether what [`AfterFailover::Strict`] has no use for is removed. Who only looks leaves that to the services: then it
    /// is not read until one of them has done it. Default: `true`.
    pub sweeps: bool,
    /// Whether servers note which entries are read, and tell when those change: what is kept of them in this process needs that.
    /// Without it entries are read without proofs, at half the servers' time; versions and leases are noted in any case. Default:
    /// `true`.
    pub notes_entries: bool,
}

/// What becomes of entries of another life of their server: from before a restart, or from before a failover. Some of them
/// may have been deleted, and be back, since the server lost that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AfterFailover {
    /// They are misses: nothing that was deleted comes back. The cache begins cold.
    #[default]
    Strict,
    /// They are used: the cache stays warm. What was deleted and is back is served until its life is over.
    Keep,
}

impl Options {
    /// Longer strings are not kept.
    pub(crate) fn max_string(&self) -> usize {
        self.max_value_bytes.saturating_add(MARGIN_BYTES)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            deadline: Duration::from_millis(100),
            connect_timeout: Duration::from_secs(1),
            failures: 3,
            max_in_flight: 8_192,
            max_value_bytes: 1 << 20,
            tls: Tls::default(),
            after_failover: AfterFailover::default(),
            sweeps: true,
            notes_entries: true,
        }
    }
}
