//! What a lookup did, and why.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a lookup did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Outcome {
    /// The value was in the cache.
    Hit,
    /// It was, and past its time: served because it is being loaded anew, or because that failed or takes too long.
    Stale,
    /// It wasn't, and was loaded for this caller, or for this caller and others at once.
    Miss,
    /// The cache was not asked.
    Bypass,
}

impl Outcome {
    /// The word for logs, metrics and the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Miss => "miss",
            Self::Bypass => "bypass",
        }
    }

    /// Whether the value came out of the cache.
    #[must_use]
    pub fn is_cached(self) -> bool {
        matches!(self, Self::Hit | Self::Stale)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a request may be answered from the cache, or may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The policy in force caches the endpoint.
    PolicyOn,
    /// The policy in force does not cache the endpoint.
    PolicyOff,
    /// The method is not safe, so its answer is never cached.
    UnsafeMethod,
    /// The method is safe, but only the answer to a GET is cached.
    NotGet,
    /// The request has a header that asks for another method (`X-HTTP-Method-Override`).
    MethodOverride,
    /// The request has a body, which is not part of the key.
    RequestBody,
    /// The request carries `Authorization`, which the route neither declares `public` nor names in `vary`.
    Authorization,
    /// The request carries `Cookie`, which the route neither declares `public` nor names in `vary`.
    Cookie,
    /// The policy names an identity in `vary`, but there is no secret to hide it in the key.
    NoKeySecret,
    /// The request's path and query can't be a key.
    NoKey,
}

impl Reason {
    /// The word for logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PolicyOn => "policy_on",
            Self::PolicyOff => "policy_off",
            Self::UnsafeMethod => "unsafe_method",
            Self::NotGet => "not_get",
            Self::MethodOverride => "method_override",
            Self::RequestBody => "request_body",
            Self::Authorization => "authorization",
            Self::Cookie => "cookie",
            Self::NoKeySecret => "no_key_secret",
            Self::NoKey => "no_key",
        }
    }
}

impl fmt::Display for Reason {
    /// One sentence.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PolicyOn => "the policy in force caches this endpoint",
            Self::PolicyOff => "the policy in force does not cache this endpoint",
            Self::UnsafeMethod => "the method is not safe, so its answer is never cached",
            Self::NotGet => "only the answer to a GET is cached",
            Self::MethodOverride => "the request has a header that asks for another method",
            Self::RequestBody => "the request has a body, which is not part of the key",
            Self::Authorization => "the request carries Authorization: declare the route public if its answer is the same for all, or name authorization in vary",
            Self::Cookie => "the request carries Cookie: declare the route public if its answer is the same for all, or name cookie in vary",
            Self::NoKeySecret => "the policy names an identity in vary, but there is no secret to hide it in the key: set LARDER_KEY_SECRET",
            Self::NoKey => "the request's path and query can't be a key",
        })
    }
}
