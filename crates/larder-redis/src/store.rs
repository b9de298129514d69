//! The store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_core::mutants::{Guard, is_off};
use larder_core::{
    Acquired, ClearMode, Cursor, Deleted, Key, Lease, NewEntry, Page, Pattern, Proof, Released,
    Service, Store, StoreError, StoreFuture, StoreStats, Stored, Told, Ttl, VersionName, Written,
};

use crate::changes::{Changes, Taken};
use crate::command::Command;
use crate::lives::Lives;
use crate::node::seed;
use crate::options::{AfterFailover, Options};
use crate::resp::Reader;
use crate::scripts::{self, Script};
use crate::servers::Servers;
use crate::survey::{self, Survey};
use crate::sweep::Sweeping;
use crate::url::RedisUrl;
use crate::url::hosts::Behind;

/// So many keys are asked for by one command at the most.
pub(crate) const BATCH: usize = 500;

/// A store on Redis or Valkey: one server, the master that Sentinels name, or the masters of a Cluster.
pub struct RedisStore {
    pub(crate) servers: Arc<Servers>,
    pub(crate) changes: Arc<Changes>,
    pub(crate) max_value_bytes: usize,
    /// How many values may be asked for by one command, so that its reply stays within its bounds.
    pub(crate) values_per_reply: usize,
    pub(crate) fill: Script,
    pub(crate) extend: Script,
    pub(crate) release: Script,
    began: Instant,
    pub(crate) deadline: Duration,
    /// Whether it removes what it does not believe.
    pub(crate) sweeps: bool,
    notes_entries: bool,
    _sweeping: Sweeping,
}

impl RedisStore {
    /// Begins to connect, and returns at once; servers are used as soon as they are there. Needs a Tokio runtime, on which
    /// the connections then live.
    #[must_use]
    pub fn connect(url: RedisUrl, options: Options) -> Self {
        let lives = Lives::new(keeps_all(&options));
        let changes = Changes::new(matches!(url.behind, Behind::Cluster(_)), seed(), lives);
        let (deadline, sweeps) = (options.deadline, options.sweeps);
        let notes_entries = options.notes_entries;
        let (max_value_bytes, max_string) = (options.max_value_bytes, options.max_string());
        let servers = Arc::new(Servers::start(url, options, &changes));
        Self {
            _sweeping: Sweeping::start(&servers, &changes, sweeps),
            sweeps,
            notes_entries,
            deadline,
            max_value_bytes,
            values_per_reply: Reader::strings_per_reply(max_string),
            servers,
            changes,
            fill: Script::new(scripts::FILL),
            extend: Script::new(scripts::EXTEND),
            release: Script::new(scripts::RELEASE),
            began: Instant::now(),
        }
    }

    /// To be called before an entry is read for its own sake: `None` where servers do not note that.
    pub(crate) fn take_entry(&self, key: &Key) -> Option<Taken> {
        let is_noted = self.notes_entries;
        is_noted.then(|| self.servers.take(key.as_str().as_bytes()))?
    }

    /// A read that its server notes in any case, once a proof was taken.
    pub(crate) fn noted<'a>(&self, command: Command<'a>, taken: Option<Taken>) -> Command<'a> {
        command.noted(!self.notes_entries && taken.is_some())
    }

    /// Milliseconds of this store's own clock.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Waits, once for each service, until its server was reached, and until it is known which of its plain entries can be
    /// believed.
    pub(crate) async fn prepare(&self, key: &Key) -> Result<(), StoreError> {
        if self.changes.lives.is_settled(key.service()) {
            return Ok(());
        }
        self.prepare_by(key, tokio::time::Instant::now() + self.deadline)
            .await
    }

    async fn prepare_by(
        &self,
        key: &Key,
        deadline: tokio::time::Instant,
    ) -> Result<(), StoreError> {
        let (lives, service) = (&self.changes.lives, key.service());
        if !lives.add(service) {
            return Ok(());
        }
        self.servers
            .reach(key.as_str().as_bytes(), deadline)
            .await?;
        lives.settle(service, deadline).await;
        Ok(())
    }

    /// [`RedisStore::prepare`] for keys of which each is dealt with on its own; within one deadline for all of them.
    pub(crate) async fn prepare_all(&self, keys: impl Iterator<Item = &Key>) {
        let deadline = tokio::time::Instant::now() + self.deadline;
        let is_unsettled = |key: &&Key| !self.changes.lives.is_settled(key.service());
        for key in keys.filter(is_unsettled) {
            if self.prepare_by(key, deadline).await.is_err() {
                return;
            }
        }
    }

    /// What each of its servers tells of itself, for one who looks after them. Changes nothing.
    ///
    /// # Errors
    /// [`StoreError`] if one does not answer. What it refuses to tell this user is left open.
    pub async fn survey(&self) -> Result<Vec<Survey>, StoreError> {
        let mut surveys = Vec::new();
        for node in self.servers.all().await? {
            surveys.push(survey::take(&node).await?);
        }
        Ok(surveys)
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        self.servers.close();
    }
}

/// Whether entries of other lives count, as those of the present one do.
fn keeps_all(options: &Options) -> bool {
    options.after_failover == AfterFailover::Keep || is_off(Guard::OtherLivesHide)
}

/// A random number that nobody else has, and its text.
pub(crate) fn random_hex() -> (u128, String) {
    let number = u128::from(seed()) << 64 | u128::from(seed());
    (number, format!("{number:032x}"))
}

impl Store for RedisStore {
    fn get(&self, key: &Key, longest: Ttl) -> StoreFuture<'_, Option<Stored>> {
        let key = key.clone();
        StoreFuture::pending(async move { self.read(&key, longest).await })
    }

    fn get_many(&self, keys: &[Key], longest: Ttl) -> StoreFuture<'_, Vec<Option<Stored>>> {
        let keys = keys.to_vec();
        StoreFuture::pending(async move { self.read_many(&keys, longest).await })
    }

    fn set(&self, entry: NewEntry) -> StoreFuture<'_, Written> {
        StoreFuture::pending(async move { self.write_one(&entry).await })
    }

    fn set_many(&self, entries: Vec<NewEntry>) -> StoreFuture<'_, Vec<Written>> {
        StoreFuture::pending(async move { Ok(self.write_many(&entries).await) })
    }

    fn delete(&self, keys: &[Key]) -> StoreFuture<'_, Deleted> {
        let keys = keys.to_vec();
        StoreFuture::pending(async move {
            let entries = self.delete_all(&keys).await?;
            Ok(Deleted { entries })
        })
    }

    fn clear(&self, pattern: &Pattern, mode: ClearMode) -> StoreFuture<'_, Deleted> {
        let pattern = pattern.clone();
        StoreFuture::pending(async move { self.clear_all(&pattern, mode).await })
    }

    fn acquire(&self, keys: &[Key], time: Duration) -> StoreFuture<'_, Vec<Acquired>> {
        let keys = keys.to_vec();
        StoreFuture::pending(async move { self.ask_for_leases(&keys, time).await })
    }

    fn extend(&self, leases: &[Lease], time: Duration) -> StoreFuture<'_, Vec<bool>> {
        let leases = leases.to_vec();
        StoreFuture::pending(async move { self.extend_all(&leases, time).await })
    }

    fn release(&self, leases: &[Lease], released: Released) -> StoreFuture<'_, Vec<bool>> {
        let leases = leases.to_vec();
        StoreFuture::pending(async move { self.release_all(&leases, released).await })
    }

    fn versions(&self, service: &Service, names: &[VersionName]) -> StoreFuture<'_, Vec<Told>> {
        let (service, names) = (service.clone(), names.to_vec());
        StoreFuture::pending(async move { self.tell_versions(&service, &names).await })
    }

    fn renew(&self, service: &Service, names: &[VersionName]) -> StoreFuture<'_, ()> {
        let (service, names) = (service.clone(), names.to_vec());
        StoreFuture::pending(async move { self.renew_versions(&service, &names).await })
    }

    fn beside(&self, key: &Key, names: &[VersionName]) -> StoreFuture<'_, larder_core::Beside> {
        let (key, names) = (key.clone(), names.to_vec());
        StoreFuture::pending(async move { self.look_beside(&key, &names).await })
    }

    fn holds(&self, proof: &Proof) -> bool {
        self.changes.holds(proof)
    }

    fn hold(&self, proofs: &[Proof]) -> bool {
        self.changes.hold(proofs)
    }

    fn changed(&self, proof: Proof, most: Duration) -> StoreFuture<'_, ()> {
        StoreFuture::pending(async move {
            self.changes.changed(proof, most).await;
            Ok(())
        })
    }

    fn incarnation(&self, key: &Key) -> u64 {
        self.servers.incarnation(key.as_str().as_bytes())
    }

    fn scan(
        &self,
        pattern: Option<&Pattern>,
        after: Option<Cursor>,
        _limit: usize,
    ) -> StoreFuture<'_, Page> {
        let pattern = pattern.cloned();
        StoreFuture::pending(async move { self.page(pattern.as_ref(), after).await })
    }

    fn stats(&self) -> StoreFuture<'_, StoreStats> {
        StoreFuture::pending(self.read_stats())
    }

    fn close(&self) -> StoreFuture<'_, ()> {
        self.servers.close();
        StoreFuture::ready(Ok(()))
    }

    fn name(&self) -> String {
        self.servers.url().to_string()
    }
}
