//! The simple model of a store: what is there, who has which lease, which versions were told.

use std::time::Duration;

use bytes::Bytes;
use larder_core::{Lease, Ttl, Version};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use super::steps::ENDPOINTS;

#[derive(Default)]
struct Slot {
    bytes: Option<Bytes>,
    /// How long it lives at the least and at the most, but for the time that the steps take: a store may cut a life later than it
    /// answers.
    life: (Duration, Duration),
    /// The shortest life that each handle cut it to: a cut that comes late meets what the other handle wrote since.
    cuts: [Option<Duration>; 2],
    /// The token of its lease.
    lease: Option<u128>,
    /// The handle that changed it last.
    changed_by: Option<usize>,
}

/// A rule of the model, for [`super::notices`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// A set, and a fill, end the lease.
    WritesEndLeases,
    /// So do a delete and a clear.
    DeletesEndLeases,
    /// A lease that was released is free.
    ReleasedLeasesAreFree,
    /// A read cuts what lives too long.
    ReadsCut,
    /// A version that was renewed is another.
    RenewedVersionsAreOthers,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::WritesEndLeases,
        Self::DeletesEndLeases,
        Self::ReleasedLeasesAreFree,
        Self::ReadsCut,
        Self::RenewedVersionsAreOthers,
    ];
}

#[derive(Default)]
pub(super) struct Model {
    without: Option<Rule>,
    slots: [Slot; ENDPOINTS.len()],
    /// Versions as they were told last, and all that are no more.
    told: [Option<Version>; 3],
    gone: Vec<Version>,
}

impl Model {
    pub(super) fn new(without: Option<Rule>) -> Self {
        Self {
            without,
            ..Self::default()
        }
    }

    fn has(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// What is left of a lease behind an operation that ends it by a rule.
    fn left(&self, key: usize, rule: Rule) -> Option<u128> {
        self.slots[key].lease.filter(|_| !self.has(rule))
    }

    pub(super) fn bytes(&self, key: usize) -> Option<Bytes> {
        self.slots[key].bytes.clone()
    }

    pub(super) fn life(&self, key: usize) -> (Duration, Duration) {
        self.slots[key].life
    }

    pub(super) fn changed_by(&self, key: usize) -> Option<usize> {
        self.slots[key].changed_by
    }

    pub(super) fn lease(&self, key: usize) -> Option<u128> {
        self.slots[key].lease
    }

    /// Whether a lease that was granted is still one.
    pub(super) fn holds(&self, lease: &Lease) -> bool {
        self.slots
            .iter()
            .any(|slot| slot.lease == Some(lease.token))
    }

    pub(super) fn set(&mut self, handle: usize, key: usize, value: u32, seconds: u64) {
        let life = Duration::from_secs(seconds);
        let mut cuts = self.slots[key].cuts;
        // What a handle asks for is done in its order.
        cuts[handle] = None;
        self.slots[key] = Slot {
            bytes: Some(value.to_string().into()),
            life: (cuts[1 - handle].map_or(life, |cut| cut.min(life)), life),
            cuts,
            lease: self.left(key, Rule::WritesEndLeases),
            changed_by: Some(handle),
        };
    }

    pub(super) fn cut(&mut self, handle: usize, key: usize, longest: Ttl) {
        if !self.has(Rule::ReadsCut) {
            return;
        }
        let Slot { life, cuts, .. } = &mut self.slots[key];
        for least in [&mut life.0, cuts[handle].get_or_insert(Duration::MAX)] {
            *least = longest.get().min(*least);
        }
    }

    pub(super) fn count(&self, keys: &[usize]) -> u64 {
        let there = keys.iter().filter(|key| self.slots[**key].bytes.is_some());
        there.count() as u64
    }

    pub(super) fn delete(&mut self, handle: usize, keys: &[usize]) -> u64 {
        let there = self.count(keys);
        for key in keys {
            self.slots[*key] = Slot {
                cuts: self.slots[*key].cuts,
                changed_by: Some(handle),
                lease: self.left(*key, Rule::DeletesEndLeases),
                ..Slot::default()
            };
        }
        there
    }

    pub(super) fn grant(&mut self, lease: &Lease, key: usize) {
        self.slots[key].lease = Some(lease.token);
    }

    pub(super) fn release(&mut self, lease: &Lease) {
        if !self.has(Rule::ReleasedLeasesAreFree) {
            return;
        }
        for slot in &mut self.slots {
            slot.lease = slot.lease.filter(|token| *token != lease.token);
        }
    }

    /// What was told is what was told before, or was never told.
    pub(super) fn tell(&mut self, version: usize, told: Version) -> TestCaseResult {
        prop_assert!(!self.gone.contains(&told), "{told:?} comes again");
        prop_assert!(self.told[version].is_none_or(|before| before == told));
        let others = (0..self.told.len()).filter(|other| *other != version);
        let is_anothers = others
            .into_iter()
            .any(|other| self.told[other] == Some(told));
        prop_assert!(!is_anothers, "{told:?} is told of two");
        self.told[version] = Some(told);
        Ok(())
    }

    pub(super) fn renew(&mut self, versions: &[usize]) {
        if !self.has(Rule::RenewedVersionsAreOthers) {
            return;
        }
        for version in versions {
            self.gone.extend(self.told[*version].take());
        }
    }
}
