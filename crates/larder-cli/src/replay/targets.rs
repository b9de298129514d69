//! What a request's target means: a key, and the endpoint that it is of. Those of late are remembered.

use larder_core::{Key, QueryRule, Service, Variant};
use twox_hash::XxHash3_64;

use crate::replay::endpoints::{EndpointId, Endpoints};
use crate::replay::include::Included;

/// So many targets are remembered, each in the one place that its hash tells.
const PLACES: usize = 1 << 16;
/// Longer targets, in bytes, are not remembered.
const MOST_BYTES: usize = 256;

/// What a target means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// A lookup of this key.
    Lookup { key: Key, endpoint: EndpointId },
    /// Its path was not asked for.
    NotIncluded,
    /// Larder has no key for it: a dot segment, a `%` without its digits, or more than 8 KiB.
    NoKey,
}

struct Place {
    target: Box<str>,
    meaning: Meaning,
}

impl Place {
    /// One that remembers nothing: no request has an empty target.
    fn empty() -> Self {
        Self {
            target: "".into(),
            meaning: Meaning::NoKey,
        }
    }
}

/// Targets and their meanings.
pub(crate) struct Targets {
    service: Service,
    query_rule: QueryRule,
    included: Included,
    endpoints: Endpoints,
    places: Box<[Place]>,
    /// What the last target meant, if that is not remembered.
    last: Meaning,
}

impl Targets {
    pub(crate) fn new(service: Service, query_rule: QueryRule, included: Included) -> Self {
        Self {
            service,
            query_rule,
            included,
            endpoints: Endpoints::new(),
            places: (0..PLACES).map(|_| Place::empty()).collect(),
            last: Meaning::NoKey,
        }
    }

    pub(crate) fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    pub(crate) fn meaning(&mut self, target: &str) -> &Meaning {
        if target.len() > MOST_BYTES {
            self.last = self.find_out(target);
            return &self.last;
        }
        // Who chooses targets that share a place makes them be found out anew, no more.
        let at = XxHash3_64::oneshot(target.as_bytes()) as usize % PLACES;
        if *self.places[at].target != *target {
            self.places[at] = Place {
                target: target.into(),
                meaning: self.find_out(target),
            };
        }
        &self.places[at].meaning
    }

    fn find_out(&mut self, target: &str) -> Meaning {
        let key = Key::with(&self.service, target, &self.query_rule, &Variant::none());
        let Ok(key) = key else {
            return Meaning::NoKey;
        };
        if !self.included.means(&key) {
            return Meaning::NotIncluded;
        }
        let endpoint = self.endpoints.of_path(key.path());
        Meaning::Lookup { key, endpoint }
    }
}
