//! Proofs: by what a value that was read can be known to be still so, without asking the store again.

use smallvec::SmallVec;

/// Taken before a read was sent, handed out with its answer, and shown to [`crate::Store::holds`] at each use. It holds as
/// long as the store knows that what was read has not changed since: that no invalidation came, that the link over which one
/// would come is alive, and that the server is the one that was asked.
///
/// What the numbers mean is the store's own affair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// Where changes of this key are counted. Keys share places: a proof may end although its key did not change.
    pub place: u32,
    /// Whose count it is: of which server, folder, connection.
    pub source: u32,
    /// What was counted there.
    pub count: u64,
    /// The life of the source.
    pub epoch: u64,
}

/// Those of the versions that an entry depends on: of its service, its endpoint by path and by template, and a tag most often.
pub(crate) type Proofs = SmallVec<[Proof; 4]>;
