//! Larder's store on Redis and Valkey: one server, the master that Sentinels name, or a Cluster.
//!
//! ```no_run
//! use larder_redis::{Options, RedisStore, RedisUrl};
//!
//! # async fn example() -> Result<(), larder_redis::UrlError> {
//! let url = RedisUrl::parse("redis://127.0.0.1:6379/0")?;
//! let store = RedisStore::connect(url, Options::default()); // at once, also with the server down
//! # Ok(())
//! # }
//! ```
//!
//! - Entries are plain JSON under `cache:…`, written by `SETEX`: any client reads them, `TTL` shows what is left.
//! - One connection to each server, shared by all tasks, speaks RESP3. What it is told in between (pushes) is seen by the task that
//!   reads the replies.
//! - Leases are tokens beside the entries, compared by the scripts that fill; a lease counts only over the connection on which it was
//!   granted.
//! - After a restart or a failover nothing that was taken before is read, unless [`Options::after_failover`] says so: the server
//!   may have lost deletes. Framed entries say in which life of the server they were taken; plain ones are swept.
//! - Reads come with proofs, which end with what the server tells of changes, and with its silence.
//! - What is sent together is answered, or given up, within [`Options::deadline`]. So is an operation, but for these: a service's
//!   first waits up to one more until it is known what is swept; many keys go in parts with a deadline each (500 keys, 8 MiB), of
//!   which none is begun behind one that failed; over Sentinels, an invalidation or a `set` waits up to one more until most of them
//!   have confirmed the master. A clear or a scan has a deadline for each of its steps. After [`Options::failures`] in a row, operations fail in microseconds,
//!   while probes look for the server; it is used again as soon as one gets an answer.
//! - What the server may send is bounded, whatever it says; a reply that nobody asked for ends the connection.

mod breaker;
mod changes;
mod clock;
mod cluster;
mod command;
mod connection;
mod deadline;
mod lease;
mod life;
mod lives;
mod look;
mod node;
mod note;
mod options;
mod probe;
mod read;
mod resp;
mod scripts;
mod sentinel;
mod servers;
mod store;
mod stream;
mod survey;
mod sweep;
mod tls;
mod tracking;
mod url;
mod version;
mod walk;
mod write;

pub use options::{AfterFailover, Options};
pub use store::RedisStore;
pub use survey::{Access, Product, Sample, Survey};
pub use tls::{Tls, TlsError, read_certificates, read_key};
pub use url::{RedisUrl, UrlError};
