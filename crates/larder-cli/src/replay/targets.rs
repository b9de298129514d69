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

/// Targets and their meanings.
pub(crate) struct Targets {
    service: Service,
    query_rule: QueryRule,
    included: Included,
    endpoints: Endpoints,
    places: Box<[Option<Place>]>,
}

impl Targets {
    pub(crate) fn new(service: Service, query_rule: QueryRule, included: Included) -> Self {
        Self {
            service,
            query_rule,
            included,
            endpoints: Endpoints::new(),
            places: (0..PLACES).map(|_| None).collect(),
        }
    }

    pub(crate) fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    pub(crate) fn meaning(&mut self, target: &str) -> Meaning {
        if target.len() > MOST_BYTES {
            return self.find_out(target);
        }
        // Who chooses targets that share a place makes them be found out anew, no more.
        let at = XxHash3_64::oneshot(target.as_bytes()) as usize % PLACES;
        if let Some(place) = &self.places[at]
            && *place.target == *target
        {
            return place.meaning.clone();
        }
        let meaning = self.find_out(target);
        self.places[at] = Some(Place {
            target: target.into(),
            meaning: meaning.clone(),
        });
        meaning
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
