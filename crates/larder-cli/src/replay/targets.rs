//! What a request's target means: a key, and the endpoint that it is of. Those of late are remembered.

use larder_core::{Key, QueryRule, Service, Variant};
use twox_hash::XxHash3_64;

use crate::replay::SERVICE;
use crate::replay::endpoints::{EndpointId, Endpoints};
use crate::replay::include::Included;

/// So many targets are remembered, each in the one place that its hash tells.
const PLACES: usize = 1 << 16;
/// How long what stands before the target in a key is: `cache:replay:`.
const KEY_PREFIX_BYTES: usize = "cache:".len() + SERVICE.len() + ":".len();
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

impl Meaning {
    /// The target as it stands in the key: where it was written so, it need not be kept twice.
    fn text(&self) -> Option<&str> {
        let Self::Lookup { key, .. } = self else {
            return None;
        };
        key.as_str().get(KEY_PREFIX_BYTES..)
    }
}

struct Place {
    /// `None`: as it stands in the key.
    target: Option<Box<str>>,
    meaning: Meaning,
}

impl Place {
    /// One that remembers nothing.
    fn empty() -> Self {
        Self {
            target: None,
            meaning: Meaning::NoKey,
        }
    }

    fn of(target: &str, meaning: Meaning) -> Self {
        let is_in_key = meaning.text() == Some(target);
        Self {
            target: (!is_in_key).then(|| target.into()),
            meaning,
        }
    }

    fn is_of(&self, target: &str) -> bool {
        self.target.as_deref().or_else(|| self.meaning.text()) == Some(target)
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
        if !self.places[at].is_of(target) {
            self.places[at] = Place::of(target, self.find_out(target));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_what_is_found_out() {
        let service = Service::new(SERVICE).unwrap();
        let included = Included::new(vec!["/a*".parse().unwrap()]);
        let mut targets = Targets::new(service, QueryRule::All, included);
        let long = format!("/a{}", "x".repeat(2 * MOST_BYTES));
        let all = [
            "/a", "/a?c&b", "/a?b&c", "/a%41", "/aA", "/b", "/../a", "/a/%zz", "", "a", &long,
        ];
        for _ in 0..2 {
            for target in all {
                let expected = targets.find_out(target);
                assert_eq!(targets.meaning(target), &expected, "{target}");
            }
        }
        let key = |targets: &mut Targets, target| match targets.meaning(target) {
            Meaning::Lookup { key, .. } => key.as_str().to_owned(),
            other => panic!("{target}: {other:?}"),
        };
        assert_eq!(key(&mut targets, "/a%41"), "cache:replay:/aA");
        assert_eq!(key(&mut targets, "/a?c&b"), key(&mut targets, "/a?b&c"));
    }
}
