//! A user of the dashboard.

use larder_model::Secret;
use larder_model::api::{User, UserChange, UserRole};

use super::change::AccessChange;
use super::password::{Hashed, PasswordError};
use super::services::{Services, ServicesError};

/// No name is longer, in bytes.
const MAX_NAME: usize = 64;

/// A user as he is stored.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct StoredUser {
    pub(crate) name: String,
    pub(crate) role: UserRole,
    pub(crate) services: Services,
    pub(crate) password: Hashed,
    pub(crate) made_at: u64,
    /// Another number after each change, which ends his sessions.
    pub(crate) changed: u64,
}

/// Why there is no such user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UserError {
    #[error("a user's name is 1 to 64 of A-Z a-z 0-9 . _ - @, and begins with a letter or digit")]
    Name,
    #[error("a role comes with services, and services with a role")]
    Halves,
    #[error("say what is to be another: role and services, or password")]
    Nothing,
    #[error(transparent)]
    Services(#[from] ServicesError),
    #[error(transparent)]
    Password(#[from] PasswordError),
}

/// # Errors
/// [`UserError::Name`] for what can't be one.
pub(crate) fn check_name(name: &str) -> Result<(), UserError> {
    let is_letter =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'@');
    let begins = name.bytes().next();
    let is_name = begins.is_some_and(|byte| byte.is_ascii_alphanumeric())
        && name.len() <= MAX_NAME
        && name.bytes().all(is_letter);
    is_name.then_some(()).ok_or(UserError::Name)
}

/// What a new user needs but his password.
pub(crate) struct NewUserOf {
    pub(crate) name: String,
    pub(crate) role: UserRole,
    pub(crate) services: Services,
}

impl NewUserOf {
    pub(crate) fn new(name: &str, role: UserRole, services: &[String]) -> Result<Self, UserError> {
        check_name(name)?;
        Ok(Self {
            name: name.to_owned(),
            role,
            services: Services::of_names(services)?,
        })
    }

    pub(crate) fn with(self, password: Hashed, now: u64) -> StoredUser {
        StoredUser {
            name: self.name,
            role: self.role,
            services: self.services,
            password,
            made_at: now,
            changed: 0,
        }
    }
}

/// What is to be another of a user.
pub(crate) struct Wanted {
    role: Option<(UserRole, Services)>,
    pub(crate) password: Option<Secret>,
}

impl Wanted {
    pub(crate) fn new(change: UserChange) -> Result<Self, UserError> {
        let role = match (change.role, change.services) {
            (Some(role), Some(services)) => Some((role, Services::of_names(&services)?)),
            (None, None) => None,
            _ => return Err(UserError::Halves),
        };
        let password = change.password.map(Secret::new);
        if role.is_none() && password.is_none() {
            return Err(UserError::Nothing);
        }
        Ok(Self { role, password })
    }

    /// The change to be made; the password's hash comes with it.
    pub(crate) fn change(self, name: &str, password: Option<Hashed>) -> AccessChange {
        AccessChange::SetUser {
            name: name.to_owned(),
            role: self.role,
            password,
        }
    }
}

impl StoredUser {
    pub(crate) fn describe(&self) -> User {
        User {
            name: self.name.clone(),
            role: self.role,
            services: self.services.names(),
            made_at_seconds: self.made_at,
        }
    }
}
