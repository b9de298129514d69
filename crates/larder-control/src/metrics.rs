//! What the control plane counts of itself. No label comes from outside.

use larder_model::api::{InstanceState, InstanceSummary};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The class of an answer's status: `2xx`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Class {
    pub(crate) status: &'static str,
}

/// How instances stand with the policies of their service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct State {
    state: &'static str,
}

pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) requests: Family<Class, Counter>,
    pub(crate) refused: Counter,
    pub(crate) denied: Counter,
    pub(crate) policy_changes: Counter,
    pub(crate) decisions: Counter,
    pub(crate) invalidations: Counter,
    pub(crate) signals: Counter,
    pub(crate) duplicates: Counter,
    pub(crate) dropped: Counter,
    pub(crate) crowded_out: Counter,
    pub(crate) policies: Gauge,
    pub(crate) endpoints: Gauge,
    pub(crate) streams: Gauge,
    pub(crate) streams_refused: Counter,
    instances: Family<State, Gauge>,
    pub(crate) leader: Gauge,
    pub(crate) untold: Counter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("larder_control"),
            requests: Family::default(),
            refused: Counter::default(),
            denied: Counter::default(),
            policy_changes: Counter::default(),
            decisions: Counter::default(),
            invalidations: Counter::default(),
            signals: Counter::default(),
            duplicates: Counter::default(),
            dropped: Counter::default(),
            crowded_out: Counter::default(),
            policies: Gauge::default(),
            endpoints: Gauge::default(),
            streams: Gauge::default(),
            streams_refused: Counter::default(),
            instances: Family::default(),
            leader: Gauge::default(),
            untold: Counter::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "requests",
            "Requests answered, by class of status",
            self.requests.clone(),
        );
        registry.register(
            "refused",
            "Requests refused for their Host, Origin or Content-Type",
            self.refused.clone(),
        );
        registry.register(
            "denied",
            "Requests denied for their API key, its role, its services or its rate",
            self.denied.clone(),
        );
        registry.register(
            "policy_changes",
            "Policies set or removed",
            self.policy_changes.clone(),
        );
        registry.register(
            "decisions",
            "Decisions made for endpoints in mode auto",
            self.decisions.clone(),
        );
        registry.register(
            "invalidations",
            "Invalidations that somebody asked for",
            self.invalidations.clone(),
        );
        registry.register(
            "signals",
            "Signals and windows taken in",
            self.signals.clone(),
        );
        registry.register(
            "signal_duplicates",
            "Windows that had been taken in before",
            self.duplicates.clone(),
        );
        registry.register(
            "signals_dropped",
            "Signals of services past the bound",
            self.dropped.clone(),
        );
        registry.register(
            "windows_crowded_out",
            "Windows past what one tick takes in, or whose keys were: nothing is decided by them",
            self.crowded_out.clone(),
        );
        registry.register("policies", "Policies that are set", self.policies.clone());
        registry.register(
            "measured_endpoints",
            "Endpoints measured lately",
            self.endpoints.clone(),
        );
        registry.register(
            "streams",
            "Streams of policies that are open",
            self.streams.clone(),
        );
        registry.register(
            "streams_refused",
            "Streams that were not opened, since there were as many as may be",
            self.streams_refused.clone(),
        );
        registry.register(
            "instances",
            "Instances heard of in the last hour, by how they stand with their policies",
            self.instances.clone(),
        );
        registry.register(
            "leader",
            "1: this control plane decides, and ends what is over; of several, one does",
            self.leader.clone(),
        );
        registry.register(
            "reports_not_passed_on",
            "What services told, and the other control planes were not, since the database was away",
            self.untold.clone(),
        );
    }

    pub(crate) fn count(&self, status: http::StatusCode) {
        let status = match status.as_u16() / 100 {
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        };
        self.requests.get_or_create(&Class { status }).inc();
    }

    /// Says how the instances stand; of none of a state, too, that there is none.
    pub(crate) fn count_instances(&self, known: &[InstanceSummary]) {
        for state in InstanceState::ALL {
            let of_it = known.iter().filter(|one| one.state == state).count();
            let gauge = self.instances.get_or_create(&State {
                state: state.as_str(),
            });
            gauge.set(i64::try_from(of_it).unwrap_or(i64::MAX));
        }
    }

    /// The text form of OpenMetrics.
    pub(crate) fn encode(&self) -> String {
        let mut text = String::new();
        // Writing into a String does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}
