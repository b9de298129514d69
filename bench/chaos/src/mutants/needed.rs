//! Where each guard is needed: a scenario in which all goes wrong without it, and over which store.

use larder_core::mutants::Guard;

use crate::scene::StoreKind;

/// The scenario, and the store.
pub(super) fn needed(guard: Guard) -> (&'static str, StoreKind) {
    use StoreKind::{Cluster, Embedded, InProcess, Redis, Sentinel};
    match guard {
        Guard::GrantBeforeLoad => ("late-grant", Redis),
        Guard::LostLeaseStaysLost => ("held-past-lease", Redis),
        Guard::FillComparesLease => ("held-past-lease", Embedded),
        Guard::JoinersShareWhatIsFilled | Guard::DeleteEndsLease => ("join-after-delete", Embedded),
        Guard::FlightClosesBeforeFill => ("join-at-the-end", Embedded),
        Guard::DeleteEndsFlights => ("join-in-outage", Redis),
        Guard::SetEndsLease => ("set-over-load", InProcess),
        Guard::StampsAreCompared
        | Guard::StaleNeedsVersions
        | Guard::SweepsHide
        | Guard::ClearEndsLeases
        | Guard::MarksAreCompared
        | Guard::ClearEndsProofs => ("healthy", Embedded),
        Guard::ChangesEndProofs => ("stopped-reader", Embedded),
        Guard::SweptReadsHide
        | Guard::NearNeedsProof
        | Guard::VersionNeedsProof
        | Guard::VersionsAreRandom
        | Guard::PushesEndProofs => ("healthy", Redis),
        Guard::UnknownVersionIsDead => ("version-away", Cluster),
        Guard::JoinersNeedVersions => ("join-after-tag", Embedded),
        Guard::IncarnationIsCompared => ("old-snapshot", Cluster),
        Guard::OtherLivesHide => ("old-snapshot", Redis),
        Guard::OffStillInvalidates => ("policy-off-on", Embedded),
        Guard::TombstonesHide | Guard::AppliedIsConfirmed | Guard::FailedSetHides => {
            ("set-in-outage", Redis)
        }
        Guard::JournalIsKept => ("cut-and-killed", Redis),
        Guard::JournalIsAdopted => ("adopted", Redis),
        Guard::LivingAreHeeded => ("container", Embedded),
        Guard::AgeCounts => ("expiry", Embedded),
        Guard::FillExpectsEntry => ("outside-set", Redis),
        Guard::FillIsBound => ("lease-comes-back", Redis),
        Guard::TrustEnds => ("stopped-reader", Redis),
        Guard::RoleIsWatched => ("named-anew", Redis),
        Guard::MajorityTrusts => ("partition", Sentinel),
        Guard::MajorityConfirms => ("unconfirmed", Sentinel),
        Guard::ClearFollowsMoves => ("clear-under-moves", Cluster),
        Guard::ExchangeIsNoticed => ("folder-removed", Embedded),
        Guard::NamespacesAreToldApart => ("other-clocks", Embedded),
    }
}

/// Its name in words, as it is given on the command line.
pub(super) fn name(guard: Guard) -> String {
    let mut name = String::new();
    for letter in format!("{guard:?}").chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenarios;

    #[test]
    fn each_guard_has_a_scenario_and_a_name_of_its_own() {
        let all = scenarios::all();
        for guard in Guard::ALL {
            let (scenario, store) = needed(*guard);
            let is_it =
                |one: &scenarios::Scenario| one.name == scenario && one.stores.contains(&store);
            assert!(all.iter().any(is_it), "{scenario} over {}", store.name());
        }
        assert_eq!(name(Guard::SetEndsLease), "set-ends-lease");
    }
}
