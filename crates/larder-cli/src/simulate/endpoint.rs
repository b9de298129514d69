//! One endpoint: a store for each TTL, and the engine over the same requests.

use std::collections::{HashMap, VecDeque};

use larder_decide::TTLS;
use larder_decide::simulation::{Fixed, Request, Setup, Simulation, Tally};

use crate::simulate::report::{Decided, EndpointRow, TtlRow};

/// An endpoint with fewer requests has no engine.
const ENOUGH: usize = 100;
/// So many bodies are remembered, to tell whether a 304 was the same.
const MOST_KEYS: usize = 200_000;

/// A store whose entries live equally long, and how much of it is filled.
struct Store {
    fixed: Fixed,
    ttl_ms: u64,
    live: VecDeque<(u64, u64)>,
    bytes: u64,
    peak_bytes: u64,
}

impl Store {
    fn new(ttl_seconds: u32) -> Self {
        let ttl_ms = u64::from(ttl_seconds) * 1_000;
        Self {
            fixed: Fixed::new(ttl_ms),
            ttl_ms,
            live: VecDeque::new(),
            bytes: 0,
            peak_bytes: 0,
        }
    }

    fn step(&mut self, request: &Request, bytes: u64) {
        while let Some((_, gone)) = self.live.pop_front_if(|(ends, _)| *ends <= request.at_ms) {
            self.bytes -= gone;
        }
        if self.fixed.step(request) && !request.is_error {
            self.live.push_back((request.at_ms + self.ttl_ms, bytes));
            self.bytes = self.bytes.saturating_add(bytes);
            self.peak_bytes = self.peak_bytes.max(self.bytes);
        }
    }
}

/// What is simulated of an endpoint.
pub(super) struct Endpoint {
    stores: Vec<Store>,
    bodies: HashMap<u32, u32>,
    setup: Setup,
    /// Until there are enough for an engine.
    first: Vec<Request>,
    engine: Option<Simulation>,
    requests: u64,
}

impl Endpoint {
    pub(super) fn new(setup: Setup) -> Self {
        Self {
            stores: TTLS.map(Store::new).into(),
            bodies: HashMap::new(),
            setup,
            first: Vec::new(),
            engine: None,
            requests: 0,
        }
    }

    pub(super) fn knows(&self, key: u32) -> bool {
        self.bodies.contains_key(&key)
    }

    /// Whether no other key is told apart any more.
    pub(super) fn is_full(&self) -> bool {
        self.bodies.len() >= MOST_KEYS
    }

    /// Answers a request; `has_body` is false of a 304, which is as what came before. `may_decide` starts its engine once it
    /// has enough requests; whether it did.
    pub(super) fn step(
        &mut self,
        mut request: Request,
        bytes: u64,
        has_body: bool,
        may_decide: bool,
    ) -> bool {
        self.requests += 1;
        let known = self.bodies.entry(request.key).or_insert(request.body);
        match has_body {
            true => *known = request.body,
            false => request.body = *known,
        }
        for store in &mut self.stores {
            store.step(&request, bytes);
        }
        if let Some(engine) = &mut self.engine {
            engine.step(&request);
            return false;
        }
        if self.first.len() < ENOUGH {
            self.first.push(request);
        }
        if !may_decide || self.first.len() < ENOUGH || self.requests as usize != ENOUGH {
            return false;
        }
        let first = std::mem::take(&mut self.first);
        let mut engine = Simulation::new(self.setup, first.first().map_or(0, |one| one.at_ms));
        for request in &first {
            engine.step(request);
        }
        self.engine = Some(engine);
        true
    }

    pub(super) fn report(&self, name: &str) -> EndpointRow {
        let ttls = self.stores.iter().map(|store| {
            let tally = store.fixed.tally();
            TtlRow::of(store.ttl_ms / 1_000, tally, store.peak_bytes)
        });
        EndpointRow {
            endpoint: name.to_owned(),
            requests: self.requests,
            origin_seconds: self
                .stores
                .first()
                .map_or(0.0, |store| store.fixed.tally().without_ms / 1_000.0),
            ttls: ttls.collect(),
            decided: self.engine.as_ref().map(Decided::of),
        }
    }

    /// What each TTL came to.
    pub(super) fn tallies(&self) -> impl Iterator<Item = (&Tally, u64)> {
        self.stores
            .iter()
            .map(|store| (store.fixed.tally(), store.peak_bytes))
    }
}
