//! Who asks, and what he may.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Arc, LazyLock};

use axum::extract::FromRequestParts;
use http::StatusCode;
use http::request::Parts;
use larder_http::Problem;
use larder_model::Service;
use larder_model::api::{KeyRole, UserRole};

use super::key::Key;
use super::rates::Buckets;
use super::services::Services;
use super::session::Ticket;
use crate::cause::Author;

/// What a route asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Anybody may.
    Nothing,
    /// Who is known may, whatever his role.
    Known,
    /// To read policies, as services do.
    Config,
    /// To follow a stream: with a key, which can be revoked while it is open.
    Follow,
    /// To tell what was measured, and what is in force.
    Report,
    /// To look.
    Read,
    /// To change what holds.
    Change,
    /// To say who may do what.
    Admin,
}

/// What somebody is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Nobody known.
    None,
    Report,
    Read,
    Operator,
    Admin,
}

impl From<UserRole> for Role {
    fn from(role: UserRole) -> Self {
        match role {
            UserRole::Viewer => Self::Read,
            UserRole::Operator => Self::Operator,
            UserRole::Admin => Self::Admin,
        }
    }
}

impl From<KeyRole> for Role {
    fn from(role: KeyRole) -> Self {
        match role {
            KeyRole::Report => Self::Report,
            KeyRole::Read => Self::Read,
            KeyRole::Admin => Self::Admin,
        }
    }
}

impl Role {
    pub(crate) fn may(self, need: Need) -> bool {
        match (self, need) {
            (_, Need::Nothing) | (Self::Admin, _) => true,
            (Self::None, _) => false,
            (_, Need::Known | Need::Config | Need::Follow) => true,
            (Self::Report, need) => need == Need::Report,
            (Self::Read, need) => need == Need::Read,
            (Self::Operator, need) => matches!(need, Need::Read | Need::Change),
        }
    }
}

/// Who asks.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) who: Who,
    pub(crate) role: Role,
    pub(crate) services: Arc<Services>,
}

#[derive(Clone)]
pub(crate) enum Who {
    /// Nobody said who he is.
    Nobody,
    /// There are no keys: whoever is on this machine.
    Local,
    Key(Key),
    /// Who is logged in.
    User(Arc<LoggedIn>),
}

/// A user, as he is.
pub(crate) struct SignedIn {
    pub(crate) name: String,
    pub(crate) role: UserRole,
    pub(crate) services: Services,
}

/// A user, and his session.
pub(crate) struct LoggedIn {
    pub(crate) name: String,
    pub(crate) role: UserRole,
    pub(crate) ticket: Ticket,
    pub(crate) buckets: Arc<Buckets>,
}

static NONE: LazyLock<Arc<Services>> = LazyLock::new(|| Services::These(BTreeSet::new()).into());
static ALL: LazyLock<Arc<Services>> = LazyLock::new(|| Services::All.into());

impl Caller {
    pub(crate) fn nobody() -> Self {
        Self {
            who: Who::Nobody,
            role: Role::None,
            services: Arc::clone(&NONE),
        }
    }

    pub(crate) fn local() -> Self {
        Self {
            who: Who::Local,
            role: Role::Admin,
            services: Arc::clone(&ALL),
        }
    }

    pub(crate) fn of_key(key: Key) -> Self {
        Self {
            role: key.stored.role.into(),
            services: Arc::clone(&key.stored.services),
            who: Who::Key(key),
        }
    }

    pub(crate) fn of_user(user: SignedIn, ticket: Ticket, buckets: Arc<Buckets>) -> Self {
        Self {
            role: user.role.into(),
            services: user.services.into(),
            who: Who::User(Arc::new(LoggedIn {
                name: user.name,
                role: user.role,
                ticket,
                buckets,
            })),
        }
    }

    /// Whether he may do what a route asks for. A stream is not of a session, which may end meanwhile.
    pub(crate) fn may(&self, need: Need) -> bool {
        let is_user = matches!(self.who, Who::User(_));
        self.role.may(need) && !(is_user && need == Need::Follow)
    }

    /// Whether a service is one of those that he may know of.
    pub(crate) fn sees(&self, service: &str) -> bool {
        self.services.include(service)
    }

    /// # Errors
    /// 404 for a service that he may not know of.
    pub(crate) fn must_see(&self, service: &Service) -> Result<(), Problem> {
        if self.sees(service.as_str()) {
            return Ok(());
        }
        Err(not_there())
    }

    /// Whether he may know of all services, also of those that come.
    pub(crate) fn sees_all(&self) -> bool {
        *self.services == Services::All
    }

    /// His name, where it is known and not only said.
    pub(crate) fn author(&self) -> Option<Author> {
        let name = match &self.who {
            Who::Nobody | Who::Local => return None,
            Who::Key(key) => format!("key {} ({})", key.stored.id, key.stored.name),
            Who::User(user) => format!("user {}", user.name),
        };
        Some(Author {
            name,
            is_verified: true,
        })
    }
}

/// As if there was no such service.
pub(crate) fn not_there() -> Problem {
    Problem::new(StatusCode::NOT_FOUND)
        .detail("there is no such thing, or not for this key: it is for certain services alone")
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let known = parts.extensions.get::<Self>().cloned();
        // What did not pass the guard comes from nobody.
        Ok(known.unwrap_or_else(Self::nobody))
    }
}
