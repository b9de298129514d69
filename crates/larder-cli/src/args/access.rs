//! Who may do what at the control plane.

use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use larder::Service;
use larder::api::{ALL_SERVICES, KeyRole, UserRole};

#[derive(Subcommand)]
pub(crate) enum KeyAction {
    /// Make a key, and print its secret, which nothing can show again
    Create(KeyCreate),

    /// List all keys, without their secrets
    List {
        #[command(flatten)]
        place: Where,
    },

    /// Revoke a key: it ends within seconds, also for streams that are open
    Revoke {
        /// Its id, as `larder key list` shows it
        id: String,

        /// Why, for the audit trail
        #[arg(long)]
        reason: Option<String>,

        #[command(flatten)]
        place: Where,
    },
}

/// Where it is done.
#[derive(ClapArgs, Clone, Copy)]
pub(crate) struct Where {
    /// Over the API of the control plane in CONTROL_PLANE_URL, and not in the database
    #[arg(long)]
    pub(crate) remote: bool,
}

#[derive(ClapArgs)]
pub(crate) struct KeyCreate {
    /// What it may be used for
    #[arg(long)]
    role: Role,

    #[command(flatten)]
    services: Of,

    /// What it is for, in words
    #[arg(long)]
    pub(crate) name: String,

    /// How long it holds: 90s, 10m, 2h, 90d; without it until it is revoked
    #[arg(long = "for", value_name = "TIME", value_parser = crate::explain::span)]
    pub(crate) time: Option<u64>,

    /// Why, for the audit trail
    #[arg(long)]
    pub(crate) reason: Option<String>,

    #[command(flatten)]
    pub(crate) place: Where,
}

#[derive(Clone, Copy, ValueEnum)]
enum Role {
    /// What a service needs: its policies, and to report
    Report,
    /// To look
    Read,
    /// To look and to change; for all services also to make keys
    Admin,
}

impl KeyCreate {
    pub(crate) fn role(&self) -> KeyRole {
        match self.role {
            Role::Report => KeyRole::Report,
            Role::Read => KeyRole::Read,
            Role::Admin => KeyRole::Admin,
        }
    }

    pub(crate) fn services(&self) -> Vec<String> {
        self.services.names()
    }
}

/// The services that somebody is for.
#[derive(ClapArgs)]
struct Of {
    /// A service that this is for; may be said several times
    #[arg(long = "service", required_unless_present = "all_services")]
    services: Vec<Service>,

    /// It is for all services, also those that come later
    #[arg(long, conflicts_with = "services")]
    all_services: bool,
}

impl Of {
    fn names(&self) -> Vec<String> {
        if self.all_services {
            return vec![ALL_SERVICES.to_owned()];
        }
        self.services.iter().map(Service::to_string).collect()
    }
}

#[derive(Subcommand)]
pub(crate) enum UserAction {
    /// Make a user
    Create(UserOf),

    /// List all users
    List {
        #[command(flatten)]
        place: Where,
    },

    /// Give a user another role, for other services; his sessions end
    Role(UserOf),

    /// Give a user another password; his sessions end
    Password {
        /// His name
        name: String,

        #[command(flatten)]
        place: Where,
    },

    /// Remove a user; his sessions end
    Remove {
        /// His name
        name: String,

        /// Why, for the audit trail
        #[arg(long)]
        reason: Option<String>,

        #[command(flatten)]
        place: Where,
    },
}

#[derive(ClapArgs)]
pub(crate) struct UserOf {
    /// His name: A-Z a-z 0-9 . _ - @
    pub(crate) name: String,

    /// What he may do
    #[arg(long)]
    role: RoleOfUser,

    #[command(flatten)]
    services: Of,

    /// Why, for the audit trail
    #[arg(long)]
    pub(crate) reason: Option<String>,

    #[command(flatten)]
    pub(crate) place: Where,
}

#[derive(Clone, Copy, ValueEnum)]
enum RoleOfUser {
    /// To look
    Viewer,
    /// To look, and to change policies and overrides
    Operator,
    /// All that; for all services also keys and users
    Admin,
}

impl UserOf {
    pub(crate) fn role(&self) -> UserRole {
        match self.role {
            RoleOfUser::Viewer => UserRole::Viewer,
            RoleOfUser::Operator => UserRole::Operator,
            RoleOfUser::Admin => UserRole::Admin,
        }
    }

    pub(crate) fn services(&self) -> Vec<String> {
        self.services.names()
    }
}
