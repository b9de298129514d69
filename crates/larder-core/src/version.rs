//! Versions: what many entries depend on together, so that one write invalidates all of them.

use std::fmt;

use larder_model::Tag;

use crate::proof::Proof;

/// How many versions the endpoints of a service share. Paths are without number, versions must not be: two endpoints with the
/// same one are invalidated together, which costs misses and nothing else.
pub const ENDPOINT_LANES: u16 = 4_096;

/// What a version is of; within one service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum VersionName {
    /// All entries of the service.
    Service,
    /// The entries of the endpoints in this lane, below [`ENDPOINT_LANES`].
    Endpoint(u16),
    /// The entries with this tag.
    Tag(Tag),
}

impl VersionName {
    /// The version of an endpoint: a route template, or a path without a query.
    #[must_use]
    pub fn of_endpoint(endpoint: &str) -> Self {
        let hash = blake3::hash(endpoint.as_bytes());
        let [low, high, ..] = *hash.as_bytes();
        Self::Endpoint(u16::from_le_bytes([low, high]) % ENDPOINT_LANES)
    }
}

impl fmt::Display for VersionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service => f.write_str("service"),
            Self::Endpoint(lane) => write!(f, "endpoint:{lane}"),
            Self::Tag(tag) => write!(f, "tag:{tag}"),
        }
    }
}

/// A version as a store has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// Random: never a counter, which a store that lost a write would count to the same number again.
    pub value: u128,
    /// The life of the server that told it: see [`crate::Stored::incarnation`].
    pub incarnation: u64,
}

impl Version {
    /// Whether it is what an entry was stamped with. Where lives are not told apart, they are not compared.
    pub(crate) fn is_still(self, stamped: Self) -> bool {
        self.value == stamped.value && is_of_life(stamped.incarnation, self.incarnation)
    }
}

/// Whether what was taken in one life of a server counts in the present one. 0: one in which nothing is compared.
pub(crate) fn is_of_life(taken: u64, now: u64) -> bool {
    now == 0 || taken == now
}

/// What an entry depends on: a version, as it was before the entry's load began. The entry is dead once it differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// Of what.
    pub name: VersionName,
    /// What it was.
    pub version: Version,
}

/// A version as it was just told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// The version.
    pub version: Version,
    /// By what it can be known to be still so; `None` if it can't.
    pub proof: Option<Proof>,
}
