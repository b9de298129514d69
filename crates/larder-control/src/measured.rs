//! What was measured lately: windows per endpoint, in memory, bounded whatever is sent.

mod check;
mod inbox;
mod rolling;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use larder_decide::Seen;
use larder_model::api::{MeasuredEndpoint, SignalBatch};
use larder_model::{Endpoint, Service, Window};

pub(crate) use check::SignalError;
use check::{Checked, Identity, OTHER, check_signal, check_window, guess};
use inbox::Inbox;
pub(crate) use inbox::Waited;
use rolling::Rolling;
pub(crate) use rolling::{BUCKET_SECONDS, REACH};

/// An endpoint on which nothing was measured for so long is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(3_600);
/// What a service measured is known for so long.
const HOUR: Duration = Duration::from_secs(3_600);
/// Each service has at most this many endpoints; further ones count as `other`.
const MAX_ENDPOINTS: usize = 2_000;
/// All services together have at most this many, `other` not counted.
const MAX_ENDPOINTS_IN_ALL: usize = 20_000;
/// Services past these are not measured.
const MAX_SERVICES: usize = 1_000;
/// The sequences of at most this many instances are remembered.
const MAX_INSTANCES: usize = 10_000;

/// What was counted of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counted {
    /// Taken in.
    pub(crate) accepted: u64,
    /// Windows that had been taken in before.
    pub(crate) duplicates: u64,
    /// Of services past the bound.
    pub(crate) dropped: u64,
}

/// What was measured of all services.
#[derive(Default)]
pub(crate) struct Measured {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    services: HashMap<Service, Endpoints>,
    /// Endpoints of all services, `other` not counted.
    endpoints: usize,
    /// By service and instance: the windows that were taken in, and when it was seen.
    instances: HashMap<(Service, String), (Seen, Duration)>,
    /// What arrived since the last tick.
    inbox: Inbox,
}

struct Endpoints {
    known: HashMap<Endpoint, Rolling>,
    other: Rolling,
    /// All of them together, for longer.
    in_all: Rolling,
}

impl Default for Endpoints {
    fn default() -> Self {
        Self {
            known: HashMap::new(),
            other: Rolling::default(),
            in_all: Rolling::reaching(HOUR),
        }
    }
}

/// What a policy knows of an endpoint.
pub(crate) struct Known {
    /// The policy's own template.
    pub(crate) endpoint: Endpoint,
    /// Whether something is decided for it.
    pub(crate) is_watched: bool,
}

impl Measured {
    /// Takes a batch in, which came with the key `by`. `known` finds the policy that an endpoint, which may be a concrete path,
    /// belongs to.
    pub(crate) fn take(
        &self,
        by: Option<&str>,
        batch: SignalBatch,
        now: Duration,
        known: impl Fn(&Service, &Endpoint) -> Option<Known>,
    ) -> Result<Counted, SignalError> {
        let signals = batch.signals.into_iter().map(check_signal);
        let windows = batch.windows.into_iter().map(check_window);
        let mut checked = signals.chain(windows).collect::<Result<Vec<_>, _>>()?;
        for one in &mut checked {
            // Who has another key uses none of this one's sequence up. No name of an instance has a space.
            if let (Some(by), Some(identity)) = (by, &mut one.identity) {
                identity.instance = format!("{by} {}", identity.instance);
            }
            let Some(endpoint) = &one.endpoint else {
                continue;
            };
            match known(&one.service, endpoint) {
                Some(known) => {
                    one.is_watched = known.is_watched;
                    one.endpoint = Some(known.endpoint);
                }
                None => one.endpoint = Some(guess(endpoint)?),
            }
        }
        let mut state = self.state();
        let mut counted = Counted::default();
        for one in checked {
            state.count(one, now, &mut counted);
        }
        Ok(counted)
    }

    /// What was measured of an endpoint in the last minutes.
    pub(crate) fn window(&self, service: &Service, endpoint: &Endpoint, now: Duration) -> Window {
        let state = self.state();
        let endpoints = state.services.get(service);
        let rolling = endpoints.and_then(|endpoints| endpoints.known.get(endpoint));
        rolling.map(|rolling| rolling.sum(now)).unwrap_or_default()
    }

    /// Everything, or one service's.
    pub(crate) fn list(&self, only: Option<&Service>, now: Duration) -> Vec<MeasuredEndpoint> {
        let state = self.state();
        let mut list = Vec::new();
        for (service, endpoints) in &state.services {
            if only.is_some_and(|only| only != service) {
                continue;
            }
            for (endpoint, rolling) in &endpoints.known {
                let name = (endpoint.template(), endpoint.method().as_str());
                list.push(describe(service, name, rolling.sum(now)));
            }
            let other = endpoints.other.sum(now);
            if other.requests() > 0 {
                list.push(describe(service, (OTHER, "GET"), other));
            }
        }
        list.sort_by(|a, b| {
            (&a.service_name, &a.endpoint, &a.method).cmp(&(
                &b.service_name,
                &b.endpoint,
                &b.method,
            ))
        });
        list
    }

    /// What all services, or one, measured in each minute of the last hour, oldest first.
    pub(crate) fn hour(&self, only: Option<&Service>, now: Duration) -> Vec<Window> {
        let minute = 60 / BUCKET_SECONDS;
        let mut hour = Rolling::reaching(HOUR).series(now, minute);
        for (service, endpoints) in &self.state().services {
            if only.is_none_or(|only| only == service) {
                let minutes = endpoints.in_all.series(now, minute);
                std::iter::zip(&mut hour, &minutes).for_each(|(sum, minute)| sum.merge(minute));
            }
        }
        hour
    }

    /// What was measured of an endpoint in each bucket of the last minutes, oldest first.
    pub(crate) fn minutes(
        &self,
        service: &Service,
        endpoint: &Endpoint,
        now: Duration,
    ) -> Vec<Window> {
        let state = self.state();
        let endpoints = state.services.get(service);
        let rolling = endpoints.and_then(|endpoints| endpoints.known.get(endpoint));
        match rolling {
            Some(rolling) => rolling.series(now, 1),
            None => Rolling::default().series(now, 1),
        }
    }

    /// What each service measured in a stretch of whole buckets of the last hour, where it measured anything.
    pub(crate) fn between(&self, (from, until): (Duration, Duration)) -> Vec<(String, Window)> {
        let state = self.state();
        let all = state.services.iter().map(|(service, endpoints)| {
            let sum = endpoints.in_all.between(from, until);
            (service.as_str().to_owned(), sum)
        });
        all.filter(|(_, sum)| *sum != Window::default()).collect()
    }

    /// Takes in what a service measured at a time, of which no more is known; in the order of time.
    pub(crate) fn restore(&self, service: &Service, at: Duration, window: &Window) {
        let mut state = self.state();
        if state.services.len() < MAX_SERVICES || state.services.contains_key(service) {
            let endpoints = state.services.entry(service.clone()).or_default();
            endpoints.in_all.add(window, at);
        }
    }

    /// The services that were measured, and how many endpoints each has.
    pub(crate) fn services(&self) -> Vec<(String, u64)> {
        let state = self.state();
        let count = |(service, endpoints): (&Service, &Endpoints)| {
            (service.as_str().to_owned(), endpoints.known.len() as u64)
        };
        state.services.iter().map(count).collect()
    }

    /// Forgets what was not measured for an hour, so that what is bounded has room for what is.
    pub(crate) fn forget_old(&self, now: Duration) {
        let mut state = self.state();
        let is_recent = |rolling: &Rolling| now.saturating_sub(rolling.last()) < FORGET_AFTER;
        for endpoints in state.services.values_mut() {
            endpoints.known.retain(|_, rolling| is_recent(rolling));
        }
        state
            .services
            .retain(|_, endpoints| !endpoints.known.is_empty() || is_recent(&endpoints.in_all));
        state.endpoints = state.services.values().map(|one| one.known.len()).sum();
        state
            .instances
            .retain(|_, (_, seen)| now.saturating_sub(*seen) < FORGET_AFTER);
    }

    /// The windows that arrived since the last time of endpoints that something is decided for.
    pub(crate) fn take_windows(&self) -> Waited {
        self.state().inbox.take()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    fn count(&mut self, mut one: Checked, now: Duration, counted: &mut Counted) {
        if !self.services.contains_key(&one.service) && self.services.len() >= MAX_SERVICES {
            counted.dropped += 1;
            return;
        }
        if let Some(identity) = &one.identity
            && !self.is_new(&one.service, identity, now)
        {
            counted.duplicates += 1;
            return;
        }
        if one.is_watched {
            self.inbox.put(&mut one, now);
        }
        let endpoints = self.services.entry(one.service.clone()).or_default();
        endpoints.in_all.add(&one.window, now);
        self.rolling(one.service, one.endpoint)
            .add(&one.window, now);
        counted.accepted += 1;
    }

    fn rolling(&mut self, service: Service, endpoint: Option<Endpoint>) -> &mut Rolling {
        let endpoints = self.services.entry(service).or_default();
        let Some(endpoint) = endpoint else {
            return &mut endpoints.other;
        };
        let is_known = endpoints.known.contains_key(&endpoint);
        let is_full =
            endpoints.known.len() >= MAX_ENDPOINTS || self.endpoints >= MAX_ENDPOINTS_IN_ALL;
        if !is_known && is_full {
            return &mut endpoints.other;
        }
        if !is_known {
            self.endpoints += 1;
        }
        endpoints.known.entry(endpoint).or_default()
    }

    fn is_new(&mut self, service: &Service, identity: &Identity, now: Duration) -> bool {
        let key = (service.clone(), identity.instance.clone());
        if !self.instances.contains_key(&key) && self.instances.len() >= MAX_INSTANCES {
            self.forget_half_of_the_instances();
        }
        let (windows, seen) = self.instances.entry(key).or_default();
        *seen = now;
        windows.is_new(identity.boot, identity.sequence)
    }

    /// The half that was not heard of for longest, so that this is rare.
    fn forget_half_of_the_instances(&mut self) {
        let mut seen: Vec<Duration> = self.instances.values().map(|(_, seen)| *seen).collect();
        let middle = seen.len() / 2;
        let (_, median, _) = seen.select_nth_unstable(middle);
        let median = *median;
        let mut left = middle;
        self.instances.retain(|_, (_, seen)| {
            let keep = *seen >= median && left > 0;
            left -= usize::from(keep);
            keep
        });
    }
}

fn describe(
    service: &Service,
    (endpoint, method): (&str, &str),
    window: Window,
) -> MeasuredEndpoint {
    MeasuredEndpoint {
        service_name: service.as_str().to_owned(),
        endpoint: endpoint.to_owned(),
        method: method.to_owned(),
        hit_ratio: window.hit_ratio(),
        origin_ms_mean: window.origin_ms_mean(),
        window,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use larder_model::api::{Signal, SignalStatus, WindowReport};

    const NOW: Duration = Duration::from_secs(1_000_000);

    fn signal(endpoint: &str) -> SignalBatch {
        let signal = Signal {
            service_name: "svc".into(),
            endpoint: endpoint.into(),
            latency_ms: 800.0,
            status: SignalStatus::Success,
            cache: None,
            bytes: None,
        };
        SignalBatch {
            signals: vec![signal],
            windows: vec![],
        }
    }

    fn window(sequence: u64, window: Window) -> SignalBatch {
        let report = WindowReport {
            service_name: "svc".into(),
            endpoint: "/a".into(),
            window,
            evidence: None,
            length_ms: 5_000,
            ended_ago_ms: 0,
            store_id: 0,
            store_failed: false,
            instance: "i-1".into(),
            boot: 1,
            sequence,
        };
        SignalBatch {
            signals: vec![],
            windows: vec![report],
        }
    }

    fn requests(measured: &Measured, endpoint: &str, now: Duration) -> u64 {
        let service = Service::new("svc").unwrap();
        measured
            .window(&service, &endpoint.parse().unwrap(), now)
            .requests()
    }

    fn one_hit() -> Window {
        Window {
            hits: 1,
            ..Window::default()
        }
    }

    #[test]
    fn a_window_that_comes_again_counts_once() {
        let measured = Measured::default();
        for sequence in [1, 1, 2, 1] {
            measured
                .take(None, window(sequence, one_hit()), NOW, |_, _| None)
                .unwrap();
        }
        assert_eq!(requests(&measured, "/a", NOW), 2);
    }

    #[test]
    fn what_nothing_is_decided_for_waits_for_no_tick() {
        let measured = Measured::default();
        let known = |is_watched| {
            move |_: &Service, endpoint: &Endpoint| {
                Some(Known {
                    endpoint: endpoint.clone(),
                    is_watched,
                })
            }
        };
        for sequence in [1, 2] {
            let batch = window(sequence, one_hit());
            measured
                .take(None, batch, NOW, known(sequence == 2))
                .unwrap();
        }
        measured
            .take(None, window(3, one_hit()), NOW, |_, _| None)
            .unwrap();
        assert_eq!(requests(&measured, "/a", NOW), 3);
        let windows = measured.take_windows().by_service;
        let service = Service::new("svc").unwrap();
        assert_eq!(windows[&service][&"/a".parse().unwrap()].len(), 1);
        assert!(measured.take_windows().by_service.is_empty());
    }

    #[test]
    fn what_was_measured_ages_out() {
        let measured = Measured::default();
        measured.take(None, signal("/a"), NOW, |_, _| None).unwrap();
        assert_eq!(requests(&measured, "/a", NOW + REACH / 2), 1);
        assert_eq!(requests(&measured, "/a", NOW + REACH * 2), 0);
        measured.forget_old(NOW + FORGET_AFTER * 2);
        assert!(measured.services().is_empty());
    }

    #[test]
    fn impossible_figures_are_refused_and_change_nothing() {
        let measured = Measured::default();
        let impossible = [
            Window {
                origin_ms_sum: f64::NAN,
                ..one_hit()
            },
            Window {
                hit_ms_sum: f64::INFINITY,
                ..one_hit()
            },
            Window {
                hit_ms_sum: 1e308,
                ..one_hit()
            },
            Window {
                hit_ms_sum: -1.0,
                ..one_hit()
            },
            Window {
                hits: u64::MAX,
                ..one_hit()
            },
            Window {
                origin_count: 2,
                ..one_hit()
            },
            Window {
                origin_ms_max: 5.0,
                ..one_hit()
            },
            Window {
                bytes: u64::MAX,
                ..one_hit()
            },
        ];
        for bad in impossible {
            let mut batch = signal("/a");
            batch.windows = window(1, bad).windows;
            assert!(
                measured.take(None, batch, NOW, |_, _| None).is_err(),
                "{bad:?}"
            );
        }
        assert!(measured.list(None, NOW).is_empty());
    }

    #[test]
    fn endpoints_services_and_instances_are_bounded() {
        let measured = Measured::default();
        for index in 0..3_000 {
            measured
                .take(None, signal(&format!("/a{index}x")), NOW, |_, _| None)
                .unwrap();
        }
        let list = measured.list(None, NOW);
        assert_eq!(list.len(), MAX_ENDPOINTS + 1);
        let other = list.iter().find(|one| one.endpoint == "other").unwrap();
        assert_eq!(other.window.requests(), 1_000);
        for index in 0..(MAX_INSTANCES + 100) {
            let mut batch = window(1, one_hit());
            batch.windows[0].instance = format!("i-{index}");
            measured.take(None, batch, NOW, |_, _| None).unwrap();
        }
        assert!(measured.state().instances.len() <= MAX_INSTANCES);
        let mut dropped = 0;
        for index in 0..(MAX_SERVICES + 5) {
            let mut batch = signal("/a");
            batch.signals[0].service_name = format!("s-{index}");
            dropped += measured
                .take(None, batch, NOW, |_, _| None)
                .unwrap()
                .dropped;
        }
        assert_eq!(dropped, 6);
    }

    #[test]
    fn concrete_paths_count_as_their_template() {
        let measured = Measured::default();
        measured
            .take(None, signal("/p/7?x=1"), NOW, |_, _| None)
            .unwrap();
        measured
            .take(None, signal("/p/{id}"), NOW, |_, _| None)
            .unwrap();
        assert_eq!(requests(&measured, "/p/{id}", NOW), 2);
    }

    #[test]
    fn a_key_uses_nothing_up_of_anothers_sequence() {
        let measured = Measured::default();
        let duplicates = |by| {
            let taken = measured.take(by, window(1, one_hit()), NOW, |_, _| None);
            taken.unwrap().duplicates
        };
        assert_eq!(duplicates(Some("thief")), 0);
        assert_eq!(duplicates(Some("owner")), 0);
        assert_eq!(duplicates(Some("owner")), 1);
        assert_eq!(duplicates(None), 0);
    }
}
