//! Keys and users by way of the database alone: for the first one, and for whoever is on the control plane's machine.

use larder_model::Secret;
use larder_model::api::{ApiKey, MadeApiKey, NewApiKey, NewUser, User, UserChange};

use super::change::AccessChange;
use super::key::{NewKeyError, StoredKey};
use super::password::Hashed;
use super::user::{NewUserOf, StoredUser, UserError, Wanted};
use crate::audit::{AuditKey, Head, Trail};
use crate::cause::{Cause, CauseError};
use crate::database::{Database, OpenError};
use crate::plane::Settings;

/// So often a change is tried anew, where a control plane that runs writes into the audit trail at the same time.
const TRIES: u32 = 5;

/// Why a key can't be made, listed or revoked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyringError {
    /// What was said of it can't be.
    #[error("{0}")]
    Said(String),
    /// The database does not take it.
    #[error("the control plane's database did not take it: {0}")]
    Database(Box<dyn std::error::Error + Send + Sync>),
}

impl From<NewKeyError> for KeyringError {
    fn from(error: NewKeyError) -> Self {
        Self::Said(error.to_string())
    }
}

impl From<UserError> for KeyringError {
    fn from(error: UserError) -> Self {
        Self::Said(error.to_string())
    }
}

impl From<CauseError> for KeyringError {
    fn from(error: CauseError) -> Self {
        Self::Said(error.to_string())
    }
}

impl From<sqlx::Error> for KeyringError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

/// The keys and users in a control plane's database, which may be in use: it notices what is changed here within two seconds.
pub struct Keyring {
    database: Database,
    trail: Trail,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyring").finish_non_exhaustive()
    }
}

impl Keyring {
    /// Opens the database; makes it if there is none, so that there can be a key before the first start.
    ///
    /// # Errors
    /// An [`OpenError`] that says what to do.
    pub async fn open(settings: &Settings) -> Result<Self, OpenError> {
        let database = Database::open(&settings.database).await?;
        let trail = Trail::new(AuditKey::open_or_make(&settings.audit_key)?);
        Ok(Self { database, trail })
    }

    /// Makes a key. `author` is who says so, for the audit trail.
    ///
    /// # Errors
    /// A [`KeyringError`] that says what to do.
    pub async fn create(
        &mut self,
        new: &NewApiKey,
        author: Option<String>,
    ) -> Result<MadeApiKey, KeyringError> {
        let cause = Cause::said(author, new.reason.clone(), None)?;
        let (key, text) = StoredKey::make(new, crate::auto::now().as_secs())?;
        let made = MadeApiKey {
            key: key.describe(),
            secret: text.expose().to_owned(),
        };
        self.change(&AccessChange::MakeKey(key), &cause).await?;
        Ok(made)
    }

    /// All keys, oldest first.
    ///
    /// # Errors
    /// A [`KeyringError::Database`].
    pub async fn list(&self) -> Result<Vec<ApiKey>, KeyringError> {
        let keys = self.database.api_keys().await?;
        Ok(keys.iter().map(StoredKey::describe).collect())
    }

    /// Revokes a key; `false`: there is none of this id that was not revoked before.
    ///
    /// # Errors
    /// A [`KeyringError`] that says what to do.
    pub async fn revoke(
        &mut self,
        id: &str,
        author: Option<String>,
        reason: Option<String>,
    ) -> Result<bool, KeyringError> {
        let cause = Cause::said(author, reason, None)?;
        let change = AccessChange::RevokeKey {
            id: id.to_owned(),
            at_seconds: crate::auto::now().as_secs(),
        };
        Ok(self.change(&change, &cause).await?)
    }

    /// Makes a user of the dashboard; `false`: there is one of this name.
    ///
    /// # Errors
    /// A [`KeyringError`] that says what to do.
    pub async fn create_user(
        &mut self,
        new: NewUser,
        author: Option<String>,
    ) -> Result<bool, KeyringError> {
        let cause = Cause::said(author, new.reason, None)?;
        let user = NewUserOf::new(&new.name, new.role, &new.services)?;
        let password = Hashed::of(&Secret::new(new.password)).map_err(UserError::from)?;
        let user = user.with(password, crate::auto::now().as_secs());
        let make = AccessChange::MakeUser(user);
        Ok(self.change(&make, &cause).await?)
    }

    /// All users, by name.
    ///
    /// # Errors
    /// A [`KeyringError::Database`].
    pub async fn users(&self) -> Result<Vec<User>, KeyringError> {
        let users = self.database.users().await?;
        Ok(users.iter().map(StoredUser::describe).collect())
    }

    /// Changes a user, whose sessions end; `false`: there is none.
    ///
    /// # Errors
    /// A [`KeyringError`] that says what to do.
    pub async fn change_user(
        &mut self,
        name: &str,
        change: UserChange,
        author: Option<String>,
    ) -> Result<bool, KeyringError> {
        let cause = Cause::said(author, change.reason.clone(), None)?;
        let mut wanted = Wanted::new(change)?;
        let password = wanted.password.take();
        let password = password.as_ref().map(Hashed::of).transpose();
        let password = password.map_err(UserError::from)?;
        let mut is_changed = true;
        for one in wanted.changes(name, password) {
            is_changed &= self.change(&one, &cause).await?;
        }
        Ok(is_changed)
    }

    /// Removes a user, whose sessions end; `false`: there is none.
    ///
    /// # Errors
    /// A [`KeyringError`] that says what to do.
    pub async fn remove_user(
        &mut self,
        name: &str,
        author: Option<String>,
        reason: Option<String>,
    ) -> Result<bool, KeyringError> {
        let cause = Cause::said(author, reason, None)?;
        let remove = AccessChange::RemoveUser {
            name: name.to_owned(),
            at_seconds: crate::auto::now().as_secs(),
        };
        Ok(self.change(&remove, &cause).await?)
    }

    /// Closes the database.
    pub async fn close(self) {
        self.database.close().await;
    }

    async fn change(&mut self, change: &AccessChange, cause: &Cause) -> Result<bool, sqlx::Error> {
        let mut tries = 1;
        loop {
            match self.try_change(change, cause).await {
                Err(error) if tries < TRIES && is_taken(&error) => tries += 1,
                done => return done,
            }
        }
    }

    async fn try_change(&self, change: &AccessChange, cause: &Cause) -> Result<bool, sqlx::Error> {
        let now = crate::auto::now().as_secs();
        let mut head = self.database.audit_head().await?;
        if let Some(row) = self.trail.opening(&head, now) {
            self.database.append_audit(&row).await?;
            head = Head::of(&row);
        }
        let row = self.trail.seal(&head, change.entry(cause), now);
        self.database.change_access(change, &row).await
    }
}

/// Whether another entry took this one's place in the trail.
fn is_taken(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}
