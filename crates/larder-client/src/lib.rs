//! The client of Larder's control plane: policies in, measured windows out.
//!
//! ```no_run
//! use larder_client::{Client, ClientSettings};
//! use larder_core::{Policy, Service};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::start(ClientSettings {
//!     url: "http://127.0.0.1:8000".into(),
//!     key: None,
//!     authorities: None,
//!     service: Service::new("product-service")?,
//!     state_dir: Some(".larder".into()),
//!     defaults: Policy::default(),
//!     store_id: 0,
//! })?;
//! // … hand it to a cache as its governor …
//! client.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! What holds:
//!
//! - asking for a policy takes no lock and does no I/O;
//! - a change is acted on as soon as the control plane's stream tells of it; where that can't be had, the control plane is
//!   asked, and a change acted on within 5 s. A stream that was lost is noticed by its silence, and opened again;
//! - with the control plane away the last policies hold, also across a restart (they lie in
//!   `{state_dir}/policies/{service}.json`); before there were any, the service's own defaults do;
//! - an answer with anything in it that can't be is parked whole: the policies in force stay, and
//!   [`Client::status`] and the control plane say why, and it is not asked for again;
//! - what the control plane tells to invalidate is done in the cache ([`Client::invalidate_in`]), in order, until the store has
//!   confirmed it; after a time without the stream what was missed is done, or everything of the service is invalidated;
//! - the control plane is told which version is in force here, since when, and over what it came;
//! - whatever the control plane says, answers to methods other than GET and HEAD are not cached;
//! - of endpoints that the control plane watches (`auto`, `shadow`) it is recorded which keys are asked for, by hash,
//!   and by hash what the origin answers; of others only counts are;
//! - what was measured is sent every 5 s, never on a request's path; what can't be sent is kept within a bound, and
//!   the oldest of it dropped and counted.

mod announce;
mod client;
mod events;
mod fetch;
mod follow;
mod intake;
mod invalidations;
mod known_good;
mod policies;
mod poll;
mod recorder;
mod reopening;
mod report;
mod stream;
mod watch;

pub use client::{Client, ClientSettings, StartError, Status};
pub use fetch::{
    AuthoritiesError, ControlKeyError, UrlError, control_authorities, control_authorization,
};
pub use policies::InForce;
