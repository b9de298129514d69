//! What the audit trail says of a change, and of a request that was refused.

use std::net::IpAddr;
use std::time::Instant;

use larder_model::Service;
use larder_model::api::{Action, AuditHead};
use serde_json::{Value, json};

use super::{ChangeError, Registry, Snapshot, state};
use crate::access::AccessChange;
use crate::audit::{Entry, Head, Row, Trail};
use crate::cause::{Author, Cause};
use crate::database::{Change, NewRevision};
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

impl Registry {
    /// Makes a change: in the database, then in force.
    pub(super) async fn commit(
        &self,
        trail: &mut Trail,
        before: &StoredService,
        after: StoredService,
        made: Made<'_>,
    ) -> Result<(), ChangeError> {
        let snapshot = Snapshot::new(after, self.database.id())?;
        let revision = state::revision(&snapshot.stored, made.action, made.cause);
        let row = match made.told {
            Some(told) => {
                let entry = entry(made.action, made.cause, &before.service, told, &revision);
                Some(self.next(trail, entry).await?)
            }
            None => None,
        };
        let change = Change {
            before,
            after: &snapshot.stored,
            revision: &revision,
            audit: row.as_ref(),
        };
        self.database.commit(&change).await?;
        if let Some(row) = &row {
            self.publish(trail, row);
        }
        self.activate(snapshot);
        Ok(())
    }

    /// Begins the trail, or goes on with it.
    pub(super) async fn open_trail(&self) -> Result<(), sqlx::Error> {
        let mut trail = self.changes.lock().await;
        let head = self.database.audit_head().await?;
        match trail.opening(&head, crate::auto::now().as_secs()) {
            Some(row) => {
                if head.sequence > 0 {
                    tracing::warn!(
                        entries = head.sequence,
                        "the audit trail was written with another key: what is in it can't be verified any more without that"
                    );
                }
                self.database.append_audit(&row).await?;
                self.publish(&mut trail, &row);
            }
            None => {
                tracing::info!(sequence = head.sequence, head = %head.mac, "audit trail");
                self.audit_head.store(head.clone().into());
                trail.head = Some(head);
            }
        }
        Ok(())
    }

    /// Makes a change of who may do what; `false`: there was nothing to change.
    pub(crate) async fn change_access(
        &self,
        change: &AccessChange,
        cause: &Cause,
    ) -> Result<bool, sqlx::Error> {
        let mut trail = self.changes.lock().await;
        let row = self.next(&mut trail, change.entry(cause)).await?;
        let is_changed = self.database.change_access(change, &row).await?;
        if is_changed {
            self.publish(&mut trail, &row);
        }
        Ok(is_changed)
    }

    /// Goes on behind what another process wrote into the trail, where that follows what is known here.
    pub(crate) async fn follow_trail(&self) -> Result<(), sqlx::Error> {
        let mut trail = self.changes.lock().await;
        let Some(head) = trail.head.clone() else {
            return Ok(());
        };
        let rows = self.database.audit_after(head.sequence).await?;
        let followed = trail.follow(&head, &rows);
        if followed != head {
            self.audit_head.store(followed.clone().into());
            trail.head = Some(followed);
        }
        Ok(())
    }

    /// Where the trail ends, as this process wrote it.
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

    /// Writes down what is no change of a policy. `known` is told its number before anybody else can know of it.
    pub(crate) async fn note(
        &self,
        entry: Entry,
        known: impl FnOnce(u64),
    ) -> Result<(), sqlx::Error> {
        let mut trail = self.changes.lock().await;
        let row = self.next(&mut trail, entry).await?;
        self.database.append_audit(&row).await?;
        known(row.sequence);
        self.publish(&mut trail, &row);
        Ok(())
    }

    /// The entry that comes next. The head is taken out: if its writing comes to no known end, the database tells it anew.
    async fn next(&self, trail: &mut Trail, entry: Entry) -> Result<Row, sqlx::Error> {
        let head = match trail.head.take() {
            Some(head) => head,
            None => self.database.audit_head().await?,
        };
        Ok(trail.seal(&head, entry, crate::auto::now().as_secs()))
    }

    fn publish(&self, trail: &mut Trail, row: &Row) {
        let head = Head::of(row);
        let action = row.action.as_str();
        tracing::info!(sequence = row.sequence, head = %row.mac, action, "audit trail");
        self.audit_head.store(head.clone().into());
        trail.head = Some(head);
    }
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
