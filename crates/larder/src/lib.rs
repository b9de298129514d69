//! A cache for services: in one process, shared by all processes of a machine, or by all machines; governed while it
//! runs.
//!
//! ```no_run
//! # #[derive(Debug)] struct DbError;
//! # async fn slow_query() -> Result<Vec<String>, DbError> { Ok(vec![]) }
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let cache = larder::Cache::from_env("product-service")?;
//! let key = cache.key("/products")?;
//! let products = cache.get_or_load(&key, || slow_query()).await.map_err(|error| format!("{error:?}"))?;
//! println!("cached: {}, products: {:?}", products.outcome.is_cached(), products.value);
//! # Ok(())
//! # }
//! ```
//!
//! Without any setting, entries lie in the folder `.larder/`, shared by all processes that use it. With `REDIS_URL`
//! set, they lie in Redis or Valkey. [`Settings`] lists what can be set.
//!
//! # The five plain helpers
//!
//! Where a hand-written Redis helper stood:
//!
//! ```no_run
//! use larder::{Cache, DEFAULT_TTL, Pattern, cache_key};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let cache = Cache::from_env("product-service")?;
//! let key = cache_key("product-service", "/products")?;
//! let products: Option<Vec<String>> = cache.get(&key).await;               // a value or nothing, never an error
//! let written = cache.set(&key, &["Laptop"], DEFAULT_TTL).await;           // says whether it was stored
//! let deleted = cache.delete(&key).await;                                  // done, or pending until the store is back
//! let cleared = cache.clear(&Pattern::parse("cache:product-service:*")?).await;
//! println!("{written}, {deleted}, {} cleared", cleared.entries());
//! # Ok(())
//! # }
//! ```

mod cache;
mod dotenv;
mod prometheus;
mod redis_tls;
mod secret_file;
mod settings;
mod store_id;

pub use cache::{
    Builder, Cache, StartError, cache_key, look_at_outbox, look_at_store, open_embedded,
    open_redis, open_store, open_store_within,
};
pub use larder_client::{Client, ControlKeyError, control_authorities, control_authorization};
pub use larder_core::*;
pub use larder_embedded::{EmbeddedStore, OpenError};
pub use larder_http as http;
pub use larder_redis::{Access, AfterFailover, Product, RedisStore, RedisUrl, Sample, Survey};
pub use prometheus::{PROMETHEUS, prometheus};
pub use settings::{ChosenStore, JournalSetting, Origin, Setting, Settings, SettingsError};
pub use store_id::store_id;

/// How long an entry is fresh if nothing else is said: 300 seconds.
pub const DEFAULT_TTL: std::time::Duration = std::time::Duration::from_secs(300);
