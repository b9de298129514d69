//! One line per route: what it may cache, under which key, measured.

mod extract;
mod judge;
mod query;
mod route;

pub use extract::{Caching, NoCachingLayer};
pub use route::{CachingFuture, CachingLayer, CachingService, VaryError};
