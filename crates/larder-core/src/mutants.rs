//! Guards of the engine that a test build can switch off, one at a time, to show that the tests which try to break the
//! guarantees would notice. In a build without the feature `mutants`, and in any without debug assertions (a release), all of
//! this is `false`, and costs nothing.

/// One step of the engine without which a guarantee breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "mutants"), allow(unreachable_pub))]
pub enum Guard {
    /// A load has the right to fill only if it was known to be granted before the loader was called.
    GrantBeforeLoad,
    /// A lease that ended is never taken again for the same load.
    LostLeaseStaysLost,
    /// A fill compares the lease.
    FillComparesLease,
    /// Who joined a load late shares its value only if it was filled.
    JoinersShareWhatIsFilled,
    /// Nobody joins a load once its fill is on its way. Off, the moment is made longer as well.
    FlightClosesBeforeFill,
    /// A `set` ends the lease of a load.
    SetEndsLease,
    /// An entry whose versions differ is dead.
    StampsAreCompared,
    /// An entry of another life of the server is dead.
    IncarnationIsCompared,
    /// Plain entries of another life of the server are hidden, and swept: by its store.
    #[cfg_attr(not(feature = "mutants"), allow(dead_code))]
    OtherLivesHide,
    /// Invalidations run whatever the policy says.
    OffStillInvalidates,
    /// What is pending is hidden.
    TombstonesHide,
    /// Plain entries are hidden while they are swept.
    SweepsHide,
    /// So is one whose read was sent before a sweep ended. Off, reads take longer as well.
    SweptReadsHide,
    /// Who joined a load late shares its value only if what it depends on is as it was.
    JoinersNeedVersions,
    /// A hit of the L1 needs its proofs.
    NearNeedsProof,
    /// A version is used again only while its proof holds.
    VersionNeedsProof,
    /// The age of a framed entry counts.
    AgeCounts,
}

#[cfg(feature = "mutants")]
impl Guard {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::GrantBeforeLoad,
        Self::LostLeaseStaysLost,
        Self::FillComparesLease,
        Self::JoinersShareWhatIsFilled,
        Self::FlightClosesBeforeFill,
        Self::SetEndsLease,
        Self::StampsAreCompared,
        Self::IncarnationIsCompared,
        Self::OtherLivesHide,
        Self::OffStillInvalidates,
        Self::TombstonesHide,
        Self::SweepsHide,
        Self::SweptReadsHide,
        Self::JoinersNeedVersions,
        Self::NearNeedsProof,
        Self::VersionNeedsProof,
        Self::AgeCounts,
    ];
}

/// Whether a guard was switched off, in a build that can.
#[cfg(all(feature = "mutants", debug_assertions))]
pub fn is_off(guard: Guard) -> bool {
    switch::is_off(guard)
}

/// Never: this build has all guards.
#[cfg(not(all(feature = "mutants", debug_assertions)))]
#[inline(always)]
#[cfg_attr(not(feature = "mutants"), allow(unreachable_pub))]
pub const fn is_off(_guard: Guard) -> bool {
    false
}

/// Switches a guard off for the rest of this process. Answers whether this build can.
#[cfg(feature = "mutants")]
pub fn turn_off(guard: Guard) -> bool {
    switch::turn_off(guard);
    cfg!(debug_assertions)
}

#[cfg(feature = "mutants")]
mod switch {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::Guard;

    static OFF: AtomicU32 = AtomicU32::new(0);

    #[cfg(debug_assertions)]
    pub(super) fn is_off(guard: Guard) -> bool {
        OFF.load(Ordering::Relaxed) & (1 << guard as u32) != 0
    }

    pub(super) fn turn_off(guard: Guard) {
        OFF.fetch_or(1 << guard as u32, Ordering::Relaxed);
    }
}
