//! The instances of services: which version of its policies each has in force, as it says. In memory, bounded.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use larder_model::api::{InstanceReport, InstanceState, InstanceSummary, RejectedVersion};
use larder_model::{KeyError, Service};

/// Instances report every 30 s; who missed two of it, and half of the third, is gone.
const GONE_AFTER: Duration = Duration::from_secs(90);
/// So long after that it is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(3_600);
/// So long after a start of the control plane all have said where they stand: it asks none, and they report every 30 s.
pub(crate) const SETTLED_AFTER: Duration = Duration::from_secs(45);
/// Further ones are refused.
const MAX_INSTANCES: usize = 10_000;
/// A tag has no more characters.
const MAX_TAG: usize = 128;
/// A reason is cut to so many characters.
const MAX_REASON: usize = 300;

/// Why a report is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReportError {
    #[error(transparent)]
    Service(#[from] KeyError),
    #[error("the instance's name {0:?} is not valid: use 1 to 64 of A-Z a-z 0-9 . _ -")]
    Instance(String),
    #[error("a tag is not one: use what came as ETag or id, at most 128 characters")]
    Tag,
    #[error("10,000 instances are known, the most that may be")]
    Full,
}

/// All instances that were heard of lately.
pub(crate) struct Instances {
    known: Mutex<All>,
    /// Since when they are listened to.
    began: Duration,
    /// Services that were there before: they have instances that have not said anything yet.
    before: HashSet<Service>,
}

/// Those of each service, by name.
#[derive(Default)]
struct All {
    of: HashMap<Service, BTreeMap<String, Known>>,
    count: usize,
}

/// How far an instance is with an invalidation.
pub(crate) struct Reached {
    pub(crate) instance: String,
    pub(crate) seen_seconds_ago: u64,
    pub(crate) has_it: bool,
    /// Whether it is not heard of any more.
    pub(crate) is_gone: bool,
    /// Why it has not, as far as that is known.
    pub(crate) why: String,
}

/// What an instance said last.
struct Known {
    report: InstanceReport,
    seen: Duration,
}

impl Instances {
    /// Listens from now on; these services were there before.
    pub(crate) fn new(now: Duration, before: HashSet<Service>) -> Self {
        Self {
            known: Mutex::default(),
            began: now,
            before,
        }
    }

    /// How long ago the control plane was started, as long as a service may have instances that have not said anything since.
    pub(crate) fn unsettled(&self, service: &Service, now: Duration) -> Option<Duration> {
        let since = now.saturating_sub(self.began);
        (since < SETTLED_AFTER && self.before.contains(service)).then_some(since)
    }

    /// Takes a report in.
    pub(crate) fn take(&self, report: InstanceReport, now: Duration) -> Result<(), ReportError> {
        let report = check(report)?;
        let service = Service::new(&report.service_name)?;
        let mut known = self.lock();
        let before = known.get(&service, &report.instance);
        // Another replica was told before, and passed it on after that.
        if before.is_some_and(|one| one.seen > now) {
            return Ok(());
        }
        if report.leaving {
            known.remove(&service, &report.instance);
            return Ok(());
        }
        if before.is_none() && known.count >= MAX_INSTANCES {
            known.retain(|one| !one.is_gone(now));
            if known.count >= MAX_INSTANCES {
                return Err(ReportError::Full);
            }
        }
        known.insert(service, Known { report, seen: now });
        Ok(())
    }

    /// How all instances, or those of one service, stand; `current` tells a service's version and its `ETag`.
    pub(crate) fn list(
        &self,
        only: Option<&Service>,
        now: Duration,
        current: impl Fn(&Service) -> (u64, String),
    ) -> Vec<InstanceSummary> {
        let mut known = self.lock();
        let is_remembered = |one: &Known| !one.is_forgotten(now);
        let services = match only {
            Some(only) => known.of.get_key_value(only).into_iter().collect(),
            None => {
                known.retain(is_remembered);
                let mut all: Vec<_> = known.of.iter().collect();
                all.sort_by_key(|(service, _)| service.as_str());
                all
            }
        };
        let mut list = Vec::new();
        for (service, instances) in services {
            let (version, etag) = current(service);
            let remembered = instances.values().filter(|one| is_remembered(one));
            list.extend(remembered.map(|one| one.describe(now, version, etag.trim_matches('"'))));
        }
        list
    }

    /// How far the instances of a service are with an invalidation; `has_it` says so of a position. By name.
    pub(crate) fn reached(
        &self,
        service: &Service,
        now: Duration,
        has_it: impl Fn(&str) -> bool,
    ) -> Vec<Reached> {
        let known = self.lock();
        let ours = known.of.get(service).into_iter().flat_map(BTreeMap::values);
        let remembered = ours.filter(|one| !one.is_forgotten(now));
        remembered.map(|one| one.reached(now, &has_it)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl All {
    fn get(&self, service: &Service, instance: &str) -> Option<&Known> {
        self.of.get(service)?.get(instance)
    }

    fn insert(&mut self, service: Service, one: Known) {
        let instances = self.of.entry(service).or_default();
        let before = instances.insert(one.report.instance.clone(), one);
        self.count += usize::from(before.is_none());
    }

    fn remove(&mut self, service: &Service, instance: &str) {
        let Some(instances) = self.of.get_mut(service) else {
            return;
        };
        let before = instances.remove(instance);
        self.count -= usize::from(before.is_some());
        if instances.is_empty() {
            self.of.remove(service);
        }
    }

    fn retain(&mut self, stays: impl Fn(&Known) -> bool) {
        for instances in self.of.values_mut() {
            instances.retain(|_, one| stays(one));
        }
        self.of.retain(|_, instances| !instances.is_empty());
        self.count = self.of.values().map(BTreeMap::len).sum();
    }
}

impl Known {
    fn is_gone(&self, now: Duration) -> bool {
        now.saturating_sub(self.seen) > GONE_AFTER
    }

    fn is_forgotten(&self, now: Duration) -> bool {
        now.saturating_sub(self.seen) >= FORGET_AFTER
    }

    fn state(&self, now: Duration, current: &str) -> InstanceState {
        let rejected = self.report.rejected.as_ref();
        let is_current = |tag: &Option<String>| tag.as_deref() == Some(current);
        if self.is_gone(now) {
            InstanceState::Gone
        } else if is_current(&self.report.tag) {
            InstanceState::Current
        } else if rejected.is_some_and(|rejected| is_current(&rejected.tag)) {
            InstanceState::Rejected
        } else {
            InstanceState::Stale
        }
    }

    fn reached(&self, now: Duration, has_it: impl Fn(&str) -> bool) -> Reached {
        let InstanceReport {
            invalidated,
            invalidation_trouble,
            ..
        } = &self.report;
        let seen_seconds_ago = now.saturating_sub(self.seen).as_secs();
        let why = match (invalidation_trouble, invalidated) {
            (Some(trouble), _) => trouble.clone(),
            (None, None) => "it does not say how far it is: update it, or restart it".to_owned(),
            (None, Some(_)) => "it has not said yet that it is done".to_owned(),
        };
        Reached {
            instance: self.report.instance.clone(),
            seen_seconds_ago,
            has_it: invalidated.as_deref().is_some_and(has_it),
            is_gone: self.is_gone(now),
            why,
        }
    }

    fn describe(&self, now: Duration, current_version: u64, current: &str) -> InstanceSummary {
        let since = now.saturating_sub(self.seen);
        let ago = |ago_ms: u64| {
            Duration::from_millis(ago_ms)
                .saturating_add(since)
                .as_secs()
        };
        let report = &self.report;
        InstanceSummary {
            service_name: report.service_name.clone(),
            instance: report.instance.clone(),
            state: self.state(now, current),
            version: report.version,
            current_version,
            via: report.via,
            activated_seconds_ago: ago(report.activated_ago_ms),
            seen_seconds_ago: since.as_secs(),
            rejected: report.rejected.as_ref().map(|rejected| RejectedVersion {
                tag: rejected.tag.clone(),
                reason: rejected.reason.clone(),
                seconds_ago: ago(rejected.ago_ms),
            }),
        }
    }
}

fn check(mut report: InstanceReport) -> Result<InstanceReport, ReportError> {
    if Service::new(&report.instance).is_err() {
        let name = report.instance.chars().take(80).collect();
        return Err(ReportError::Instance(name));
    }
    let rejected = report.rejected.as_ref();
    let rejected = rejected.and_then(|rejected| rejected.tag.as_deref());
    let tags = [
        report.tag.as_deref(),
        rejected,
        report.invalidated.as_deref(),
    ];
    if !tags.into_iter().flatten().all(is_tag) {
        return Err(ReportError::Tag);
    }
    if let Some(rejected) = &mut report.rejected {
        rejected.reason = rejected.reason.chars().take(MAX_REASON).collect();
    }
    if let Some(trouble) = &mut report.invalidation_trouble {
        *trouble = trouble.chars().take(MAX_REASON).collect();
    }
    Ok(report)
}

fn is_tag(text: &str) -> bool {
    text.len() <= MAX_TAG && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use larder_model::api::{RejectedReport, Via};

    use super::*;

    const NOW: Duration = Duration::from_secs(1_000_000);

    fn report(instance: &str, tag: &str) -> InstanceReport {
        InstanceReport {
            service_name: "svc".into(),
            instance: instance.into(),
            version: Some(7),
            tag: Some(tag.into()),
            via: Via::Stream,
            activated_ago_ms: 2_000,
            rejected: None,
            invalidated: None,
            invalidation_trouble: None,
            leaving: false,
        }
    }

    fn instances() -> Instances {
        Instances::new(NOW, HashSet::new())
    }

    fn states(instances: &Instances, now: Duration) -> Vec<(String, InstanceState)> {
        let list = instances.list(None, now, |_| (7, "\"db-7\"".into()));
        list.into_iter()
            .map(|one| (one.instance, one.state))
            .collect()
    }

    #[test]
    fn each_instance_is_current_stale_rejected_or_gone() {
        use InstanceState::{Current, Gone, Rejected, Stale};
        let instances = instances();
        let rejected = |tag: &str| {
            let rejected = RejectedReport {
                tag: Some(tag.into()),
                reason: "x".repeat(1_000),
                ago_ms: 0,
            };
            Some(rejected)
        };
        instances.take(report("gone", "db-7"), NOW).unwrap();
        let later = NOW + GONE_AFTER + Duration::from_secs(1);
        let mut of_another_database = report("d", "other-7");
        of_another_database.rejected = rejected("db-6");
        let mut parked = report("c", "db-6");
        parked.rejected = rejected("db-7");
        for report in [
            report("a", "db-7"),
            report("b", "db-6"),
            parked,
            of_another_database,
        ] {
            instances.take(report, later).unwrap();
        }
        let expected = [
            ("a", Current),
            ("b", Stale),
            ("c", Rejected),
            ("d", Stale),
            ("gone", Gone),
        ];
        let expected = expected.map(|(name, state)| (name.to_owned(), state));
        assert_eq!(states(&instances, later), expected);
        let list = instances.list(None, later, |_| (7, "\"db-7\"".into()));
        assert_eq!(list[4].activated_seconds_ago, 93);
        let reason = &list[2].rejected.as_ref().unwrap().reason;
        assert_eq!(reason.len(), MAX_REASON);
        assert!(states(&instances, later + FORGET_AFTER).is_empty());
    }

    #[test]
    fn who_leaves_is_forgotten_and_what_can_not_be_is_refused() {
        let instances = instances();
        instances.take(report("a", "db-7"), NOW).unwrap();
        let mut leaving = report("a", "db-7");
        leaving.leaving = true;
        instances.take(leaving, NOW).unwrap();
        let long = "x".repeat(129);
        for bad in [
            report("a b", "db-7"),
            report("", "db-7"),
            report("a", "a\nb"),
            report("a", &long),
        ] {
            assert!(instances.take(bad, NOW).is_err());
        }
        assert_eq!(instances.lock().count, 0);
        assert!(instances.lock().of.is_empty());
    }

    #[test]
    fn no_more_than_so_many_are_kept() {
        let instances = instances();
        for index in 0..MAX_INSTANCES {
            let report = report(&format!("i-{index}"), "db-7");
            instances.take(report, NOW).unwrap();
        }
        let one_more = || report("one-more", "db-7");
        assert!(matches!(
            instances.take(one_more(), NOW),
            Err(ReportError::Full)
        ));
        instances.take(report("i-0", "db-7"), NOW).unwrap();
        let later = NOW + GONE_AFTER * 2;
        instances.take(one_more(), later).unwrap();
        assert_eq!(instances.lock().count, 1, "those that are gone make room");
    }

    #[test]
    fn each_service_has_its_own() {
        let instances = instances();
        let of = |service: &str, instance: &str| InstanceReport {
            service_name: service.into(),
            ..report(instance, "db-7")
        };
        for (service, instance) in [("b", "2"), ("a", "1"), ("b", "1"), ("b", "2")] {
            instances.take(of(service, instance), NOW).unwrap();
        }
        assert_eq!(instances.lock().count, 3);
        let names = |only: Option<&str>| -> Vec<String> {
            let only = only.map(|name| Service::new(name).unwrap());
            let list = instances.list(only.as_ref(), NOW, |_| (7, String::new()));
            let name = |one: InstanceSummary| format!("{}/{}", one.service_name, one.instance);
            list.into_iter().map(name).collect()
        };
        assert_eq!(names(None), ["a/1", "b/1", "b/2"]);
        assert_eq!(names(Some("b")), ["b/1", "b/2"]);
        assert!(names(Some("c")).is_empty());
        let b = Service::new("b").unwrap();
        assert_eq!(instances.reached(&b, NOW, |_| true).len(), 2);
        let mut leaving = of("a", "1");
        leaving.leaving = true;
        instances.take(leaving, NOW).unwrap();
        assert_eq!(names(None), ["b/1", "b/2"]);
    }

    #[test]
    fn after_a_start_those_of_a_service_that_was_there_before_are_waited_for() {
        let (old, new) = (Service::new("old").unwrap(), Service::new("new").unwrap());
        let instances = Instances::new(NOW, HashSet::from([old.clone()]));
        let second = Duration::from_secs(1);
        assert_eq!(instances.unsettled(&old, NOW + second), Some(second));
        assert_eq!(instances.unsettled(&new, NOW + second), None);
        assert_eq!(instances.unsettled(&old, NOW + SETTLED_AFTER), None);
    }
}
