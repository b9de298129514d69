//! The governor of a replay: one policy for all, and the figures that the engine reports to it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use larder_core::{Event, FixedGovernor, Gate, Governor, Key, Policy};

use crate::replay::clock::LogClock;
use crate::replay::endpoints::EndpointId;
use crate::replay::series::Series;
use crate::replay::tally::Tally;

/// What the engine reported.
pub(crate) struct Figures {
    /// By place of the endpoint.
    pub(crate) endpoints: Vec<Tally>,
    pub(crate) series: Series,
}

/// Takes note of every answer, for the endpoint whose lookup is being driven.
pub(crate) struct Recorder {
    policy: FixedGovernor,
    clock: LogClock,
    endpoint: AtomicUsize,
    figures: Mutex<Figures>,
}

impl Recorder {
    pub(crate) fn new(policy: Policy, clock: LogClock) -> Self {
        Self {
            policy: FixedGovernor::new(policy),
            clock,
            endpoint: AtomicUsize::new(EndpointId::OTHERS.index()),
            figures: Mutex::new(Figures {
                endpoints: Vec::new(),
                series: Series::new(),
            }),
        }
    }

    /// Says whose lookup is driven from now on: an answer is reported while its lookup is.
    pub(crate) fn drive(&self, endpoint: EndpointId) {
        self.endpoint.store(endpoint.index(), Ordering::Relaxed);
    }

    pub(crate) fn note_evictions(&self, evictions: u64) {
        let now_ms = self.clock.now_ms();
        self.figures().series.at(now_ms).evictions += evictions;
    }

    /// Whole between any two statements that may panic.
    pub(crate) fn figures(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Governor for Recorder {
    fn gate(&self, key: &Key) -> Gate {
        self.policy.gate(key)
    }

    fn policy(&self, key: &Key) -> Arc<Policy> {
        self.policy.policy(key)
    }

    fn template(&self, _key: &Key) -> Option<Box<str>> {
        None
    }

    fn record(&self, _key: &Key, event: Event) {
        let endpoint = self.endpoint.load(Ordering::Relaxed);
        let now_ms = self.clock.now_ms();
        let mut figures = self.figures();
        if figures.endpoints.len() <= endpoint {
            figures.endpoints.resize(endpoint + 1, Tally::default());
        }
        figures.endpoints[endpoint].note(&event);
        figures.series.at(now_ms).tally.note(&event);
    }

    fn record_refresh(&self, _key: &Key, _load: Option<std::time::Duration>) {}
}
