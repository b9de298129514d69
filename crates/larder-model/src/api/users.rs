//! Users of the dashboard.

use serde::{Deserialize, Serialize};

/// What a user may do, of the services that he is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum UserRole {
    /// To look.
    Viewer,
    /// To look, and to change policies and overrides.
    Operator,
    /// All that; one of all services also makes keys and users.
    Admin,
}

impl UserRole {
    /// As it is written: `viewer`, `operator`, `admin`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// The role that is written so.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let all = [Self::Viewer, Self::Operator, Self::Admin];
        all.into_iter().find(|role| role.as_str() == name)
    }
}

/// A user, without his password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct User {
    /// What he is called by.
    pub name: String,
    /// What he may do.
    pub role: UserRole,
    /// The services that he is for; `*`: all.
    pub services: Vec<String>,
    /// When he was made, in seconds since 1970.
    pub made_at_seconds: u64,
}

/// All users.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UserList {
    /// By name.
    pub users: Vec<User>,
}

/// A user that is to be made. Has no `Debug`, for the password's sake.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewUser {
    /// What he is called by: 1 to 64 of `A-Z a-z 0-9 . _ - @`, the first a letter or digit.
    #[cfg_attr(
        feature = "openapi",
        schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")
    )]
    pub name: String,
    /// What he may do.
    pub role: UserRole,
    /// The services that he is for; `*`: all.
    pub services: Vec<String>,
    /// 12 characters to 1,024 bytes.
    #[cfg_attr(feature = "openapi", schema(min_length = 12, max_length = 1_024))]
    pub password: String,
    /// Why, for the audit trail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What is to be another of a user: what is left out stays. His sessions end.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UserChange {
    /// What he may do; comes with `services`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<UserRole>,
    /// The services that he is for; comes with `role`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<String>>,
    /// 12 characters to 1,024 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Why, for the audit trail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
