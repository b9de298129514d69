//! Larder for axum.
//!
//! - [`CachingLayer`]: one line per route, and the handler knows what it may cache, under which key; every request is
//!   measured and reported;
//! - [`Caching`]: what a handler knows of its request;
//! - [`Enclosed`]: a cached JSON text inside an answer, uncopied;
//! - [`serve()`]: an accept loop in which nobody can wait for ever;
//! - [`Problem`]: errors as clients see them.

mod caching;
mod enclosed;
mod problem;
pub mod serve;

pub use caching::{
    Caching, CachingFuture, CachingLayer, CachingService, NoCachingLayer, VaryError,
};
pub use enclosed::Enclosed;
pub use problem::Problem;
pub use serve::{Endless, Limits, serve};
#[cfg(feature = "tls")]
pub use serve::{OverTls, rustls, serve_tls};
