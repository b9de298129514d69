//! The simple model of a cache: one entry and one lease for each key, in whole seconds.

use larder_core::{Outcome, Skip, Written};

use super::ENDPOINTS;

/// What a loader makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    Value,
    Absent,
    Failed,
}

/// The policy in force; times in seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) is_on: bool,
    pub(super) ttl: u64,
    pub(super) revalidate: u64,
    pub(super) error: u64,
    pub(super) negative: u64,
    pub(super) is_tagged: bool,
}

impl Rules {
    fn is_framed(self) -> bool {
        self.revalidate > 0 || self.error > 0 || self.is_tagged
    }

    /// How long a value may live; `None`: it is not stored.
    fn ttl_of(self, value: Option<u32>) -> Option<u64> {
        match value {
            Some(_) => Some(self.ttl),
            None => Some(self.negative).filter(|negative| *negative > 0),
        }
    }
}

/// A rule of the model that a test leaves out, to show that the engine is compared with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    TagsKill,
    EndpointsKill,
    ShorterPoliciesCut,
    StaleStandsInForErrors,
    StaleIsServedAndLoadedAnew,
    AbsentAnswersHaveTheirOwnTtl,
    SetsEndLeases,
    LeasesEnd,
    WhatIsNotStoredIsNoted,
}

impl Rule {
    pub(super) const ALL: [Self; 9] = [
        Self::TagsKill,
        Self::EndpointsKill,
        Self::ShorterPoliciesCut,
        Self::StaleStandsInForErrors,
        Self::StaleIsServedAndLoadedAnew,
        Self::AbsentAnswersHaveTheirOwnTtl,
        Self::SetsEndLeases,
        Self::LeasesEnd,
        Self::WhatIsNotStoredIsNoted,
    ];
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    total: u64,
    fresh: u64,
    revalidate: u64,
    error: u64,
    versions: Versions,
    is_tagged: bool,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    value: Option<u32>,
    ends: u64,
    /// `None`: it is plain.
    frame: Option<Frame>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Lease {
    #[default]
    None,
    /// Of the token with this number, until then.
    Token(usize, u64),
    /// A load ended with nothing that is stored: until time passes.
    Uncached,
}

/// How often each was invalidated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Versions {
    service: u32,
    endpoint: u32,
    tag: u32,
}

enum Look {
    Fresh(Option<u32>),
    Revalidate(Option<u32>),
    /// To stand in for an error.
    Error(Option<u32>),
    Nothing,
}

/// How long a token has its lease: as long as a load may take.
const TOKEN_SECONDS: u64 = 30;

pub(super) struct Model {
    without: Option<Rule>,
    pub(super) rules: Rules,
    now: u64,
    entries: [Option<Entry>; ENDPOINTS.len()],
    leases: [Lease; ENDPOINTS.len()],
    versions: [Versions; ENDPOINTS.len()],
}

impl Model {
    pub(super) fn new(without: Option<Rule>) -> Self {
        Self {
            without,
            rules: Rules {
                is_on: true,
                ttl: 10,
                revalidate: 0,
                error: 0,
                negative: 0,
                is_tagged: false,
            },
            now: 0,
            entries: [None; ENDPOINTS.len()],
            leases: [Lease::None; ENDPOINTS.len()],
            versions: [Versions::default(); ENDPOINTS.len()],
        }
    }

    fn has(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    pub(super) fn pass(&mut self, seconds: u64) {
        self.now += seconds;
        for lease in &mut self.leases {
            let is_over = match lease {
                Lease::None => false,
                Lease::Token(_, until) => {
                    *until <= self.now && self.without != Some(Rule::LeasesEnd)
                }
                Lease::Uncached => true,
            };
            if is_over {
                *lease = Lease::None;
            }
        }
    }

    fn living(&self, key: usize) -> Option<Entry> {
        self.entries[key].filter(|entry| entry.ends > self.now)
    }

    fn is_dead(&self, key: usize, frame: Frame) -> bool {
        let (now, then) = (self.versions[key], frame.versions);
        now.service != then.service
            || now.endpoint != then.endpoint
            || (frame.is_tagged && now.tag != then.tag)
    }

    pub(super) fn is_leased(&self, key: usize) -> bool {
        matches!(self.leases[key], Lease::Token(..))
    }

    /// A plain read: what is fresh by its own word.
    pub(super) fn get(&self, key: usize) -> Option<Option<u32>> {
        let entry = self.living(key).filter(|_| self.rules.is_on)?;
        let is_fresh = entry.frame.is_none_or(|frame| {
            let age = frame.total - (entry.ends - self.now);
            !self.is_dead(key, frame) && age < frame.fresh
        });
        is_fresh.then_some(entry.value)
    }

    fn look(&mut self, key: usize) -> Look {
        let Some(entry) = self.living(key) else {
            return Look::Nothing;
        };
        let Some(ttl) = self.ttl_of(entry.value) else {
            return Look::Nothing;
        };
        let value = entry.value;
        let left = entry.ends - self.now;
        let Some(frame) = entry.frame else {
            if left > ttl && self.has(Rule::ShorterPoliciesCut) {
                let ends = self.now + ttl;
                self.entries[key] = Some(Entry { ends, ..entry });
            }
            return Look::Fresh(value);
        };
        let age = frame.total - left;
        let fresh = match self.has(Rule::ShorterPoliciesCut) {
            true => frame.fresh.min(ttl),
            false => frame.fresh,
        };
        if self.is_dead(key, frame) {
            Look::Nothing
        } else if age < fresh {
            Look::Fresh(value)
        } else if age - fresh < frame.revalidate.min(self.rules.revalidate)
            && self.has(Rule::StaleIsServedAndLoadedAnew)
        {
            Look::Revalidate(value)
        } else if age - fresh < frame.error.min(self.rules.error)
            && self.has(Rule::StaleStandsInForErrors)
        {
            Look::Error(value)
        } else {
            Look::Nothing
        }
    }

    fn ttl_of(&self, value: Option<u32>) -> Option<u64> {
        match self.has(Rule::AbsentAnswersHaveTheirOwnTtl) {
            true => self.rules.ttl_of(value),
            false => Some(self.rules.ttl),
        }
    }

    /// A lookup that may load; `None`: the loader's error.
    pub(super) fn load(
        &mut self,
        key: usize,
        made: Made,
        value: u32,
    ) -> Option<(Option<u32>, Outcome)> {
        let loaded = match made {
            Made::Value => Some(Some(value)),
            Made::Absent => Some(None),
            Made::Failed => None,
        };
        if !self.rules.is_on {
            return loaded.map(|value| (value, Outcome::Bypass));
        }
        match self.look(key) {
            Look::Fresh(value) => Some((value, Outcome::Hit)),
            Look::Revalidate(value) => {
                self.fill(key, loaded);
                Some((value, Outcome::Stale))
            }
            Look::Error(stale) => {
                self.fill(key, loaded);
                match loaded {
                    Some(value) => Some((value, Outcome::Miss)),
                    None => Some((stale, Outcome::Stale)),
                }
            }
            Look::Nothing => {
                self.fill(key, loaded);
                loaded.map(|value| (value, Outcome::Miss))
            }
        }
    }

    /// A load ends.
    fn fill(&mut self, key: usize, loaded: Option<Option<u32>>) {
        let Some(value) = loaded.filter(|_| self.leases[key] != Lease::Uncached) else {
            return;
        };
        let Some(fresh) = self.ttl_of(value) else {
            if self.has(Rule::WhatIsNotStoredIsNoted) {
                self.leases[key] = Lease::Uncached;
            }
            return;
        };
        let rules = self.rules;
        let total = match rules.is_framed() {
            true => fresh + rules.revalidate.max(rules.error),
            false => fresh,
        };
        let frame = Frame {
            total,
            fresh,
            revalidate: rules.revalidate,
            error: rules.error,
            versions: self.versions[key],
            is_tagged: rules.is_tagged,
        };
        self.entries[key] = Some(Entry {
            value,
            ends: self.now + total,
            frame: rules.is_framed().then_some(frame),
        });
    }

    fn put(&mut self, key: usize, value: u32, life: u64) {
        self.entries[key] = Some(Entry {
            value: Some(value),
            ends: self.now + life,
            frame: None,
        });
    }

    pub(super) fn set(&mut self, key: usize, value: u32, life: u64) -> Written {
        if !self.rules.is_on {
            return Written::Skipped(Skip::PolicyOff);
        }
        self.put(key, value, life);
        if self.has(Rule::SetsEndLeases) {
            self.leases[key] = Lease::None;
        }
        Written::Stored
    }

    pub(super) fn take_token(&mut self, key: usize, token: usize) {
        if self.rules.is_on && self.leases[key] == Lease::None {
            self.leases[key] = Lease::Token(token, self.now + TOKEN_SECONDS);
        }
    }

    /// With the token of this number.
    pub(super) fn set_if(&mut self, token: usize, value: u32, life: u64) -> Written {
        let is_its = |lease: &Lease| matches!(lease, Lease::Token(own, _) if *own == token);
        let key = self.leases.iter().position(is_its);
        if let Some(key) = key {
            self.leases[key] = Lease::None;
        }
        match key {
            _ if !self.rules.is_on => Written::Skipped(Skip::PolicyOff),
            Some(key) => {
                self.put(key, value, life);
                Written::Stored
            }
            None => Written::Refused,
        }
    }

    /// Answers how many entries were there.
    pub(super) fn delete(&mut self, keys: &[usize]) -> u64 {
        let there = keys.iter().filter(|key| self.living(**key).is_some());
        let count = there.count() as u64;
        for key in keys {
            self.entries[*key] = None;
            self.leases[*key] = Lease::None;
        }
        count
    }

    pub(super) fn invalidate_tag(&mut self) {
        if self.has(Rule::TagsKill) {
            self.versions.iter_mut().for_each(|of| of.tag += 1);
        }
    }

    /// Of all keys with this path: framed ones are dead, and all are removed.
    pub(super) fn invalidate_endpoint(&mut self, path: &str) -> u64 {
        let meant =
            (0..ENDPOINTS.len()).filter(|key| ENDPOINTS[*key].split('?').next() == Some(path));
        let meant: Vec<usize> = meant.filter(|_| self.has(Rule::EndpointsKill)).collect();
        meant
            .iter()
            .for_each(|key| self.versions[*key].endpoint += 1);
        self.delete(&meant)
    }

    pub(super) fn invalidate_service(&mut self) -> u64 {
        self.versions.iter_mut().for_each(|of| of.service += 1);
        self.delete(&[0, 1, 2])
    }
}
