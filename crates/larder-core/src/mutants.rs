//! Guards of the engine and of the stores that a test build can switch off, one at a time, to show that the tests which try
//! to break the guarantees would notice. In a build without the feature `mutants`, and in any without debug assertions (a
//! release), all of this is `false`, and costs nothing.

/// Names all guards, once.
macro_rules! guards {
    ($($(#[doc = $doc:literal])+ $guard:ident,)+) => {
        /// One step without which a guarantee breaks.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Guard {
            $($(#[doc = $doc])+ $guard,)+
        }

        impl Guard {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$guard,)+];
        }
    };
}

guards! {
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
    /// The old value behind a `set` that failed is kept in mind as deleted.
    FailedSetHides,
    /// A `delete` ends the lease of a load.
    DeleteEndsLease,
    /// Nobody joins a load of this process that a `delete` of this process came after.
    DeleteEndsFlights,
    /// A `clear` ends the leases of loads, before it removes entries.
    ClearEndsLeases,
    /// An entry whose versions differ is dead.
    StampsAreCompared,
    /// One whose versions can't be told is, too.
    UnknownVersionIsDead,
    /// An entry whose versions differ is dead, and not stale.
    StaleNeedsVersions,
    /// An entry of another life of the server is dead.
    IncarnationIsCompared,
    /// Plain entries of another life of the server are hidden, and swept: by its store.
    OtherLivesHide,
    /// Invalidations run whatever the policy says.
    OffStillInvalidates,
    /// What is pending is hidden.
    TombstonesHide,
    /// What is pending is done only once the store has confirmed it.
    AppliedIsConfirmed,
    /// What is pending is written down.
    JournalIsKept,
    /// What a dead process left is taken over.
    JournalIsAdopted,
    /// Who starts hides what living processes have pending: they may have adopted it.
    LivingAreHeeded,
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
    /// Redis: a fill compares what lies in the entry's place with what was there when the lease was granted.
    FillExpectsEntry,
    /// Redis: a fill goes out over the connection over which the lease was granted, and no other.
    FillIsBound,
    /// Redis: a version never comes again. Off, there are but four.
    VersionsAreRandom,
    /// Redis: what the server tells to have changed ends proofs.
    PushesEndProofs,
    /// Redis: proofs hold for a time after the server's last word, judged at each hit.
    TrustEnds,
    /// Redis: a server is asked again and again whether it is a master.
    RoleIsWatched,
    /// Sentinel: a master is trusted only while most of them name it.
    MajorityTrusts,
    /// Sentinel: an invalidation is done once most of them name the master that did it.
    MajorityConfirms,
    /// Cluster: a clear begins anew where slots moved under it. Off, it takes longer as well.
    ClearFollowsMoves,
    /// Embedded: what was changed under a read that began before gives no proof. Off, commits take longer as well.
    MarksAreCompared,
    /// Embedded: what a transaction changes ends proofs.
    ChangesEndProofs,
    /// Embedded: a clear ends all proofs.
    ClearEndsProofs,
    /// Embedded: a folder that was removed or exchanged is used no more.
    ExchangeIsNoticed,
    /// Embedded: processes of other PID and time namespaces don't share a folder.
    NamespacesAreToldApart,
}

/// Whether a guard was switched off, in a build that can.
#[cfg(all(feature = "mutants", debug_assertions))]
#[must_use]
pub fn is_off(guard: Guard) -> bool {
    switch::is_off(guard)
}

/// Never: this build has all guards.
#[cfg(not(all(feature = "mutants", debug_assertions)))]
#[inline(always)]
#[must_use]
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
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::Guard;

    // A bit for each.
    const _: () = assert!(Guard::ALL.len() <= 64);
    static OFF: AtomicU64 = AtomicU64::new(0);

    #[cfg(debug_assertions)]
    pub(super) fn is_off(guard: Guard) -> bool {
        OFF.load(Ordering::Relaxed) & (1 << guard as u64) != 0
    }

    pub(super) fn turn_off(guard: Guard) {
        OFF.fetch_or(1 << guard as u64, Ordering::Relaxed);
    }
}
