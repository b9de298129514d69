//! What every part of Larder agrees on, without I/O and without a clock.
//!
//! - [`Key`]: where an entry lies, `cache:{service}:{path}[?{query}][#{variant}]`;
//! - [`Pattern`]: which entries of one service are meant;
//! - [`Endpoint`]: a method and a route template, and [`Templates`], which finds the most specific one for a path;
//! - [`Policy`]: whether to cache, and for how long; [`PolicyPatch`] sets some of its fields;
//! - [`Tag`]: a name that entries can be invalidated by;
//! - [`Outcome`] and [`Reason`]: what a lookup did, and why;
//! - [`Window`]: what was measured of an endpoint in a stretch of time;
//! - [`api`]: the documents that the control plane and its clients exchange;
//! - [`Secret`] and [`escape`]: what may not be shown, and what may not be shown as it is.

pub mod api;
mod cut;
mod endpoint;
mod escape;
mod evidence;
mod key;
mod names;
mod outcome;
mod pattern;
mod percent;
mod policy;
mod secret;
mod service;
mod tag;
mod variant;
mod window;

pub use endpoint::{Endpoint, EndpointError, Method, Templates};
pub use escape::escape;
pub use evidence::{Checked, Evidence, KeyUse, MAX_RECORDS, OriginAnswer, PER_SECOND};
pub use key::{Key, KeyError, MAX_ENDPOINT_BYTES, MAX_KEY_BYTES, Parts};
pub use outcome::{Outcome, Reason};
pub use pattern::{MAX_PATTERN_BYTES, Pattern, PatternError};
pub use policy::{
    MAX_DURATION, MAX_VALUE_BYTES, Mode, Policy, PolicyError, PolicyPatch, QueryRule,
};
pub use secret::Secret;
pub use service::Service;
pub use tag::{MAX_TAG_BYTES, Tag, TagError};
pub use variant::{KeySecret, Variant};
pub use window::Window;
