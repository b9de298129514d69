//! Larder's engine: lookups, single flight, and what a store and a governor are.
//!
//! A [`Cache`] puts a [`Store`] and a [`Governor`] together. The store keeps bytes under keys for a time; the
//! governor says, at every call, whether an endpoint is cached and for how long, and is told what happened.
//!
//! ```
//! use larder_core::{Cache, Key};
//!
//! # #[derive(Debug)] struct Failed;
//! # async fn slow_query() -> Result<Vec<String>, Failed> { Ok(vec!["Laptop".into()]) }
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let cache = Cache::in_process(64 << 20);
//! let key = Key::new("product-service", "/products").unwrap();
//! let first = cache.get_or_load(&key, || slow_query()).await.unwrap();
//! let again = cache.get_or_load(&key, || slow_query()).await.unwrap();
//! assert!(!first.outcome.is_cached() && again.outcome.is_cached());
//! # });
//! ```

mod answer;
mod batch;
mod beside;
mod cache;
mod checked;
mod clock;
mod costs;
mod counters;
mod departure;
mod disabled;
mod explain;
mod flight;
mod form;
mod frame;
mod governor;
mod hold;
mod in_process;
mod invalidate;
mod json;
mod l1;
mod lease;
mod load;
#[doc(hidden)]
pub mod mutants;
mod outbox;
mod plain;
mod private_folder;
mod proof;
mod random;
mod raw;
mod read;
mod request;
mod spans;
mod store;
mod sweeps;
mod sync;
mod target;
mod token;
mod version;
mod versions;

pub use answer::{Answer, LoadError};
pub use beside::Beside;
pub use cache::{Cache, CacheBuilder, L1_BYTES};
pub use clock::{Clock, CoarseClock};
pub use counters::Counts;
pub use disabled::Disabled;
pub use explain::{Entry, EntryForm, Explainer, Explanation, LookedAt, Rule, StampState};
pub use flight::FillRight;
pub use frame::{
    Content, EncodeError, Frame, FrameError, Frames, Freshness, MAX_STAMPS, SealingKeys,
    SealingKeysError, Wrapped, is_framed,
};
pub use governor::{Check, Event, FixedGovernor, Gate, Governor, Named};
pub use in_process::InProcess;
pub use invalidate::{Invalidated, Sweep};
pub use json::{Json, NotJson};
pub use larder_model::*;
pub use lease::{Acquired, Lease, Released};
pub use outbox::{
    Applied, Apply, Invalidation, Kept, Limits as OutboxLimits, Moment, Outbox, OutboxCounts,
    Volatile,
};
pub use private_folder::PrivateFolder;
pub use proof::Proof;
pub use request::RequestScope;
pub use store::{
    ClearMode, Cursor, Deleted, Guard, NewEntry, Page, ScannedEntry, Skip, Store, StoreError,
    StoreFuture, StoreStats, Stored, Ttl, Written,
};
pub use target::{Target, TargetError, WeakCache};
pub use token::{Looked, Token};
pub use version::{ENDPOINT_LANES, Stamp, Told, Version, VersionName};
