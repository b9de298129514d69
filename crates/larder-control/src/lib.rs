//! Larder's control plane: which endpoints of which services are cached, and for how long; what was measured; what
//! was decided from it.
//!
//! ```no_run
//! use larder_control::{ControlPlane, Settings};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let control = ControlPlane::open(Settings::new("control.db")).await?;
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8000").await?;
//! control.run(listener, std::future::pending()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Policies lie in one SQLite file, or in PostgreSQL, which several control planes may share. What clients ask for is answered from memory; those who follow a service's stream are
//! told of a change at once. Every change is a revision, and an entry of an audit trail that [`verify_audit`] looks over. Once there
//! is an API key or a user ([`Keyring`]) every request needs a key or a log-in; before, it serves on loopback only ([`ControlPlane::check_bind`]). What a web page could
//! send is refused.

mod access;
mod audit;
mod auto;
mod bind;
mod cause;
mod dashboard;
mod database;
mod decision;
mod engines;
mod exchange;
mod expiring;
mod following;
mod gate;
mod hex;
mod instances;
mod invalidations;
mod json;
mod leading;
mod live;
mod measured;
mod metrics;
mod moment;
mod pace;
mod plane;
mod proxies;
mod registry;
mod rollups;
mod routes;
mod shared_store;
mod stored;
mod streams;
mod target;
mod tls;
mod waiting;

pub use access::{Keyring, KeyringError};
pub use audit::{AuditFault, AuditKeyPlace, KeyError, Verified, VerifyError, verify_audit};
pub use bind::BindError;
pub use database::{DatabasePlace, OpenError, PostgresUrl, PostgresUrlError};
pub use gate::HostError;
pub use invalidations::InvalidationLimits;
pub use plane::{ControlPlane, RunError, Settings};
pub use proxies::ProxyError;
pub use shared_store::SharedStore;
pub use streams::StreamLimits;
pub use tls::{TlsError, TlsFiles};
