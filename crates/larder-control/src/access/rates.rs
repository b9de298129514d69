//! How often somebody may ask. Each has a bucket of its own (GCRA): so much at once, and so much a second after that.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::caller::Need;

/// So many have a bucket of their own.
const MOST: usize = 10_000;

/// How often something may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    pub(crate) at_once: u32,
    /// The time that one more takes to come.
    pub(crate) each: Duration,
}

impl Rate {
    const fn new(at_once: u32, each: Duration) -> Self {
        Self { at_once, each }
    }
}

/// What services ask for, all instances with one key together: their policies, streams, signals.
const OF_SERVICES: Rate = Rate::new(50_000, Duration::from_micros(50));
/// Signals and windows that services report, all instances with one key together: what a batch costs grows with them.
const OF_SIGNALS: Rate = Rate::new(100_000, Duration::from_micros(50));
/// What people and tools look at.
const OF_READS: Rate = Rate::new(2_000, Duration::from_millis(5));
/// What changes something: each is written to the disk before it is answered.
const OF_CHANGES: Rate = Rate::new(1_000, Duration::from_millis(50));
/// Keys and sessions that are none.
pub(crate) const OF_FAILURES: Rate = Rate::new(60, Duration::from_secs(1));

/// Log-ins of one account, and from one address.
pub(crate) const OF_LOG_INS: Rate = Rate::new(5, Duration::from_secs(12));

/// What was taken of a rate: when, after the begin of time, it will all be there again, in nanoseconds.
#[derive(Debug, Default)]
pub(crate) struct Bucket(AtomicU64);

static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The time since some begin.
pub(crate) fn now() -> Duration {
    BEGIN.elapsed()
}

impl Bucket {
    /// Takes one; if there is none, when there will be.
    pub(crate) fn take(&self, rate: &Rate, now: Duration) -> Result<(), Duration> {
        self.take_many(1, rate, now)
    }

    /// Takes so many; if there are fewer, when there will be.
    fn take_many(&self, many: u64, rate: &Rate, now: Duration) -> Result<(), Duration> {
        let now = nanos(now);
        let each = nanos(rate.each).saturating_mul(many);
        let most = nanos(rate.each).saturating_mul(u64::from(rate.at_once));
        let taken = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
                let full_at = full_at.max(now).saturating_add(each);
                (full_at - now <= most).then_some(full_at)
            });
        match taken {
            Ok(_) => Ok(()),
            Err(full_at) => {
                let wait = full_at.saturating_add(each).saturating_sub(now + most);
                Err(Duration::from_nanos(wait))
            }
        }
    }

    fn give_back(&self, rate: &Rate) {
        let each = nanos(rate.each);
        let back = |full_at: u64| Some(full_at.saturating_sub(each));
        // Never refused: the closure gives a value each time.
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, back);
    }

    fn is_full(&self, now: Duration) -> bool {
        self.0.load(Ordering::Relaxed) <= nanos(now)
    }
}

/// What one caller takes: one kind of request keeps none of another from him.
#[derive(Debug, Default)]
pub(crate) struct Buckets {
    of_services: Bucket,
    signals: Bucket,
    reads: Bucket,
    changes: Bucket,
}

impl Buckets {
    /// Takes so many signals; if there are fewer, when there will be.
    pub(crate) fn take_signals(&self, many: usize, now: Duration) -> Result<(), Duration> {
        // A batch that is larger than all there may be at once is taken when nothing else was.
        let many = u64::try_from(many).unwrap_or(u64::MAX);
        let many = many.min(u64::from(OF_SIGNALS.at_once));
        self.signals.take_many(many, &OF_SIGNALS, now)
    }

    /// Takes one of what a route asks for; if there is none, when there will be.
    pub(crate) fn take(&self, need: Need, now: Duration) -> Result<(), Duration> {
        match need {
            Need::Nothing => Ok(()),
            Need::Config | Need::Follow | Need::Report => self.of_services.take(&OF_SERVICES, now),
            Need::Known | Need::Read => self.reads.take(&OF_READS, now),
            Need::Change | Need::Admin => self.changes.take(&OF_CHANGES, now),
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 2)
}

/// A bucket for each of many, so many of them; all others share one.
pub(crate) struct Many<K> {
    own: Mutex<HashMap<K, Bucket>>,
    shared: Bucket,
}

impl<K> Default for Many<K> {
    fn default() -> Self {
        Self {
            own: Mutex::default(),
            shared: Bucket::default(),
        }
    }
}

impl<K: Hash + Eq> Many<K> {
    /// Takes one of somebody's; if there is none, when there will be.
    pub(crate) fn take(&self, of: K, rate: &Rate, now: Duration) -> Result<(), Duration> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = own.get(&of) {
            return bucket.take(rate, now);
        }
        if own.len() >= MOST {
            own.retain(|_, bucket| !bucket.is_full(now));
        }
        if own.len() >= MOST {
            return self.shared.take(rate, now);
        }
        own.entry(of).or_default().take(rate, now)
    }

    /// Gives one back that need not have been taken.
    pub(crate) fn give_back(&self, of: &K, rate: &Rate) {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        own.get(of).unwrap_or(&self.shared).give_back(rate);
    }
}

/// Whose an address is: who has one IPv6 address has the 2^64 of its network.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const RATE: Rate = Rate::new(3, Duration::from_secs(2));
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn so_many_at_once_and_one_more_in_its_time() {
        let bucket = Bucket::default();
        let begin = 100 * SECOND;
        for _ in 0..3 {
            assert_eq!(bucket.take(&RATE, begin), Ok(()));
        }
        assert_eq!(bucket.take(&RATE, begin), Err(2 * SECOND));
        assert_eq!(bucket.take(&RATE, begin + SECOND), Err(SECOND));
        assert_eq!(bucket.take(&RATE, begin + 2 * SECOND), Ok(()));
        assert_eq!(bucket.take(&RATE, begin + 2 * SECOND), Err(2 * SECOND));
        bucket.give_back(&RATE);
        assert_eq!(bucket.take(&RATE, begin + 2 * SECOND), Ok(()));
        for _ in 0..3 {
            assert_eq!(bucket.take(&RATE, begin + 60 * SECOND), Ok(()));
        }
        assert!(bucket.take(&RATE, begin + 60 * SECOND).is_err());
    }

    #[test]
    fn signals_count_by_how_many_there_are() {
        let buckets = Buckets::default();
        let begin = 100 * SECOND;
        assert_eq!(buckets.take_signals(1_000_000, begin), Ok(()));
        assert!(buckets.take_signals(1, begin).is_err());
        assert_eq!(buckets.take_signals(20_000, begin + SECOND), Ok(()));
        let wait = buckets.take_signals(20_000, begin + SECOND);
        assert!(wait.is_err_and(|wait| wait <= SECOND), "{wait:?}");
        assert_eq!(buckets.take(Need::Report, begin), Ok(()));
    }

    #[test]
    fn addresses_are_told_apart_and_bounded() {
        let addresses = Many::default();
        let begin = 100 * SECOND;
        let take = |address: IpAddr, now| addresses.take(network(address), &RATE, now);
        let network: Ipv6Addr = "2001:db8:1:2::1".parse().unwrap();
        let same: Ipv6Addr = "2001:db8:1:2:3::4".parse().unwrap();
        for address in [network, same, network] {
            assert!(take(address.into(), begin).is_ok());
        }
        assert!(take(same.into(), begin).is_err());
        let other: Ipv6Addr = "2001:db8:1:3::1".parse().unwrap();
        assert!(take(other.into(), begin).is_ok());
        let of = |number: u32| IpAddr::from(Ipv4Addr::from(number));
        for number in 0..20_000 {
            let _ = take(of(number), begin);
        }
        assert_eq!(addresses.own.lock().unwrap().len(), MOST);
        assert!(take(of(19_999), begin).is_err(), "the rest shares one");
        assert!(take(of(1), begin).is_ok(), "those before have their own");
        assert!(take(of(30_000), begin + 60 * SECOND).is_ok());
        assert_eq!(addresses.own.lock().unwrap().len(), 1);
    }
}
