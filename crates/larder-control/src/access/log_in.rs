//! Log-in, log-out, and who has a session.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use larder_model::Secret;

use super::caller::Caller;
use super::change::AccessChange;
use super::password::{self, Hashed, PasswordError};
use super::rates::{self, Buckets, OF_LOG_INS};
use super::session::{SEEN, StoredSession, Ticket};
use super::user::{self, StoredUser};
use super::{Access, Unknown, network_of};
use crate::cause::{Author, Cause};
use crate::plane::Plane;
use crate::registry::ChangeError;

/// Why somebody is not logged in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LogInError {
    #[error("The name or the password is wrong.")]
    Wrong,
    #[error("That was tried too often: wait a minute.")]
    TooOften(Duration),
    #[error("Too many log in at once: try again in a moment.")]
    Busy,
    #[error("The control plane could not look at that: its log says why.")]
    Failed(String),
}

impl From<ChangeError> for LogInError {
    fn from(error: ChangeError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<sqlx::Error> for LogInError {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl Access {
    /// The hash of a new password.
    pub(crate) async fn hash(&self, password: Secret) -> Result<Hashed, PasswordError> {
        self.desk.hash(password).await
    }

    /// The user of this name and password. How often that may be tried is bounded, of a name and from an address; what was
    /// right does not count.
    async fn user(
        &self,
        name: &str,
        password: Secret,
        address: Option<IpAddr>,
    ) -> Result<StoredUser, LogInError> {
        let (address, now) = (network_of(address), rates::now());
        // What can't be a name is one for this.
        let name = match user::check_name(name) {
            Ok(()) => name,
            Err(_) => "",
        };
        let of_address = self.log_ins_of_addresses.take(address, &OF_LOG_INS, now);
        of_address.map_err(LogInError::TooOften)?;
        let of_account = self
            .log_ins_of_accounts
            .take(name.to_owned(), &OF_LOG_INS, now);
        of_account.map_err(LogInError::TooOften)?;
        if password.expose().len() > password::MOST {
            return Err(LogInError::Wrong);
        }
        let user = self.user_with(name, password).await;
        // What came to no end was no try.
        if !matches!(user, Err(LogInError::Wrong)) {
            self.log_ins_of_addresses.give_back(&address, &OF_LOG_INS);
            self.log_ins_of_accounts
                .give_back(&name.to_owned(), &OF_LOG_INS);
        }
        user
    }

    async fn user_with(&self, name: &str, password: Secret) -> Result<StoredUser, LogInError> {
        let user = self.database.user(name).await?;
        let hashed = user.as_ref().map(|user| user.password.clone());
        let is_right = self.desk.verify(password, hashed).await;
        let is_right = is_right.map_err(|error| match error {
            PasswordError::Busy => LogInError::Busy,
            error => LogInError::Failed(error.to_string()),
        })?;
        user.filter(|_| is_right).ok_or(LogInError::Wrong)
    }

    /// Who has this session.
    pub(super) async fn find_session(&self, ticket: Ticket) -> Result<Caller, Unknown> {
        let digest = ticket.digest();
        if self.bad.has(digest) {
            return Err(Unknown::NoSession);
        }
        let now = crate::auto::now().as_secs();
        let found = self.database.session(digest, now).await;
        let found = found.map_err(|error| {
            tracing::warn!(%error, "the database can't be asked for a session");
            Unknown::Unasked
        })?;
        let Some((user, seen_at)) = found else {
            self.bad.put(digest);
            return Err(Unknown::NoSession);
        };
        if now >= seen_at + SEEN
            && let Err(error) = self.database.note_session(digest, now).await
        {
            tracing::warn!(%error, "that a session was used could not be written down");
        }
        let buckets = self.buckets_of(&user.name);
        Ok(Caller::of_user(user, ticket, buckets))
    }

    /// There are no more of them than there were users.
    fn buckets_of(&self, name: &str) -> Arc<Buckets> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(users.entry(name.to_owned()).or_default())
    }
}

impl Plane {
    /// Begins a session for who knows a user's password.
    pub(crate) async fn log_in(
        &self,
        name: &str,
        password: Secret,
        address: Option<IpAddr>,
    ) -> Result<Ticket, LogInError> {
        let user = self.access.user(name, password, address).await?;
        let ticket = Ticket::make().map_err(|error| LogInError::Failed(error.to_string()))?;
        let begin = AccessChange::BeginSession(StoredSession {
            digest: ticket.digest(),
            user: user.name.clone(),
            user_changed: user.changed,
            began_at: crate::auto::now().as_secs(),
        });
        let cause = cause(&user.name, address);
        self.registry.change_access(&begin, &cause).await?;
        Ok(ticket)
    }

    /// Ends a session.
    pub(crate) async fn log_out(
        &self,
        user: &str,
        ticket: &Ticket,
        address: Option<IpAddr>,
    ) -> Result<(), ChangeError> {
        let end = AccessChange::EndSession {
            user: user.to_owned(),
            digest: ticket.digest(),
        };
        let cause = cause(user, address);
        self.registry.change_access(&end, &cause).await.map(drop)
    }
}

fn cause(user: &str, address: Option<IpAddr>) -> Cause {
    Cause {
        author: Author {
            name: format!("user {user}"),
            is_verified: true,
        },
        address,
        reason: String::new(),
    }
}
