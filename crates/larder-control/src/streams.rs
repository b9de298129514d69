//! Streams of policies: who follows which service, how many there may be, and their end.
//!
//! A service that somebody follows has one slot, with its latest event: made once for a version, and shared by all. A
//! stream looks into the slot whenever its client has taken what was there before. So a client that is slow, or never reads,
//! costs a reference, however often the policies change meanwhile.
//!
//! What else a service's clients are to hear is an event of another name in the same stream: a client passes over names that
//! it doesn't know. Invalidations must not be missed: each stream has its place in their ring ([`crate::invalidations`]).

mod body;
mod event;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use larder_model::Service;
use tokio::sync::watch;

use crate::registry::Snapshot;
pub(crate) use body::Stream;
pub(crate) use event::{Event, invalidate, invalidations};

/// How many streams there may be, and how each is served.
#[derive(Debug, Clone)]
pub struct StreamLimits {
    /// Streams at once. Default: 20,000.
    pub in_all: usize,
    /// Streams of one service at once. Default: 15,000.
    pub per_service: usize,
    /// Streams from one address at once. Default: 15,000.
    pub per_address: usize,
    /// Streams with one API key at once. Default: 15,000.
    pub per_key: usize,
    /// How often a stream on which nothing else happens says that it lives. Proxies close what is silent for a minute.
    /// Default: 10 s.
    pub heartbeat: Duration,
    /// How old a stream gets, a fifth more or less by chance, before its client is asked to open another: so that after
    /// a rolling restart not all stay with one replica. Default: 10 min.
    pub age: Duration,
    /// How long a client may take nothing of what waits for it, here and in all other answers. Default: 30 s.
    pub stall: Duration,
    /// On shutdown each client is asked to come again after a random part of this time. Default: 30 s.
    pub drain: Duration,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self {
            in_all: 20_000,
            per_service: 15_000,
            per_address: 15_000,
            per_key: 15_000,
            heartbeat: Duration::from_secs(10),
            age: Duration::from_secs(600),
            stall: Duration::from_secs(30),
            drain: Duration::from_secs(30),
        }
    }
}

/// Why there is no stream for a client. It may come again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the control plane ends: come again when it is back")]
    Ending,
    #[error("there are as many streams as there may be: come again later, or poll /api/config")]
    InAll,
    #[error(
        "this service has as many streams as it may have: come again later, or poll /api/config"
    )]
    OfService,
    #[error(
        "this address has as many streams as it may have: come again later, or poll /api/config"
    )]
    OfAddress,
    #[error(
        "this API key has as many streams as it may have: come again later, or poll /api/config"
    )]
    OfKey,
}

/// The streams of all services.
pub(crate) struct Streams {
    limits: StreamLimits,
    /// What each stream begins with.
    begin: Bytes,
    places: Arc<Mutex<Places>>,
    is_ending: watch::Sender<bool>,
}

/// Who has a stream. Nothing is kept of a service or an address that has none.
#[derive(Default)]
struct Places {
    in_all: usize,
    of_address: HashMap<IpAddr, usize>,
    of_service: HashMap<Service, Slot>,
}

/// A service that is followed.
struct Slot {
    latest: watch::Sender<Event>,
    streams: usize,
}

impl Streams {
    pub(crate) fn new(limits: StreamLimits) -> Self {
        Self {
            begin: event::begin(limits.heartbeat),
            limits,
            places: Arc::default(),
            is_ending: watch::Sender::new(false),
        }
    }

    pub(crate) fn limits(&self) -> &StreamLimits {
        &self.limits
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        lock(&self.places).in_all
    }

    /// Tells those who follow a service what holds now. It must be what [`Streams::open`] is told from now on.
    pub(crate) fn publish(&self, snapshot: &Snapshot) {
        let places = lock(&self.places);
        if let Some(slot) = places.of_service.get(snapshot.service()) {
            let event = Event::new(snapshot.etag(), &snapshot.document());
            slot.latest.send_replace(event);
        }
    }

    /// A stream for a client that has the version with the tag `known`; `latest` is what holds now.
    pub(crate) fn open(
        &self,
        service: &Service,
        address: IpAddr,
        known: Option<&str>,
        latest: impl FnOnce() -> Event,
    ) -> Result<Stream, Refused> {
        let is_ending = self.is_ending.subscribe();
        if *is_ending.borrow() {
            return Err(Refused::Ending);
        }
        let mut places = lock(&self.places);
        places.check(&self.limits, service, address)?;
        places.in_all += 1;
        *places.of_address.entry(address).or_default() += 1;
        // Under the lock: what is published from now on finds the slot.
        let slot = places.of_service.entry(service.clone());
        let slot = slot.or_insert_with(|| Slot {
            latest: watch::Sender::new(latest()),
            streams: 0,
        });
        slot.streams += 1;
        let latest = slot.latest.subscribe();
        drop(places);
        let place = Place {
            places: Arc::clone(&self.places),
            service: service.clone(),
            address,
        };
        let beginning = body::Beginning {
            begin: self.begin.clone(),
            known: known.map(str::to_owned),
        };
        Ok(Stream::new(
            beginning,
            latest,
            is_ending,
            &self.limits,
            place,
        ))
    }

    /// Becomes true when all are to end.
    pub(crate) fn ending(&self) -> watch::Receiver<bool> {
        self.is_ending.subscribe()
    }

    /// Asks all clients to come again later, ends their streams, and opens no more.
    pub(crate) fn end(&self) {
        self.is_ending.send_replace(true);
    }
}

impl Places {
    fn check(
        &self,
        limits: &StreamLimits,
        service: &Service,
        address: IpAddr,
    ) -> Result<(), Refused> {
        let of_service = self.of_service.get(service).map_or(0, |slot| slot.streams);
        let of_address = self.of_address.get(&address).copied().unwrap_or(0);
        if self.in_all >= limits.in_all {
            Err(Refused::InAll)
        } else if of_service >= limits.per_service {
            Err(Refused::OfService)
        } else if of_address >= limits.per_address {
            Err(Refused::OfAddress)
        } else {
            Ok(())
        }
    }
}

/// A stream's place, given back when it is dropped.
struct Place {
    places: Arc<Mutex<Places>>,
    service: Service,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = lock(&self.places);
        places.in_all = places.in_all.saturating_sub(1);
        if let Some(streams) = places.of_address.get_mut(&self.address) {
            *streams -= 1;
            if *streams == 0 {
                places.of_address.remove(&self.address);
            }
        }
        if let Some(slot) = places.of_service.get_mut(&self.service) {
            slot.streams -= 1;
            if slot.streams == 0 {
                places.of_service.remove(&self.service);
            }
        }
    }
}

fn lock(places: &Mutex<Places>) -> MutexGuard<'_, Places> {
    places.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From 0 to 1.
fn chance() -> f64 {
    getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX))
}

/// A random whole number of seconds, for `Retry-After`.
pub(crate) fn retry_after() -> u64 {
    10 + (20.0 * chance()) as u64
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn service(name: &str) -> Service {
        Service::new(name).unwrap()
    }

    fn open(streams: &Streams, name: &str, address: u8) -> Result<Stream, Refused> {
        let address = Ipv4Addr::new(127, 0, 0, address).into();
        let latest = || Event::new("\"db-0\"", b"{}");
        streams.open(&service(name), address, None, latest)
    }

    #[test]
    fn places_are_bounded_and_given_back() {
        let streams = Streams::new(StreamLimits {
            in_all: 4,
            per_service: 2,
            per_address: 3,
            ..StreamLimits::default()
        });
        let refused = |name, address| open(&streams, name, address).err();
        let first = open(&streams, "a", 1).ok();
        let _second = open(&streams, "a", 1).ok();
        assert_eq!(refused("a", 2), Some(Refused::OfService));
        let _third = open(&streams, "b", 1).ok();
        assert_eq!(refused("c", 1), Some(Refused::OfAddress));
        let fourth = open(&streams, "c", 2).ok();
        assert_eq!(refused("d", 3), Some(Refused::InAll));
        drop(first);
        assert_eq!(refused("a", 1), None);
        drop(fourth);
        let places = lock(&streams.places);
        assert_eq!((places.of_service.len(), places.of_address.len()), (2, 1));
    }

    #[test]
    fn when_it_ends_no_more_are_opened() {
        let streams = Streams::new(StreamLimits::default());
        streams.end();
        assert_eq!(open(&streams, "a", 1).err(), Some(Refused::Ending));
        assert_eq!(streams.count(), 0);
    }
}
