//! The hunt: for each guard the scenarios in which it is needed.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use larder_core::mutants::Guard;

use crate::rounds::{Run, round};
use crate::scenarios;
use crate::scene::StoreKind;

/// A round of a hunt.
const LENGTH: Duration = Duration::from_secs(5);
/// So many rounds, each with another seed, until a guard counts as not needed.
const ROUNDS: u64 = 8;

/// Where a guard is needed: the scenario, and the store.
fn needed(guard: Guard) -> (&'static str, StoreKind) {
    match guard {
        Guard::GrantBeforeLoad => ("late-grant", StoreKind::Redis),
        Guard::LostLeaseStaysLost => ("held-past-lease", StoreKind::Redis),
        Guard::FillComparesLease => ("held-past-lease", StoreKind::Embedded),
        Guard::JoinersShareWhatIsFilled => ("join-after-delete", StoreKind::Embedded),
        Guard::FlightClosesBeforeFill => ("join-at-the-end", StoreKind::Embedded),
        Guard::SetEndsLease => ("set-over-load", StoreKind::InProcess),
        Guard::StampsAreCompared | Guard::SweepsHide => ("healthy", StoreKind::Embedded),
        Guard::JoinersNeedVersions => ("join-after-tag", StoreKind::Embedded),
        Guard::IncarnationIsCompared => ("old-snapshot", StoreKind::Cluster),
        Guard::OtherLivesHide => ("old-snapshot", StoreKind::Redis),
        Guard::OffStillInvalidates => ("policy-off-on", StoreKind::Embedded),
        Guard::TombstonesHide => ("cut-link", StoreKind::Redis),
        Guard::SweptReadsHide | Guard::NearNeedsProof | Guard::VersionNeedsProof => {
            ("healthy", StoreKind::Redis)
        }
        Guard::AgeCounts => ("expiry", StoreKind::Embedded),
    }
}

fn name(guard: Guard) -> &'static str {
    match guard {
        Guard::GrantBeforeLoad => "grant-before-load",
        Guard::LostLeaseStaysLost => "lost-lease-stays-lost",
        Guard::FillComparesLease => "fill-compares-lease",
        Guard::JoinersShareWhatIsFilled => "joiners-share-what-is-filled",
        Guard::FlightClosesBeforeFill => "flight-closes-before-fill",
        Guard::SetEndsLease => "set-ends-lease",
        Guard::StampsAreCompared => "stamps-are-compared",
        Guard::IncarnationIsCompared => "incarnation-is-compared",
        Guard::OtherLivesHide => "other-lives-hide",
        Guard::OffStillInvalidates => "off-still-invalidates",
        Guard::TombstonesHide => "tombstones-hide",
        Guard::SweepsHide => "sweeps-hide",
        Guard::SweptReadsHide => "swept-reads-hide",
        Guard::JoinersNeedVersions => "joiners-need-versions",
        Guard::NearNeedsProof => "near-needs-proof",
        Guard::VersionNeedsProof => "version-needs-proof",
        Guard::AgeCounts => "age-counts",
    }
}

pub(crate) fn turn_off(guard: &str) -> anyhow::Result<()> {
    let guard = Guard::ALL.into_iter().find(|one| name(*one) == guard);
    let guard = guard.context("there is no such guard: see --list")?;
    anyhow::ensure!(
        larder_core::mutants::turn_off(guard),
        "guards can't be switched off in a release build: build without --release"
    );
    Ok(())
}

pub(crate) fn list() {
    println!("\nguards, and where each is needed:");
    for guard in Guard::ALL {
        let (scenario, store) = needed(guard);
        println!("{:30} {scenario} [{}]", name(guard), store.name());
    }
}

/// Switches each guard off in turn; fails where nobody notices.
pub(crate) fn hunt(run: &Run, only: &str) -> anyhow::Result<ExitCode> {
    let all = scenarios::all();
    let mut missed = 0;
    println!("| guard off | scenario | store | violations | after |");
    println!("| --- | --- | --- | ---: | ---: |");
    for guard in Guard::ALL {
        let (scenario, store) = needed(guard);
        if !run.stores.contains(&store) || !name(guard).contains(only) {
            continue;
        }
        let found = all
            .iter()
            .find(|one| one.name == scenario && one.stores.contains(&store));
        let found = found.context("there is no such scenario")?;
        let begin = Instant::now();
        let mut violations = 0;
        for number in 0..ROUNDS {
            let seed = run.seed.wrapping_add(number);
            let (_, verdict) = round(found, store, (LENGTH, seed), Some(name(guard)))
                .with_context(|| format!("without {}", name(guard)))?;
            violations += verdict.violations.len();
            if violations > 0 {
                break;
            }
        }
        missed += usize::from(violations == 0);
        let seconds = begin.elapsed().as_secs_f64();
        let (guard, store) = (name(guard), store.name());
        println!("| {guard} | {scenario} | {store} | {violations} | {seconds:.1} s |");
    }
    Ok(match missed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}
