//! Any operations, one after the other, on two handles of a store: each answers what a simple model says. Failing ones are made
//! short, and are tried first the next time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod model;
mod steps;

use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_core::{
    Acquired, ClearMode, FillRight, Guard, Key, Lease, NewEntry, Pattern, Proof, Released, Service,
    Store, Stored, Tag, Ttl, VersionName,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseResult, TestError, TestRunner};

use model::Model;
pub use model::Rule;
use steps::{Step, steps};

/// How long a lease is asked for, and how much longer than that a run of steps never takes.
const TIME: Duration = Duration::from_secs(60);
/// How long another handle may take to hear of a change.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs so many sequences of operations; `source_file` is the caller's `file!()`, beside which failures are kept. `make` gives two
/// handles of one store, within a runtime: each is to the other what another process is.
///
/// # Panics
/// Where the store answers otherwise than the model: with the shortest steps that were found.
pub fn run(cases: u32, source_file: &'static str, make: impl FnOnce() -> [Arc<dyn Store>; 2]) {
    let config = Config {
        cases,
        source_file: Some(source_file),
        ..Config::default()
    };
    match explore(config, None, make) {
        Ok(()) => {}
        Err(TestError::Fail(why, steps)) => panic!("{why}\n{steps:#?}"),
        Err(other) => panic!("{other}"),
    }
}

/// Whether it is noticed that the model leaves out a rule, which the store keeps: so that it is known to be compared.
pub fn notices(rule: Rule, make: impl FnOnce() -> [Arc<dyn Store>; 2]) -> bool {
    let config = Config {
        cases: 2_000,
        failure_persistence: None,
        max_shrink_iters: 0,
        ..Config::default()
    };
    let outcome = explore(config, Some(rule), make);
    matches!(outcome, Err(TestError::Fail(..)))
}

fn explore(
    config: Config,
    without: Option<Rule>,
    make: impl FnOnce() -> [Arc<dyn Store>; 2],
) -> Result<(), TestError<Vec<(usize, Step)>>> {
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }.worker_threads(1).enable_all().build().unwrap();
    let handles = runtime.block_on(async { make() });
    TestRunner::new(config).run(&steps(), |steps| {
        let mut machine = Machine::new(handles.clone(), without);
        runtime.block_on(async {
            for step in steps {
                machine.step(step).await?;
                machine.check_proofs().await?;
            }
            machine.check_all().await
        })
    })
}

/// What a handle read and may use for as long as its proof holds.
struct Kept {
    handle: usize,
    key: usize,
    bytes: Option<bytes::Bytes>,
    proof: Proof,
}

struct Machine {
    handles: [Arc<dyn Store>; 2],
    service: Service,
    model: Model,
    /// All that were ever granted, and by which handle, which alone can use it: most have ended.
    leases: Vec<(usize, Lease)>,
    kept: Vec<Kept>,
}

impl Machine {
    fn new(handles: [Arc<dyn Store>; 2], without: Option<Rule>) -> Self {
        Self {
            handles,
            service: Service::new(&crate::contract::service("machine")).unwrap(),
            model: Model::new(without),
            leases: Vec::new(),
            kept: Vec::new(),
        }
    }

    fn key(&self, key: usize) -> Key {
        Key::new(self.service.as_str(), steps::ENDPOINTS[key]).unwrap()
    }

    fn keys(&self, keys: &[usize]) -> Vec<Key> {
        keys.iter().map(|key| self.key(*key)).collect()
    }

    fn names(versions: &[usize]) -> Vec<VersionName> {
        let all = [
            VersionName::Service,
            VersionName::Endpoint(7),
            VersionName::Tag(Tag::new("t").unwrap()),
        ];
        versions.iter().map(|one| all[*one].clone()).collect()
    }

    fn entry(&self, key: usize, value: u32, seconds: u64, guard: Guard) -> NewEntry {
        NewEntry {
            key: self.key(key),
            bytes: value.to_string().into(),
            ttl: Ttl::new(Duration::from_secs(seconds)).unwrap(),
            guard,
        }
    }

    async fn step(&mut self, (handle, step): (usize, Step)) -> TestCaseResult {
        let store = Arc::clone(&self.handles[handle]);
        match step {
            Step::Get(key, longest) => {
                let longest = longest.map_or(Ttl::MAX, seconds);
                let found = store.get(&self.key(key), longest).await.unwrap();
                self.check(handle, key, found, longest)?;
            }
            Step::GetMany(keys) => {
                let found = store.get_many(&self.keys(&keys), Ttl::MAX).await.unwrap();
                prop_assert_eq!(found.len(), keys.len());
                for (key, found) in keys.into_iter().zip(found) {
                    self.check(handle, key, found, Ttl::MAX)?;
                }
            }
            Step::Set(key, value, life) => {
                let entry = self.entry(key, value, life, Guard::Always);
                let written = store.set(entry).await.unwrap();
                prop_assert!(written.is_stored(), "{written}");
                self.model.set(handle, key, value, life);
            }
            Step::SetMany(keys, value, life) => {
                let entry = |key: &usize| self.entry(*key, value, life, Guard::Always);
                let entries = keys.iter().map(entry).collect();
                for written in store.set_many(entries).await.unwrap() {
                    prop_assert!(written.is_stored(), "{written}");
                }
                let model = &mut self.model;
                keys.iter()
                    .for_each(|key| model.set(handle, *key, value, life));
            }
            Step::Delete(keys) => {
                let deleted = store.delete(&self.keys(&keys)).await.unwrap();
                prop_assert_eq!(deleted.entries, self.model.delete(handle, &keys));
            }
            Step::Clear(pattern, is_dry) => {
                let service = self.service.as_str();
                let text = format!("cache:{service}:{}", steps::PATTERNS[pattern]);
                let pattern = Pattern::parse(&text).unwrap();
                let meant: Vec<usize> = (0..steps::ENDPOINTS.len())
                    .filter(|key| pattern.matches(self.key(*key).as_str()))
                    .collect();
                let (mode, expected) = match is_dry {
                    true => (ClearMode::DryRun, self.model.count(&meant)),
                    false => (ClearMode::Delete, self.model.delete(handle, &meant)),
                };
                let cleared = store.clear(&pattern, mode).await.unwrap();
                prop_assert_eq!(cleared.entries, expected);
            }
            Step::Acquire(keys) => self.acquire(handle, &keys).await?,
            Step::Fill(lease, value, is_ended) => self.fill(lease, value, is_ended).await?,
            Step::Extend(lease) => {
                if let Some((owner, lease)) = self.lease(lease) {
                    let held = self.handles[owner]
                        .extend(std::slice::from_ref(&lease), TIME)
                        .await;
                    prop_assert_eq!(held.unwrap(), [self.model.holds(&lease)]);
                }
            }
            Step::Release(lease) => {
                if let Some((owner, lease)) = self.lease(lease) {
                    let leases = std::slice::from_ref(&lease);
                    let held = self.handles[owner].release(leases, Released::Failed);
                    let held = held.await.unwrap();
                    prop_assert_eq!(held, [self.model.holds(&lease)]);
                    self.model.release(&lease);
                }
            }
            Step::Versions(versions) => {
                let told = store.versions(&self.service, &Self::names(&versions)).await;
                let told = told.unwrap();
                prop_assert_eq!(told.len(), versions.len());
                for (version, told) in versions.into_iter().zip(told) {
                    self.model.tell(version, told.version)?;
                }
            }
            Step::Renew(versions) => {
                let names = Self::names(&versions);
                store.renew(&self.service, &names).await.unwrap();
                self.model.renew(&versions);
            }
            Step::Beside(key) => {
                let names = Self::names(&[0, 1, 2]);
                let beside = store.beside(&self.key(key), &names).await.unwrap();
                prop_assert_eq!(beside.lease.is_some(), self.model.lease(key).is_some());
                for (version, told) in beside.versions.into_iter().enumerate() {
                    if let Some(told) = told {
                        self.model.tell(version, told)?;
                    }
                }
            }
            Step::Scan(limit) => self.scan(&*store, limit).await?,
        }
        Ok(())
    }

    fn lease(&self, lease: usize) -> Option<(usize, Lease)> {
        let index = lease.checked_rem(self.leases.len())?;
        Some(self.leases[index].clone())
    }

    /// What was read is what was stored, with what is left of its life; its proof is kept.
    fn check(
        &mut self,
        handle: usize,
        key: usize,
        found: Option<Stored>,
        longest: Ttl,
    ) -> TestCaseResult {
        let bytes = found.as_ref().map(|stored| stored.bytes.clone());
        prop_assert_eq!(&bytes, &self.model.bytes(key), "key {}", key);
        self.model.cut(handle, key, longest);
        let Some(stored) = found else {
            return Ok(());
        };
        if let Some(left) = stored.ttl {
            let (least, most) = self.model.life(key);
            let is_right = left <= most.min(longest.get()) && left + TIME > least;
            prop_assert!(is_right, "{left:?} of {least:?} to {most:?}");
        }
        self.keep(handle, key, bytes, stored.proof);
        Ok(())
    }

    fn keep(
        &mut self,
        handle: usize,
        key: usize,
        bytes: Option<bytes::Bytes>,
        proof: Option<Proof>,
    ) {
        self.kept.extend(proof.map(|proof| Kept {
            handle,
            key,
            bytes,
            proof,
        }));
    }

    async fn acquire(&mut self, handle: usize, keys: &[usize]) -> TestCaseResult {
        let acquired = self.handles[handle]
            .acquire(&self.keys(keys), TIME)
            .await
            .unwrap();
        prop_assert_eq!(acquired.len(), keys.len());
        for (key, acquired) in keys.iter().copied().zip(acquired) {
            let (found, proof) = match acquired {
                Acquired::Granted { lease, found } => {
                    prop_assert!(
                        self.model.lease(key).is_none(),
                        "key {} is leased twice",
                        key
                    );
                    let is_known = self.leases.iter().any(|(_, one)| one.token == lease.token);
                    prop_assert!(!is_known, "a token comes twice");
                    self.model.grant(&lease, key);
                    self.leases.push((handle, lease));
                    (found, None)
                }
                Acquired::Held { left, found, proof } => {
                    prop_assert!(self.model.lease(key).is_some(), "key {} is not leased", key);
                    prop_assert!(left <= TIME, "{left:?}");
                    (found, proof)
                }
                Acquired::Uncached { .. } => {
                    return Err(TestCaseError::fail("no load said that"));
                }
            };
            let bytes = found.map(|stored| stored.bytes);
            prop_assert_eq!(
                &bytes,
                &self.model.bytes(key),
                "beside the lease of {}",
                key
            );
            self.keep(handle, key, bytes, proof);
        }
        Ok(())
    }

    async fn fill(&mut self, lease: usize, value: u32, is_ended: bool) -> TestCaseResult {
        let Some((handle, lease)) = self.lease(lease) else {
            return Ok(());
        };
        let right = FillRight::new();
        if is_ended {
            right.end();
        }
        let key = (0..steps::ENDPOINTS.len()).find(|key| self.key(*key) == lease.key);
        let key = key.expect("it was asked for");
        let guard = Guard::Lease(right, lease.clone());
        let entry = self.entry(key, value, 300, guard);
        let written = self.handles[handle].set(entry).await.unwrap();
        let may_fill = !is_ended && self.model.holds(&lease);
        prop_assert_eq!(written.is_stored(), may_fill, "{}", written);
        if may_fill {
            self.model.set(handle, key, value, 300);
        }
        Ok(())
    }

    /// A scan meets every entry, and no other; one that was there throughout it perhaps twice.
    async fn scan(&mut self, store: &dyn Store, limit: usize) -> TestCaseResult {
        let pattern = Pattern::of_service(&self.service);
        let mut met = std::collections::BTreeSet::new();
        let mut after = None;
        loop {
            let page = store.scan(Some(&pattern), after, limit).await.unwrap();
            met.extend(page.entries.into_iter().map(|entry| entry.key));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let there = (0..steps::ENDPOINTS.len()).filter(|key| self.model.bytes(*key).is_some());
        let there: std::collections::BTreeSet<Key> = there.map(|key| self.key(key)).collect();
        prop_assert_eq!(met, there);
        Ok(())
    }

    /// No proof holds for what is not there any more: of another handle's change a store may have yet to be told.
    async fn check_proofs(&mut self) -> TestCaseResult {
        let Self {
            kept,
            model,
            handles,
            ..
        } = self;
        for one in kept.iter() {
            if one.bytes == model.bytes(one.key) {
                continue;
            }
            let (store, began) = (&handles[one.handle], Instant::now());
            let is_own = model.changed_by(one.key) == Some(one.handle);
            while store.holds(&one.proof) {
                prop_assert!(!is_own && began.elapsed() < PATIENCE, "key {}", one.key);
                tokio::task::yield_now().await;
            }
        }
        kept.retain(|one| one.bytes == model.bytes(one.key));
        Ok(())
    }

    async fn check_all(&mut self) -> TestCaseResult {
        for handle in [0, 1] {
            for key in 0..steps::ENDPOINTS.len() {
                self.step((handle, Step::Get(key, None))).await?;
            }
        }
        Ok(())
    }
}

fn seconds(seconds: u64) -> Ttl {
    Ttl::new(Duration::from_secs(seconds)).unwrap()
}
