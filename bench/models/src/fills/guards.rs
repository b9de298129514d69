//! Steps without which a promise breaks: switched off one at a time, to show that the model notices.

/// A step of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guard {
    /// A load has the right to fill only if it was known to be granted before the loader was called (H1).
    GrantBeforeLoad,
    /// A lease is extended by compare, and one that ended is never taken again for the same load (H1b).
    LostLeaseStaysLost,
    /// A fill compares the lease.
    FillComparesLease,
    /// A fill compares the entry with what was there when the lease was granted (H4b).
    FillComparesEntry,
    /// A fill goes only to the life of the server that granted the lease (H6).
    FillInTheSameLife,
    /// A delete ends the lease of a load.
    DeleteEndsLease,
    /// So does a `set` (H4).
    SetEndsLease,
    /// A clear ends leases before it removes entries.
    ClearEndsLeasesFirst,
    /// Who joined a load late shares its value only if it was filled (H3).
    JoinersShareWhatIsFilled,
    /// Nobody joins a load once its fill is on its way.
    FlightClosesBeforeFill,
    /// Who joined a load late shares its value only if its tag's version is as it was.
    JoinersNeedVersions,
    /// An entry carries the versions that there were before its load began.
    StampsBeforeLoad,
    /// An entry whose version differs is dead (H10).
    StampsAreCompared,
    /// An entry of another life of its server is dead (H5).
    EntryOfThisLife,
    /// So is one whose version was told by another life of the version's server (H5).
    StampsCarryLife,
    /// Versions are random, never counted (H2).
    VersionsAreRandom,
}

impl Guard {
    pub(crate) const ALL: [Self; 16] = [
        Self::GrantBeforeLoad,
        Self::LostLeaseStaysLost,
        Self::FillComparesLease,
        Self::FillComparesEntry,
        Self::FillInTheSameLife,
        Self::DeleteEndsLease,
        Self::SetEndsLease,
        Self::ClearEndsLeasesFirst,
        Self::JoinersShareWhatIsFilled,
        Self::FlightClosesBeforeFill,
        Self::JoinersNeedVersions,
        Self::StampsBeforeLoad,
        Self::StampsAreCompared,
        Self::EntryOfThisLife,
        Self::StampsCarryLife,
        Self::VersionsAreRandom,
    ];
}

/// All guards, but perhaps one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Guards {
    pub(crate) without: Option<Guard>,
}

impl Guards {
    pub(crate) fn has(self, guard: Guard) -> bool {
        self.without != Some(guard)
    }
}
