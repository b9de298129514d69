//! What a store is: bytes under keys, for a time, shared by those who open it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use larder_model::{Key, MAX_DURATION, Pattern, Service};

use crate::beside::Beside;
use crate::flight::FillRight;
use crate::lease::{Acquired, Lease, Released};
use crate::proof::Proof;
use crate::version::{Told, VersionName};

/// A store: embedded, Redis, or in the process. Every one passes the contract in `larder-testing`.
///
/// Each operation ends within the store's own deadline, whatever the store behind it does. None is ever retried by
/// itself once it may have happened.
pub trait Store: Send + Sync + 'static {
    /// The entry under a key, if there is a living one.
    ///
    /// An entry that has longer to live than `longest` (another program wrote it, or the policy became shorter) is
    /// handed out and cut to that life.
    fn get(&self, key: &Key, longest: Ttl) -> StoreFuture<'_, Option<Stored>>;

    /// [`Store::get`] of many, in their order.
    fn get_many(&self, keys: &[Key], longest: Ttl) -> StoreFuture<'_, Vec<Option<Stored>>>;

    /// Stores an entry, or says why not. Ends the lease of its key in the same step.
    fn set(&self, entry: NewEntry) -> StoreFuture<'_, Written>;

    /// [`Store::set`] of many: one outcome for each, in their order.
    fn set_many(&self, entries: Vec<NewEntry>) -> StoreFuture<'_, Vec<Written>>;

    /// Deletes entries, and ends their leases. No [`Guard::While`] that ended before this call lets a fill through after it.
    fn delete(&self, keys: &[Key]) -> StoreFuture<'_, Deleted>;

    /// Deletes, or counts, the entries that a pattern means; their leases end first. What is stored while it runs by others
    /// than loads may stay.
    fn clear(&self, pattern: &Pattern, mode: ClearMode) -> StoreFuture<'_, Deleted>;

    /// Asks for the leases of keys, each for a time: the right to fill, which one load has in all processes that share the
    /// store. One answer for each, in their order, each with the entry as it was once the lease was granted or refused.
    ///
    /// A lease that was not known to be granted before a load began gives no right to fill.
    fn acquire(&self, keys: &[Key], time: Duration) -> StoreFuture<'_, Vec<Acquired>>;

    /// Keeps leases for a time from now: those that still hold. A lease that ended is never taken again by this.
    fn extend(&self, leases: &[Lease], time: Duration) -> StoreFuture<'_, Vec<bool>>;

    /// Gives leases back, those that still hold, and says which did.
    fn release(&self, leases: &[Lease], released: Released) -> StoreFuture<'_, Vec<bool>>;

    /// The versions of a service that have these names, in their order; those that don't exist are made.
    fn versions(&self, service: &Service, names: &[VersionName]) -> StoreFuture<'_, Vec<Told>>;

    /// Gives versions new values: every entry that carries an old one is dead.
    fn renew(&self, service: &Service, names: &[VersionName]) -> StoreFuture<'_, ()>;

    /// What stands beside an entry: its lease, and versions of its service. Looking makes, takes and ends nothing.
    fn beside(&self, key: &Key, names: &[VersionName]) -> StoreFuture<'_, Beside>;

    /// Whether reads come with proofs at all: else nothing is kept of them, as of a store that lies in this process anyway.
    fn has_proofs(&self) -> bool {
        true
    }

    /// Whether what was read with a proof is still so. Takes no lock and does no I/O.
    fn holds(&self, proof: &Proof) -> bool;

    /// Whether all of these hold. For stores to whom they cost less together.
    fn hold(&self, proofs: &[Proof]) -> bool {
        proofs.iter().all(|proof| self.holds(proof))
    }

    /// Waits until a proof holds no more, or for so long: a wait that was woken in vain is over, too.
    fn changed(&self, proof: Proof, most: Duration) -> StoreFuture<'_, ()>;

    /// The life of the server that has a key: see [`Stored::incarnation`].
    fn incarnation(&self, key: &Key) -> u64;

    /// A page of living entries: those a pattern means, or all of all services. Begins at the beginning without
    /// `after`; a page may be shorter than `limit`, even empty, and not be the last.
    fn scan(
        &self,
        pattern: Option<&Pattern>,
        after: Option<Cursor>,
        limit: usize,
    ) -> StoreFuture<'_, Page>;

    /// How full the store is, and what happened in it.
    fn stats(&self) -> StoreFuture<'_, StoreStats>;

    /// Ends orderly: what was reported as stored is on its way to the disk, locks and connections are given back.
    fn close(&self) -> StoreFuture<'_, ()>;

    /// What is connected to, for people; never a secret.
    fn name(&self) -> String;
}

/// A store's answer: there at once, or to be waited for.
#[must_use = "nothing happens until it is awaited"]
pub enum StoreFuture<'a, T> {
    /// It is there; polled again after it was taken, it waits for ever.
    Ready(Option<Result<T, StoreError>>),
    /// It comes.
    Pending(Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>),
}

impl<'a, T> StoreFuture<'a, T> {
    /// An answer that is there.
    pub fn ready(answer: Result<T, StoreError>) -> Self {
        Self::Ready(Some(answer))
    }

    /// An answer that comes.
    pub fn pending(answer: impl Future<Output = Result<T, StoreError>> + Send + 'a) -> Self {
        Self::Pending(Box::pin(answer))
    }
}

/// Nothing in it is pinned but the box.
impl<T> Unpin for StoreFuture<'_, T> {}

impl<T> Future for StoreFuture<'_, T> {
    type Output = Result<T, StoreError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Ready(answer) => answer.take().map_or(Poll::Pending, Poll::Ready),
            Self::Pending(answer) => answer.as_mut().poll(context),
        }
    }
}

/// How long an entry lives: above 0, at most 365 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ttl(Duration);

impl Ttl {
    /// The longest life.
    pub const MAX: Self = Self(MAX_DURATION);

    /// A life; `None` for 0, and [`Ttl::MAX`] for more than that.
    #[must_use]
    pub fn new(life: Duration) -> Option<Self> {
        (!life.is_zero()).then(|| Self(life.min(MAX_DURATION)))
    }

    /// The life.
    #[must_use]
    pub fn get(self) -> Duration {
        self.0
    }

    /// In whole milliseconds, no less than 1.
    #[must_use]
    pub fn as_millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// In whole seconds, rounded down, no less than 1: what `SETEX` takes.
    #[must_use]
    pub fn as_secs(self) -> u64 {
        self.0.as_secs().max(1)
    }
}

/// A living entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The value.
    pub bytes: Bytes,
    /// Whether it is in the framed form, by [`is_framed`](crate::is_framed): who serves the plain form need not look at it then,
    /// which costs more than all else where it lies in no cache of the processor.
    pub framed: bool,
    /// What is left of its life, where reading tells that anyway.
    pub ttl: Option<Duration>,
    /// Whether a program other than Larder could have written it: then it is not spliced into another document
    /// before its syntax was checked.
    pub foreign: bool,
    /// The life of the server that told it: another one after a restart or a failover, which may have lost what was
    /// acknowledged before. 0 where nothing is lost like that, or that is to count as nothing: lives are not compared then.
    pub incarnation: u64,
    /// By what it can be known to be still so; `None` if it can't.
    pub proof: Option<Proof>,
}

/// An entry to be stored.
#[derive(Debug, Clone)]
pub struct NewEntry {
    /// Where.
    pub key: Key,
    /// What.
    pub bytes: Bytes,
    /// For how long.
    pub ttl: Ttl,
    /// Under which condition.
    pub guard: Guard,
}

/// Under which condition an entry is stored.
#[derive(Debug, Clone)]
pub enum Guard {
    /// None: the caller's word.
    Always,
    /// While the load that made it has the right to fill; judged in the same order in which deletes take effect.
    While(FillRight),
    /// [`Guard::While`], and while its lease holds, in the store's life in which it was granted, and the entry is the one that
    /// was there then. Ends the lease.
    Lease(FillRight, Lease),
}

impl Guard {
    /// Whether the entry may be stored now.
    #[must_use]
    pub fn allows(&self) -> bool {
        match self {
            Self::Always => true,
            Self::While(right) | Self::Lease(right, _) => right.holds(),
        }
    }

    /// The lease that it needs, if it does.
    #[must_use]
    pub fn lease(&self) -> Option<&Lease> {
        match self {
            Self::Lease(_, lease) => Some(lease),
            Self::Always | Self::While(_) => None,
        }
    }
}

/// What became of an entry that was to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Written {
    /// It is stored.
    Stored,
    /// It is not.
    Skipped(Skip),
    /// It is not: the load that made it lost its right to fill, by a `delete`, a `clear` or a `set`.
    Refused,
    /// It is not: another program stored an entry since the load that made it began.
    Superseded,
    /// It may be stored, or may be stored yet: the store did not answer in time.
    Unknown,
}

impl Written {
    /// Whether it is known to be stored.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        *self == Self::Stored
    }
}

/// Why an entry was not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Skip {
    /// The policy in force does not cache the endpoint.
    PolicyOff,
    /// Its TTL is 0.
    NoTtl,
    /// It is larger than the policy, or the store, allows.
    TooLarge,
    /// It can't be written as JSON.
    NotSerialisable,
    /// The store could not take it.
    Store(StoreError),
}

/// What was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Deleted {
    /// How many entries were there and are gone (or would be, in a dry run).
    pub entries: u64,
}

/// Whether a clear deletes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClearMode {
    /// It does.
    Delete,
    /// It only counts.
    DryRun,
}

/// Where a scan goes on; what it says is the store's own affair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(pub String);

/// A part of a scan.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Its entries. A scan may meet the same one twice.
    pub entries: Vec<ScannedEntry>,
    /// Where the scan goes on; `None` at its end.
    pub next: Option<Cursor>,
}

/// An entry that a scan met.
#[derive(Debug, Clone)]
pub struct ScannedEntry {
    /// Where it lies.
    pub key: Key,
    /// What is left of its life; `None` if it has no end (another program wrote it) or is not known.
    pub ttl: Option<Duration>,
    /// The value's size in bytes, if the store tells.
    pub bytes: Option<u64>,
}

/// How full a store is, and what happened in it since it was made (embedded), since its server started (Redis), or in
/// this process. What a store can't tell is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Entries, of all services.
    pub entries: Option<u64>,
    /// Bytes used.
    pub used_bytes: Option<u64>,
    /// Bytes that may be used.
    pub limit_bytes: Option<u64>,
    /// Lookups that found an entry.
    pub hits: Option<u64>,
    /// Lookups that found none.
    pub misses: Option<u64>,
    /// Entries that were removed to make room.
    pub evictions: Option<u64>,
    /// Entries that were removed because their time was over.
    pub expired: Option<u64>,
    /// Entries that did not decode, or were damaged.
    pub damaged: Option<u64>,
}

/// Why a store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// It is not reachable at the moment; nothing was sent.
    #[error("the store is away: {0}")]
    Away(String),
    /// Too many operations are under way; nothing was sent.
    #[error("the store is busy: too many operations are under way")]
    Busy,
    /// It did not answer within the deadline, and had not begun: nothing happened, and nothing will.
    #[error("the store did not begin the operation within its deadline")]
    NotBegun,
    /// It did not answer within the deadline. What was asked may have happened, or may happen yet.
    #[error("the store did not answer within its deadline; what was asked may have happened")]
    TimedOut,
    /// The connection broke. What was asked may have happened.
    #[error("the connection to the store broke: {0}; what was asked may have happened")]
    Broken(String),
    /// It said no.
    #[error("the store refused: {0}")]
    Refused(String),
    /// It has no room, and could make none.
    #[error("the store is full: {0}")]
    Full(String),
    /// It can't be used at all in this process, and the reason says what to do next.
    #[error("nothing is cached: {0}")]
    Disabled(String),
}

impl StoreError {
    /// Whether what was asked may have happened all the same.
    #[must_use]
    pub fn may_have_happened(&self) -> bool {
        matches!(self, Self::TimedOut | Self::Broken(_))
    }
}

impl From<StoreError> for Written {
    fn from(error: StoreError) -> Self {
        if error.may_have_happened() {
            Self::Unknown
        } else {
            Self::Skipped(Skip::Store(error))
        }
    }
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stored => f.write_str("stored"),
            Self::Skipped(skip) => write!(f, "not stored: {skip}"),
            Self::Refused => f.write_str("not stored: invalidated while it was being loaded"),
            Self::Superseded => {
                f.write_str("not stored: another program stored an entry meanwhile")
            }
            Self::Unknown => f.write_str("perhaps stored: the store did not answer in time"),
        }
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PolicyOff => f.write_str("the policy in force does not cache this endpoint"),
            Self::NoTtl => f.write_str("its TTL is 0"),
            Self::TooLarge => f.write_str("it is larger than allowed"),
            Self::NotSerialisable => f.write_str("it can't be written as JSON"),
            Self::Store(error) => error.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_above_zero_and_at_most_a_year() {
        assert_eq!(Ttl::new(Duration::ZERO), None);
        assert_eq!(Ttl::new(Duration::MAX), Some(Ttl::MAX));
        let short = Ttl::new(Duration::from_nanos(1)).unwrap();
        assert_eq!((short.as_millis(), short.as_secs()), (1, 1));
        assert_eq!(Ttl::new(Duration::from_millis(2_900)).unwrap().as_secs(), 2);
    }
}
