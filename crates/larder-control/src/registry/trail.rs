//! What the audit trail says of a change, and of a request that was refused.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use larder_model::Service;
use larder_model::api::{Action, AuditHead};
use serde_json::{Value, json};
use tokio::sync::MutexGuard;

use super::{ChangeError, Registry, Snapshot, state};
use crate::access::AccessChange;
use crate::audit::{Entry, Head, Row, Trail};
use crate::cause::{Author, Cause};
use crate::database::{Change, LoadError, NewRevision, Transaction};
use crate::stored::StoredService;

/// A change that is to be made.
pub(super) struct Made<'a> {
    pub(super) action: Action,
    pub(super) cause: &'a Cause,
    /// `None`: it is not in the trail, but only a revision.
    pub(super) told: Option<Told>,
}

/// What the trail says of it.
pub(super) struct Told {
    /// The endpoint, if it is of one.
    pub(super) target: Option<String>,
    pub(super) before: Option<Value>,
    /// `null`: there is nothing any more.
    pub(super) after: Value,
}

/// A change that is under way: nobody else has one meanwhile, in any replica.
pub(super) struct Changing<'a> {
    trail: MutexGuard<'a, Trail>,
    transaction: Transaction,
}

/// Who waits longer for changes before his own is told that the database is busy.
const PATIENCE: Duration = Duration::from_secs(10);

impl Registry {
    /// Begins a change of a service (or of any, where it is not known which), from what is stored now: other replicas may have
    /// changed it.
    pub(super) async fn begin(&self, only: Option<&Service>) -> Result<Changing<'_>, ChangeError> {
        let mut changing = self.begin_unseen().await?;
        self.refresh(&mut changing.transaction, only).await?;
        Ok(changing)
    }

    /// Takes over what other replicas changed. A service that can't be read stays as it was, and keeps no other from it.
    async fn refresh(
        &self,
        transaction: &mut Transaction,
        only: Option<&Service>,
    ) -> Result<usize, ChangeError> {
        let mut changed = 0;
        let mut unread = None;
        for (name, version) in self.database.versions(&mut *transaction, only).await? {
            if self.version(&name) == Some(version) {
                continue;
            }
            match self.read(transaction, &name).await {
                Ok(snapshot) => {
                    self.activate(snapshot);
                    changed += 1;
                }
                Err(error @ ChangeError::Unreadable { .. }) => unread = Some(error),
                Err(error) => return Err(error),
            }
        }
        unread.map_or(Ok(changed), Err)
    }

    async fn read(
        &self,
        transaction: &mut Transaction,
        name: &str,
    ) -> Result<Snapshot, ChangeError> {
        let unreadable = |what: String| ChangeError::Unreadable {
            service: name.to_owned(),
            what,
        };
        let stored = self.database.load(transaction, name).await;
        let stored = stored.map_err(|error| match error {
            LoadError::Sql(error) => error.into(),
            error => unreadable(error.to_string()),
        })?;
        let snapshot = Snapshot::new(stored, self.database.id());
        snapshot.map_err(|error| unreadable(error.to_string()))
    }

    /// Takes all that is stored over. Other processes may change it meanwhile: that is heard of later.
    pub(super) async fn load(&self) -> Result<usize, ChangeError> {
        // None of our own changes comes in between: what is older would be put in force behind it.
        let _unchanged = self.trail().await?;
        let mut transaction = self.database.begin_to_read().await?;
        self.refresh(&mut transaction, None).await
    }

    /// Takes over what other replicas changed meanwhile; how many services that were.
    pub(crate) async fn catch_up(&self) -> Result<usize, ChangeError> {
        let head = self.database.audit_head_now().await?;
        if head.sequence > self.audit_head.load().sequence {
            let mut trail = self.trail().await?;
            trail.learn(head);
            self.audit_head.store(trail.known().clone().into());
        }
        let versions = self.database.versions_now().await?;
        let is_news = |(name, version): &(String, u64)| self.version(name) != Some(*version);
        match versions.iter().any(is_news) {
            true => self.load().await,
            false => Ok(0),
        }
    }

    async fn trail(&self) -> Result<MutexGuard<'_, Trail>, ChangeError> {
        let trail = tokio::time::timeout(PATIENCE, self.changes.lock()).await;
        trail.map_err(|_| ChangeError::Busy)
    }

    /// Begins a change without a look at what others changed.
    async fn begin_unseen(&self) -> Result<Changing<'_>, ChangeError> {
        Ok(Changing {
            trail: self.trail().await?,
            transaction: self.database.begin().await?,
        })
    }

    /// Makes a change: in the database, then in force.
    pub(super) async fn commit(
        &self,
        mut changing: Changing<'_>,
        before: &StoredService,
        after: StoredService,
        made: Made<'_>,
    ) -> Result<(), ChangeError> {
        let snapshot = Snapshot::new(after, self.database.id())?;
        let revision = state::revision(&snapshot.stored, made.action, made.cause);
        let row = match made.told {
            Some(told) => {
                let entry = entry(made.action, made.cause, &before.service, told, &revision);
                Some(self.next(&mut changing, entry).await?)
            }
            None => None,
        };
        let change = Change {
            before,
            after: &snapshot.stored,
            revision: &revision,
            audit: row.as_ref(),
        };
        let Changing {
            mut trail,
            transaction,
        } = changing;
        self.database.commit(transaction, &change).await?;
        if let Some(row) = &row {
            self.publish(&mut trail, row);
        }
        self.activate(snapshot);
        Ok(())
    }

    /// Begins the trail, or goes on with it. With `lost`, the name of a key that is lost, it goes on with another.
    pub(super) async fn open_trail(
        &self,
        may_replace: bool,
        lost: Option<&str>,
    ) -> Result<(), TrailError> {
        let head = self.database.audit_head_now().await;
        let head = head.map_err(ChangeError::from)?;
        let mut trail = self.trail().await?;
        if trail.wrote(&head) {
            tracing::info!(sequence = head.sequence, head = %head.mac, "audit trail");
            trail.learn(head);
            self.audit_head.store(trail.known().clone().into());
            return Ok(());
        }
        drop(trail);
        let mut changing = self.begin_unseen().await?;
        let head = self.learn_head(&mut changing).await;
        let head = head.map_err(ChangeError::from)?;
        let trail = &mut changing.trail;
        // Another one that starts may have begun it meanwhile.
        if trail.wrote(&head) {
            return Ok(());
        }
        if head.sequence > 0 {
            if !may_replace && lost != Some(head.key_id.as_str()) {
                return Err(TrailError::OtherKey {
                    written: head.key_id,
                    here: trail.key_id().to_owned(),
                });
            }
            tracing::warn!(
                entries = head.sequence,
                "the audit trail was written with another key: what is in it can't be verified any more without that"
            );
        }
        let row = trail.opening(crate::auto::now().as_secs());
        self.append(changing, row, |_| ()).await?;
        Ok(())
    }

    /// Whether this process leads yet, and will until the change is made: who takes its place waits for that.
    pub(super) async fn leads(&self, changing: &mut Changing<'_>) -> Result<bool, ChangeError> {
        Ok(self.database.leads(&mut changing.transaction).await?)
    }

    /// Makes a change of who may do what; `false`: there was nothing to change.
    pub(crate) async fn change_access(
        &self,
        change: &AccessChange,
        cause: &Cause,
    ) -> Result<bool, ChangeError> {
        let mut changing = self.begin_unseen().await?;
        let row = self.next(&mut changing, change.entry(cause)).await?;
        let Changing {
            mut trail,
            transaction,
        } = changing;
        let is_changed = self
            .database
            .change_access(transaction, change, &row)
            .await?;
        if is_changed {
            self.publish(&mut trail, &row);
        }
        Ok(is_changed)
    }

    /// Where the trail ends, as far as this process knows.
    pub(crate) fn audit_head(&self) -> AuditHead {
        self.audit_head.load().describe()
    }

    /// Writes down that a request which would change something was refused, unless too many were lately.
    pub(crate) async fn refused(
        &self,
        request: String,
        status: u16,
        author: Option<Author>,
        address: Option<IpAddr>,
    ) {
        let Some(unwritten) = self.refusals.take(Instant::now()) else {
            return;
        };
        let Ok(cause) = Cause::of(author, None, None, address) else {
            return;
        };
        let entry = Entry::refused(cause, request, status, unwritten);
        if let Err(error) = self.note(entry, |_| ()).await {
            tracing::warn!(%error, "a refused request could not be written into the audit trail");
        }
    }

    /// Writes an entry that belongs to no change of a service. `known` is told its number before anybody else can know of it.
    pub(crate) async fn note(
        &self,
        entry: Entry,
        known: impl FnOnce(u64),
    ) -> Result<(), ChangeError> {
        let mut changing = self.begin_unseen().await?;
        let row = self.next(&mut changing, entry).await?;
        self.append(changing, row, known).await
    }

    async fn append(
        &self,
        changing: Changing<'_>,
        row: Row,
        known: impl FnOnce(u64),
    ) -> Result<(), ChangeError> {
        let Changing {
            mut trail,
            transaction,
        } = changing;
        self.database.append_audit(transaction, &row).await?;
        known(row.sequence);
        self.publish(&mut trail, &row);
        Ok(())
    }

    /// The entry that comes next: behind those of other replicas, and of changes of which it was not known whether they were
    /// made.
    async fn next(&self, changing: &mut Changing<'_>, entry: Entry) -> Result<Row, ChangeError> {
        let head = self.learn_head(changing).await?;
        let trail = &changing.trail;
        if !trail.wrote(&head) && head.sequence > 0 {
            return Err(ChangeError::OtherKey {
                written: head.key_id,
            });
        }
        Ok(trail.next(entry, crate::auto::now().as_secs()))
    }

    /// Where the trail in the database ends.
    async fn learn_head(&self, changing: &mut Changing<'_>) -> Result<Head, sqlx::Error> {
        let head = self.database.audit_head(&mut changing.transaction).await?;
        changing.trail.learn(head.clone());
        self.audit_head.store(changing.trail.known().clone().into());
        Ok(head)
    }

    fn publish(&self, trail: &mut Trail, row: &Row) {
        let head = Head::of(row);
        let action = row.action.as_str();
        tracing::info!(sequence = row.sequence, head = %row.mac, action, "audit trail");
        trail.learn(head);
        self.audit_head.store(trail.known().clone().into());
    }
}

/// Why the trail can't be gone on with.
#[derive(Debug, thiserror::Error)]
pub(super) enum TrailError {
    #[error("it is written with the key {written}, and the one here is {here}")]
    OtherKey { written: String, here: String },
    #[error(transparent)]
    Change(#[from] ChangeError),
}

fn entry(
    action: Action,
    cause: &Cause,
    service: &Service,
    told: Told,
    revision: &NewRevision,
) -> Entry {
    let made = json!({ "number": revision.number, "sha256": revision.sha256 });
    Entry {
        cause: cause.clone(),
        action: action.as_str(),
        service: Some(service.as_str().to_owned()),
        target: told.target,
        before: told.before,
        after: Some(json!({ "is": told.after, "revision": made })),
    }
}
