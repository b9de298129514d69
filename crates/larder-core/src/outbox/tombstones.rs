//! What is pending, in memory: what it names is hidden from lookups until it was applied.

use std::collections::HashMap;

use larder_model::{Key, Pattern, Service};

use super::Limits;
use super::invalidation::{Item, is_of_service};
use crate::version::VersionName;

/// Stands for an item until it was applied.
#[derive(Debug, Clone, Copy)]
struct Tombstone {
    /// The number of its record in the journal.
    record: u64,
    /// When it was added last: a set that began later makes it needless.
    added: u64,
    /// Whether it is being applied. Added anew meanwhile, it is not any more: it must be applied once more.
    under_way: bool,
}

/// An item that is to be applied, or written down, and the number of its record.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub(super) item: Item,
    pub(super) record: u64,
}

#[derive(Debug, Default)]
struct OfService {
    /// The pattern of all its entries, which would else be tried on each of its keys.
    whole: Option<Tombstone>,
    keys: HashMap<Key, Tombstone>,
    patterns: HashMap<Pattern, Tombstone>,
    versions: HashMap<VersionName, Tombstone>,
}

#[derive(Debug)]
pub(super) struct Tombstones {
    services: HashMap<Service, OfService>,
    len: usize,
    bytes: usize,
    /// Counts what is added.
    clock: u64,
    limits: Limits,
}

impl Tombstones {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            services: HashMap::new(),
            len: 0,
            bytes: 0,
            clock: 0,
            limits,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn clock(&self) -> u64 {
        self.clock
    }

    pub(super) fn hides(&self, key: &Key) -> bool {
        self.services.get(key.service()).is_some_and(|of| {
            of.whole.is_some()
                || of.keys.contains_key(key)
                || of.patterns.keys().any(|known| known.matches(key.as_str()))
        })
    }

    /// Whoever depends on any version of a service also depends on that of the service.
    pub(super) fn hides_version(&self, service: &Service, name: &VersionName) -> bool {
        self.services.get(service).is_some_and(|of| {
            of.versions.contains_key(name) || of.versions.contains_key(&VersionName::Service)
        })
    }

    /// Adds an item; answers the number of the record that must be written down for it, if any must.
    pub(super) fn add(&mut self, item: &Item) -> Option<u64> {
        self.clock += 1;
        let now = self.clock;
        let of = self.services.entry(item.service()).or_default();
        if let Some(known) = of.get_mut(item) {
            known.added = now;
            if !known.under_way {
                return None;
            }
            known.under_way = false;
            known.record = now;
            return Some(now);
        }
        if of.covers(item) {
            return None;
        }
        let tombstone = Tombstone {
            record: now,
            added: now,
            under_way: false,
        };
        of.insert(item.clone(), tombstone);
        self.len += 1;
        self.bytes += item.weight();
        Some(now)
    }

    /// Puts all of a service in the place of what is pending of it, the largest services first, until there is room;
    /// answers whether it did. A service that has no more than that pending stays as it is.
    pub(super) fn collapse(&mut self) -> bool {
        let mut has_collapsed = false;
        while let Some(service) = self.largest_in_excess() {
            has_collapsed = true;
            let removed = self.services.remove(&service).unwrap_or_default();
            for pending in removed.items(&service) {
                self.len -= 1;
                self.bytes -= pending.item.weight();
            }
            for item in Item::all_of(&service) {
                self.add(&item);
            }
        }
        has_collapsed
    }

    fn largest_in_excess(&self) -> Option<Service> {
        let is_over = self.len > self.limits.entries || self.bytes > self.limits.bytes;
        let mut excess = self.services.iter().filter(|(_, of)| {
            of.patterns.len() > self.limits.patterns || (is_over && of.len() > COLLAPSED)
        });
        let first = excess.next()?;
        let largest = excess.fold(first, |a, b| if b.1.len() > a.1.len() { b } else { a });
        Some(largest.0.clone())
    }

    /// Everything, which from now on is under way.
    pub(super) fn begin(&mut self) -> Vec<Pending> {
        let all = self.services.values_mut().flat_map(OfService::all_mut);
        all.for_each(|tombstone| tombstone.under_way = true);
        self.pending()
    }

    /// Everything that is pending.
    pub(super) fn pending(&self) -> Vec<Pending> {
        let items = |(service, of): (&Service, &OfService)| of.items(service);
        self.services.iter().flat_map(items).collect()
    }

    /// Forgets what was applied, but for what was added anew meanwhile.
    pub(super) fn applied(&mut self, done: &[Pending]) {
        for Pending { item, record } in done {
            self.remove_if(item, |known| known.under_way && known.record == *record);
        }
    }

    /// What is tried again later.
    pub(super) fn failed(&mut self, left: &[Pending]) {
        for Pending { item, record } in left {
            let of = self.services.get_mut(&item.service());
            if let Some(known) = of.and_then(|of| of.get_mut(item))
                && known.record == *record
            {
                known.under_way = false;
            }
        }
    }

    /// Forgets the tombstone of a key that was not added after this time; answers the number of its record.
    pub(super) fn supersede(&mut self, key: &Key, time: u64) -> Option<u64> {
        let item = Item::Key(key.clone());
        self.remove_if(&item, |known| known.added <= time)
    }

    fn remove_if(&mut self, item: &Item, condition: impl Fn(&Tombstone) -> bool) -> Option<u64> {
        let service = item.service();
        let of = self.services.get_mut(&service)?;
        let record = of.get_mut(item).filter(|known| condition(known))?.record;
        of.remove(item);
        if of.len() == 0 {
            self.services.remove(&service);
        }
        self.len -= 1;
        self.bytes -= item.weight();
        Some(record)
    }
}

/// How many items all of a service is.
const COLLAPSED: usize = 2;

impl OfService {
    fn len(&self) -> usize {
        usize::from(self.whole.is_some())
            + self.keys.len()
            + self.patterns.len()
            + self.versions.len()
    }

    /// Whether it will be invalidated anyway. What is under way may already have passed it.
    fn covers(&self, item: &Item) -> bool {
        let waits = |tombstone: Option<&Tombstone>| tombstone.is_some_and(|known| !known.under_way);
        let is_whole = waits(self.whole.as_ref());
        match item {
            Item::Key(_) | Item::Pattern(_) => is_whole,
            Item::Version(_, VersionName::Service) => false,
            Item::Version(..) => is_whole && waits(self.versions.get(&VersionName::Service)),
        }
    }

    fn get_mut(&mut self, item: &Item) -> Option<&mut Tombstone> {
        match item {
            Item::Key(key) => self.keys.get_mut(key),
            Item::Pattern(pattern) if is_of_service(pattern) => self.whole.as_mut(),
            Item::Pattern(pattern) => self.patterns.get_mut(pattern),
            Item::Version(_, name) => self.versions.get_mut(name),
        }
    }

    fn insert(&mut self, item: Item, tombstone: Tombstone) {
        match item {
            Item::Key(key) => {
                self.keys.insert(key, tombstone);
            }
            Item::Pattern(pattern) if is_of_service(&pattern) => self.whole = Some(tombstone),
            Item::Pattern(pattern) => {
                self.patterns.insert(pattern, tombstone);
            }
            Item::Version(_, name) => {
                self.versions.insert(name, tombstone);
            }
        }
    }

    fn remove(&mut self, item: &Item) {
        match item {
            Item::Key(key) => {
                self.keys.remove(key);
            }
            Item::Pattern(pattern) if is_of_service(pattern) => self.whole = None,
            Item::Pattern(pattern) => {
                self.patterns.remove(pattern);
            }
            Item::Version(_, name) => {
                self.versions.remove(name);
            }
        }
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Tombstone> {
        let others = self.keys.values_mut().chain(self.patterns.values_mut());
        others
            .chain(self.versions.values_mut())
            .chain(self.whole.as_mut())
    }

    fn items(&self, service: &Service) -> Vec<Pending> {
        let pending = |item, tombstone: &Tombstone| Pending {
            item,
            record: tombstone.record,
        };
        let keys = self.keys.iter();
        let keys = keys.map(|(key, known)| pending(Item::Key(key.clone()), known));
        let patterns = self.patterns.iter();
        let patterns = patterns.map(|(each, known)| pending(Item::Pattern(each.clone()), known));
        let versions = self.versions.iter().map(|(name, known)| {
            let item = Item::Version(service.clone(), name.clone());
            pending(item, known)
        });
        let whole = self.whole.iter();
        let whole = whole.map(|known| pending(Item::Pattern(Pattern::of_service(service)), known));
        keys.chain(patterns).chain(versions).chain(whole).collect()
    }
}
