//! Keys and users by way of the database alone: for the first one, and for whoever is on the control plane's machine.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, TryFutureExt as _};
use larder_model::Secret;
use larder_model::api::{ApiKey, MadeApiKey, NewApiKey, NewUser, User, UserChange};

use super::change::AccessChange;
use super::key::{NewKeyError, StoredKey};
use super::password::Hashed;
use super::user::{NewUserOf, StoredUser, UserError, Wanted};
use crate::cause::{Cause, CauseError};
use crate::database::OpenError;
use crate::plane::Settings;
use crate::registry::{Opens, Registry};
use crate::streams::Streams;

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
pub struct Keyring(Registry);

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
    pub fn open(settings: &Settings) -> impl Future<Output = Result<Self, OpenError>> + Send {
        let nobody = Arc::new(Streams::new(settings.streams.clone()));
        Registry::open(settings, nobody, Opens::Keyring)
            .map_ok(Self)
            .boxed()
    }

    /// Makes a key. `author` is who says so, for the audit trail.
    ///
    /// # Errors
    /// A [`KeyringError`] that says what to do.
    pub async fn create(
        &self,
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
    pub fn list(&self) -> impl Future<Output = Result<Vec<ApiKey>, KeyringError>> + Send {
        let listed = async {
            let keys = self.0.database().api_keys().await?;
            Ok(keys.iter().map(StoredKey::describe).collect())
        };
        listed.boxed()
    }

    /// Revokes a key; `false`: there is none of this id that was not revoked before.
    ///
    /// # Errors
    /// A [`KeyringError`] that says what to do.
    pub async fn revoke(
        &self,
        id: &str,
        author: Option<String>,
        reason: Option<String>,
    ) -> Result<bool, KeyringError> {
        let cause = Cause::said(author, reason, None)?;
        let change = AccessChange::RevokeKey {
            id: id.to_owned(),
            at_seconds: crate::auto::now().as_secs(),
        };
        self.change(&change, &cause).await
    }

    /// Makes a user of the dashboard; `false`: there is one of this name.
    ///
    /// # Errors
    /// A [`KeyringError`] that says what to do.
    pub async fn create_user(
        &self,
        new: NewUser,
        author: Option<String>,
    ) -> Result<bool, KeyringError> {
        let cause = Cause::said(author, new.reason, None)?;
        let user = NewUserOf::new(&new.name, new.role, &new.services)?;
        let password = Hashed::of(&Secret::new(new.password)).map_err(UserError::from)?;
        let user = user.with(password, crate::auto::now().as_secs());
        let make = AccessChange::MakeUser(user);
        self.change(&make, &cause).await
    }

    /// All users, by name.
    ///
    /// # Errors
    /// A [`KeyringError::Database`].
    pub fn users(&self) -> impl Future<Output = Result<Vec<User>, KeyringError>> + Send {
        let listed = async {
            let users = self.0.database().users().await?;
            Ok(users.iter().map(StoredUser::describe).collect())
        };
        listed.boxed()
    }

    /// Changes a user, whose sessions end; `false`: there is none.
    ///
    /// # Errors
    /// A [`KeyringError`] that says what to do.
    pub async fn change_user(
        &self,
        name: &str,
        change: UserChange,
        author: Option<String>,
    ) -> Result<bool, KeyringError> {
        let cause = Cause::said(author, change.reason.clone(), None)?;
        let mut wanted = Wanted::new(change)?;
        let password = wanted.password.take();
        let password = password.as_ref().map(Hashed::of).transpose();
        let password = password.map_err(UserError::from)?;
        self.change(&wanted.change(name, password), &cause).await
    }

    /// Removes a user, whose sessions end; `false`: there is none.
    ///
    /// # Errors
    /// A [`KeyringError`] that says what to do.
    pub async fn remove_user(
        &self,
        name: &str,
        author: Option<String>,
        reason: Option<String>,
    ) -> Result<bool, KeyringError> {
        let cause = Cause::said(author, reason, None)?;
        let remove = AccessChange::RemoveUser {
            name: name.to_owned(),
            at_seconds: crate::auto::now().as_secs(),
        };
        self.change(&remove, &cause).await
    }

    /// Closes the database.
    pub async fn close(self) {
        self.0.database().close().await;
    }

    fn change<'a>(
        &'a self,
        change: &'a AccessChange,
        cause: &'a Cause,
    ) -> BoxFuture<'a, Result<bool, KeyringError>> {
        let changed = self.0.change_access(change, cause);
        changed
            .map_err(|error| KeyringError::Database(error.into()))
            .boxed()
    }
}
