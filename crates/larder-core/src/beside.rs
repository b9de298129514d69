//! What stands beside an entry, for those who look: nothing is made, taken or ended by that.

use std::time::Duration;

use crate::version::Version;

/// What stands beside an entry: see [`crate::Store::beside`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Beside {
    /// How long the lease of a load that is under way holds, unless it is extended; `None` if there is none.
    pub lease: Option<Duration>,
    /// The versions that were asked for, in their order; `None` for one that is not there.
    pub versions: Vec<Option<Version>>,
}
