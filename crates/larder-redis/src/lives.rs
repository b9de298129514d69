//! Of which services the plain entries are known to be of the present life of their server. A framed entry names the life
//! that it was taken in; a plain one, which any program may have written, can't: so all plain entries from before are
//! removed (see `crate::sweep`), and until that is through none is read.

use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

use crate::connection::Link;

/// Of more services than this no plain entry is believed where another life of the server is possible.
const MOST_SERVICES: usize = 4_096;

/// Counts what was found to be swept, in all of this process.
static MOMENT: AtomicU64 = AtomicU64::new(0);

/// What was swept by now: taken before something is sent.
pub(crate) fn moment() -> u64 {
    MOMENT.load(Ordering::Acquire)
}

/// What is known of a service.
#[derive(Debug, Clone)]
struct Known {
    service: Box<str>,
    /// Whether it was waited for once until it is known what is swept.
    is_settled: bool,
    /// The connections whose server has none of its plain entries but of this life.
    swept: Vec<Swept>,
}

#[derive(Debug, Clone, Copy)]
struct Swept {
    link: u64,
    /// What is sent from this moment on meets only these.
    since: u64,
}

/// Which plain entries can be believed.
pub(crate) struct Lives {
    /// Whether all are.
    is_kept: bool,
    /// By name: of one or a few, which are looked for at each read.
    services: ArcSwap<Vec<Known>>,
    /// How often something was to be looked at; told by `wake`.
    asked: AtomicU64,
    wake: Notify,
    /// Up to which number nothing is left to be done.
    served: watch::Sender<u64>,
}

impl Lives {
    pub(crate) fn new(is_kept: bool) -> Self {
        Self {
            is_kept,
            services: ArcSwap::default(),
            asked: AtomicU64::new(0),
            wake: Notify::new(),
            served: watch::Sender::new(0),
        }
    }

    /// Whether entries of other lives count.
    pub(crate) fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// Whether a plain entry of a service, as it was told over a connection, is of the life of its server.
    pub(crate) fn is_swept(&self, service: &str, link: Link) -> bool {
        self.is_kept
            || find(&self.services.load(), service).is_some_and(|known| {
                let is_before = |swept: &Swept| swept.link == link.id && swept.since <= link.sent;
                known.swept.iter().any(is_before)
            })
    }

    /// From now on a connection meets only plain entries of the life of its server.
    pub(crate) fn mark(&self, service: &str, link: u64) {
        let since = MOMENT.fetch_add(1, Ordering::AcqRel) + 1;
        self.change(service, |known| {
            known.swept.retain(|swept| swept.link != link);
            known.swept.push(Swept { link, since });
        });
    }

    /// A connection is over.
    pub(crate) fn forget(&self, link: u64) {
        self.services.rcu(|services| {
            let mut services = Vec::clone(services);
            for known in &mut services {
                known.swept.retain(|swept| swept.link != link);
            }
            services
        });
    }

    fn change(&self, service: &str, change: impl Fn(&mut Known)) {
        self.services.rcu(|services| {
            let mut services = Vec::clone(services);
            let place = place(&services, service).unwrap_or_else(|place| {
                let known = Known {
                    service: service.into(),
                    is_settled: false,
                    swept: Vec::new(),
                };
                services.insert(place, known);
                place
            });
            change(&mut services[place]);
            services
        });
    }

    /// All services of which something was asked.
    pub(crate) fn services(&self) -> Vec<Box<str>> {
        let services = self.services.load();
        services.iter().map(|known| known.service.clone()).collect()
    }

    /// Whether it is known by now what is swept of a service.
    #[inline]
    pub(crate) fn is_settled(&self, service: &str) -> bool {
        self.is_kept || find(&self.services.load(), service).is_some_and(|known| known.is_settled)
    }

    /// A service is asked about from now on, unless there are too many.
    pub(crate) fn add(&self, service: &str) -> bool {
        let services = self.services.load();
        if find(&services, service).is_some() {
            return true;
        }
        let has_room = services.len() < MOST_SERVICES;
        if has_room {
            self.change(service, |_| {});
        }
        has_room
    }

    /// Waits, once for each service, until nothing is left to be swept, or the time is over.
    pub(crate) async fn settle(&self, service: &str, deadline: Instant) {
        let number = self.request();
        let mut served = self.served.subscribe();
        let served = served.wait_for(|served| *served >= number);
        // What is swept by then is swept; the rest is missing for a while.
        let _ = timeout_at(deadline, served).await;
        self.change(service, |known| known.is_settled = true);
    }

    /// There is something to be looked at.
    pub(crate) fn request(&self) -> u64 {
        let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        self.wake.notify_one();
        number
    }

    /// How often something was to be looked at by now.
    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    /// Nothing is left to be done of what was asked for up to this number.
    pub(crate) fn serve(&self, number: u64) {
        self.served.send_replace(number);
    }

    /// Waits until something is to be looked at.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }
}

/// Where a service stands, or would.
fn place(services: &[Known], service: &str) -> Result<usize, usize> {
    services.binary_search_by(|known| (*known.service).cmp(service))
}

fn find<'a>(services: &'a [Known], service: &str) -> Option<&'a Known> {
    Some(&services[place(services, service).ok()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(id: u64) -> Link {
        Link {
            id,
            sent: moment(),
            ..Link::default()
        }
    }

    #[test]
    fn what_was_sent_before_a_sweep_ended_met_what_it_removed() {
        let lives = Lives::new(false);
        let (before, other) = (link(1), link(2));
        assert!(!lives.is_swept("svc", before));
        lives.mark("svc", 1);
        assert!(!lives.is_swept("svc", before));
        assert!(lives.is_swept("svc", link(1)));
        assert!(!lives.is_swept("svc", other) && !lives.is_swept("svc", link(2)));
        assert!(!lives.is_swept("svc-b", link(1)));
        lives.forget(1);
        assert!(!lives.is_swept("svc", link(1)));
        assert!(Lives::new(true).is_swept("svc", before));
    }
}
