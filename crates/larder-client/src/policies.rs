//! The policies in force: made once from a whole answer, then only read.

use std::sync::Arc;
use std::time::Duration;

use larder_core::api::{EndpointConfig, ServiceConfig, Source, Watch};
use larder_core::{
    Clock as _, CoarseClock, Endpoint, EndpointError, Evidence, Gate, Key, Method, Mode, Policy,
    PolicyError, Templates, Window,
};

use crate::client::Shared;
use crate::recorder::Counters;
use crate::watch::Watched;

/// No service has more policies.
const MAX_POLICIES: usize = 2_000;
/// No greater share of hits is checked, whatever the control plane says.
const MOST_CHECKED: f64 = 0.05;
/// A reason is cut to this many characters.
const MAX_REASON: usize = 500;
/// Other instances act on a change so much later at the most.
const OTHERS: Duration = Duration::from_secs(10);

/// Why an answer of the control plane is not put in force.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("it is not the document that was asked for: {0}")]
    NotJson(#[from] serde_json::Error),
    #[error("it is for the service {0:?}")]
    Service(String),
    #[error("it has {0} policies, more than the 2,000 that a service may have")]
    TooMany(usize),
    #[error("{endpoint:?} is no endpoint: {source}")]
    Endpoint {
        endpoint: String,
        source: EndpointError,
    },
    #[error("the policy for {endpoint:?} can't be: {source}")]
    Policy {
        endpoint: String,
        source: PolicyError,
    },
}

/// What holds for a key, where it came from, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct InForce {
    /// The policy.
    pub policy: Arc<Policy>,
    /// Where it came from.
    pub source: Source,
    /// Why, in one sentence.
    pub reason: Arc<str>,
    /// The version of the service's policies; `None` before there are any.
    pub version: Option<u64>,
}

/// What holds for one endpoint.
struct Entry {
    endpoint: Endpoint,
    policy: Arc<Policy>,
    gate: Gate,
    source: Source,
    reason: Arc<str>,
    watch: Option<Watch>,
    counters: Arc<Counters>,
    /// From when on no entry is left that was stored for less than the TTL in force, by the coarse clock.
    ttl_settled_at: Duration,
}

/// All that holds at one version.
pub(crate) struct Policies {
    version: Option<u64>,
    templates: Templates<Arc<Entry>>,
    entries: Vec<Arc<Entry>>,
    default: (Arc<Policy>, Gate),
    /// For methods whose answers are never cached, and for paths of which no policy can be told.
    never: (Arc<Policy>, Gate),
}

impl Policies {
    /// Before the control plane has said anything.
    pub(crate) fn defaults(defaults: &Policy) -> Self {
        let pair = |policy: Policy| {
            let gate = Gate::from(&policy);
            (Arc::new(policy), gate)
        };
        Self {
            version: None,
            templates: Templates::default(),
            entries: Vec::new(),
            default: pair(defaults.clone()),
            never: pair(defaults.clone().with_mode(Mode::Off)),
        }
    }

    /// All of an answer, or nothing of it. Counters go on from `before`.
    pub(crate) fn new(
        config: &ServiceConfig,
        shared: &Shared,
        before: &Self,
    ) -> Result<Self, Unusable> {
        if config.service_name != shared.service.as_str() {
            let name = config.service_name.chars().take(80).collect();
            return Err(Unusable::Service(name));
        }
        if config.policies.len() > MAX_POLICIES {
            return Err(Unusable::TooMany(config.policies.len()));
        }
        let mut policies = Self::defaults(&shared.defaults);
        policies.version = Some(config.version);
        for endpoint in &config.policies {
            let entry = Arc::new(Entry::new(endpoint, before)?);
            policies
                .templates
                .insert(&entry.endpoint, Arc::clone(&entry));
            policies.entries.push(entry);
        }
        Ok(policies)
    }

    pub(crate) fn gate(&self, key: &Key) -> Gate {
        match self.find(key) {
            Some(entry) => entry.gate,
            None => self.otherwise(key).1,
        }
    }

    pub(crate) fn policy(&self, key: &Key) -> Arc<Policy> {
        match self.find(key) {
            Some(entry) => Arc::clone(&entry.policy),
            None => Arc::clone(&self.otherwise(key).0),
        }
    }

    /// The route template whose policy holds for a key.
    pub(crate) fn template(&self, key: &Key) -> Option<Box<str>> {
        Some(self.find(key)?.endpoint.template().into())
    }

    /// Where an endpoint that has a policy is counted.
    pub(crate) fn counters(&self, key: &Key) -> Option<&Counters> {
        Some(&self.find(key)?.counters)
    }

    pub(crate) fn in_force(&self, key: &Key) -> InForce {
        if let Some(entry) = self.find(key) {
            return InForce {
                policy: Arc::clone(&entry.policy),
                source: entry.source,
                reason: Arc::clone(&entry.reason),
                version: self.version,
            };
        }
        let reason = if !Method::is_safe_name(key.method()) {
            "the method is not safe, so its answers are never cached"
        } else if !key.is_path_whole() {
            "the path is too long to tell which policy holds, so its answers are not cached"
        } else {
            "the control plane has no policy for this endpoint: the service's own default holds"
        };
        InForce {
            policy: Arc::clone(&self.otherwise(key).0),
            source: Source::Default,
            reason: reason.into(),
            version: self.version,
        }
    }

    /// The counters of every endpoint that has a policy.
    pub(crate) fn counted(&self) -> impl Iterator<Item = (&Endpoint, &Counters)> {
        self.entries
            .iter()
            .map(|entry| (&entry.endpoint, &*entry.counters))
    }

    /// What was measured of every endpoint that has a policy since the last time; its keys, if it is watched.
    pub(crate) fn measured(&self) -> impl Iterator<Item = (String, Window, Option<Evidence>)> {
        self.entries.iter().map(|entry| {
            let watched = &entry.counters.watched;
            let evidence = entry.watch.map(|watch| watched.take(watch.key_share));
            (entry.endpoint.to_string(), entry.counters.take(), evidence)
        })
    }

    /// The record of a key's endpoint, if that is watched.
    pub(crate) fn watched(&self, key: &Key) -> Option<&Watched> {
        let entry = self.find(key).filter(|entry| entry.watch.is_some())?;
        Some(&entry.counters.watched)
    }

    /// Whether no entry of a key's endpoint is left that was stored for less than the TTL in force.
    pub(crate) fn is_ttl_settled(&self, key: &Key) -> bool {
        let settled = |entry: &Entry| entry.ttl_settled_at <= CoarseClock.now();
        self.find(key).is_some_and(settled)
    }

    /// Notes that entries of these endpoints were invalidated.
    pub(crate) fn erase(&self, is_meant: impl Fn(&Endpoint, &Policy) -> bool) {
        for entry in &self.entries {
            if entry.watch.is_some() && is_meant(&entry.endpoint, &entry.policy) {
                entry.counters.watched.erased(None);
            }
        }
    }

    /// Whether there is a policy for exactly this endpoint.
    pub(crate) fn has(&self, endpoint: &Endpoint) -> bool {
        self.entry(endpoint).is_some()
    }

    /// What was said of a key's endpoint. Nothing of a path that was cut: what is left of it may look like another
    /// route's, which may be cached where its own may not.
    fn find(&self, key: &Key) -> Option<&Entry> {
        let entry = self.templates.find(key.method(), key.path())?;
        key.is_path_whole().then_some(entry)
    }

    fn entry(&self, endpoint: &Endpoint) -> Option<&Entry> {
        let method = endpoint.method().as_str();
        let entry = self.templates.find(method, endpoint.template())?;
        (entry.endpoint == *endpoint).then_some(entry)
    }

    fn otherwise(&self, key: &Key) -> &(Arc<Policy>, Gate) {
        if Method::is_safe_name(key.method()) && key.is_path_whole() {
            &self.default
        } else {
            &self.never
        }
    }
}

impl Entry {
    fn new(config: &EndpointConfig, before: &Policies) -> Result<Self, Unusable> {
        let shown = || config.endpoint.chars().take(80).collect();
        let endpoint = Method::new(&config.method)
            .and_then(|method| Endpoint::new(method, &config.endpoint))
            .map_err(|source| Unusable::Endpoint {
                endpoint: shown(),
                source,
            })?;
        let policy = config.policy().map_err(|source| Unusable::Policy {
            endpoint: shown(),
            source,
        })?;
        // Above whatever the control plane says.
        let policy = if endpoint.method().is_safe() {
            policy
        } else {
            policy.with_mode(Mode::Off)
        };
        let known = before.entry(&endpoint);
        let counters = known.map(|entry| Arc::clone(&entry.counters));
        let counters = counters.unwrap_or_default();
        let ttl_before = known.map(|entry| (stored_for(&entry.policy), entry.ttl_settled_at));
        let watch = config.watch.filter(|_| endpoint.method().is_safe());
        let check_share = watch.map_or(0.0, |watch| watch.check_share.clamp(0.0, MOST_CHECKED));
        Ok(Self {
            gate: Gate {
                is_watched: watch.is_some(),
                check_share: (check_share * f64::from(u32::MAX)) as u32,
                ..Gate::from(&policy)
            },
            watch,
            ttl_settled_at: settled_at(ttl_before, stored_for(&policy), CoarseClock.now()),
            policy: Arc::new(policy),
            source: config.source,
            reason: cut(&config.reason).into(),
            counters,
            endpoint,
        })
    }
}

/// No more of a reason than is kept.
fn cut(reason: &str) -> &str {
    let end = reason.char_indices().nth(MAX_REASON);
    end.map_or(reason, |(end, _)| &reason[..end])
}

/// How long entries are stored for.
fn stored_for(policy: &Policy) -> Duration {
    match policy.mode() {
        Mode::On => policy.ttl(),
        Mode::Off | Mode::Auto | Mode::Shadow => Duration::ZERO,
    }
}

/// When all entries that were stored for less than a TTL are gone, by the TTL before it and when that was so of it.
fn settled_at(before: Option<(Duration, Duration)>, ttl: Duration, now: Duration) -> Duration {
    match before {
        // What others stored before is not known.
        None => now + ttl + OTHERS,
        Some((before, settled)) if ttl > before || ttl.is_zero() => {
            settled.max(now + before + OTHERS)
        }
        Some((_, settled)) => settled,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicU64;

    use arc_swap::ArcSwap;
    use larder_core::{QueryRule, Service, Variant};

    use super::*;
    use crate::invalidations::Invalidations;
    use crate::recorder::Recorder;

    /// `/users/{id}` is cached, `/users/{id}/secret` is not; elsewhere the default holds, which is on.
    fn policies() -> Policies {
        let defaults = Policy::default();
        let shared = Shared {
            service: Service::new("svc").unwrap(),
            policies: ArcSwap::from_pointee(Policies::defaults(&defaults)),
            recorder: Recorder::default(),
            store_errors: AtomicU64::default(),
            status: Mutex::default(),
            standing: tokio::sync::watch::Sender::default(),
            invalidations: Invalidations::new(Service::new("svc").unwrap(), 0, None),
            defaults,
        };
        let config = serde_json::json!({"service_name": "svc", "version": 1, "policies": [
            document("GET", "/users/{id}", true),
            document("HEAD", "/users/{id}", true),
            document("GET", "/users/{id}/secret", false),
            document("HEAD", "/users/{id}/secret", false),
        ]});
        let config = serde_json::from_value(config).unwrap();
        Policies::new(&config, &shared, &Policies::defaults(&shared.defaults)).unwrap()
    }

    fn document(method: &str, endpoint: &str, cache_enabled: bool) -> serde_json::Value {
        serde_json::json!({"service_name": "svc", "endpoint": endpoint, "method": method,
            "cache_enabled": cache_enabled, "mode": if cache_enabled { "on" } else { "off" }, "ttl_seconds": 60,
            "jitter": 0, "negative_ttl_seconds": 0, "load_timeout_seconds": 30, "max_value_bytes": 1024,
            "include_query": null, "vary": [], "circuit_breaker": false, "reason": "a test's", "source": "policy",
            "version": 1})
    }

    fn key(method: &str, endpoint: &str, accept: &str) -> Key {
        let variant = Variant::none().with("accept", accept).unwrap();
        let variant = variant.with_method(&Method::new(method).unwrap());
        let service = Service::new("svc").unwrap();
        Key::with(&service, endpoint, &QueryRule::All, &variant).unwrap()
    }

    fn is_off(policies: &Policies, key: &Key) -> bool {
        let by_policy = policies.policy(key).mode() == Mode::Off;
        assert_eq!(policies.in_force(key).policy.mode() == Mode::Off, by_policy);
        assert_eq!(policies.gate(key).cache_enabled, !by_policy);
        by_policy
    }

    #[test]
    fn an_off_is_not_passed_by_with_a_long_path() {
        let policies = policies();
        let path = |id: usize| format!("/users/{}/secret", "7".repeat(id));
        assert!(is_off(&policies, &key("GET", &path(3), "")));
        for length in [900, 1_000, 1_100, 2_000] {
            for method in ["GET", "HEAD"] {
                let long = key(method, &path(length), &"x".repeat(200));
                assert!(is_off(&policies, &long), "{long}");
                let reason = policies.in_force(&long).reason;
                assert!(length == 900 || reason.contains("too long"), "{reason}");
            }
        }
    }

    #[test]
    fn a_path_that_is_cut_is_counted_under_no_policy() {
        let policies = policies();
        let of = |length| key("GET", &format!("/users/{}", "7".repeat(length)), "");
        assert!(policies.counters(&of(3)).is_some());
        assert!(policies.counters(&of(1_100)).is_none());
    }

    #[test]
    fn a_long_key_of_a_post_is_never_cached() {
        let policies = policies();
        let long = "a".repeat(1_100);
        for key in [
            key("POST", &format!("/{long}"), ""),
            key("POST", &format!("/users/7?q={long}"), ""),
            key("POST", "/users/7", &long),
        ] {
            assert!(is_off(&policies, &key), "{key}");
        }
    }

    #[test]
    fn a_long_query_or_variant_is_cached_as_its_path_s_policy_says() {
        let policies = policies();
        let long = "a".repeat(1_100);
        for end in [(format!("?q={long}"), ""), (String::new(), long.as_str())] {
            let of = |path: &str| key("GET", &format!("{path}{}", end.0), end.1);
            assert!(!is_off(&policies, &of("/users/7")));
            assert!(!is_off(&policies, &of("/elsewhere")));
            assert!(is_off(&policies, &of("/users/7/secret")));
        }
    }

    #[test]
    fn a_ttl_is_settled_when_all_that_was_stored_for_less_is_gone() {
        let secs = Duration::from_secs;
        let (now, off) = (secs(1_000), Duration::ZERO);
        assert_eq!(settled_at(None, secs(60), now), secs(1_070));
        assert_eq!(settled_at(None, off, now), secs(1_010));
        let old = secs(900);
        assert_eq!(settled_at(Some((secs(5), old)), secs(20), now), secs(1_015));
        assert_eq!(settled_at(Some((secs(60), old)), secs(15), now), old);
        let later = secs(2_000);
        assert_eq!(settled_at(Some((secs(5), later)), secs(20), now), later);
        // What was stored before it went off, for 20 s, is younger than what is stored for 60 s after it went on again.
        let went_off = settled_at(Some((secs(20), old)), off, now);
        assert_eq!(went_off, secs(1_030));
        let on_again = settled_at(Some((off, went_off)), secs(60), secs(1_005));
        assert_eq!(on_again, secs(1_030));
    }
}
