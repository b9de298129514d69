use stateright::{Checker as _, HasDiscoveries};

use super::*;

/// Each far enough in its own way: more calls, a version that is forgotten, a failover with two loads, a failover with two calls.
const BOUNDS: [Bounds; 4] = [
    bounds([3, 2, 0, 0]),
    bounds([2, 2, 0, 1]),
    bounds([1, 2, 1, 0]),
    bounds([2, 1, 1, 1]),
];

/// What takes half a minute more: `./scripts/soak` goes so far.
const FURTHER: [Bounds; 2] = [bounds([2, 2, 1, 0]), bounds([1, 2, 1, 1])];

const fn bounds([calls, loads, failovers, evicted_versions]: [u8; 4]) -> Bounds {
    Bounds {
        calls,
        loads,
        failovers,
        evicted_versions,
    }
}

fn without(guard: Option<Guard>, bounds: Bounds) -> impl stateright::Checker<Fills> {
    let model = Fills {
        guards: Guards { without: guard },
        bounds,
    };
    let checker = model.checker().threads(2);
    checker
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join()
}

fn nothing_breaks(bounds: Bounds) {
    let checker = without(None, bounds);
    let states = checker.unique_state_count();
    eprintln!(
        "{bounds:?}: {states} states, {} steps deep",
        checker.max_depth()
    );
    checker.assert_properties();
    assert!(checker.is_done() && states > 10_000);
}

#[test]
fn nothing_breaks_in_any_order_of_steps() {
    BOUNDS.into_iter().for_each(nothing_breaks);
    if std::env::var_os("LARDER_SOAK").is_some() {
        FURTHER.into_iter().for_each(nothing_breaks);
    }
}

#[test]
fn each_guard_is_needed() {
    for guard in Guard::ALL {
        let checker = without(Some(guard), bounds([2, 2, 1, 1]));
        let found = checker.discoveries().into_iter().next();
        let (property, path) = found.unwrap_or_else(|| panic!("{guard:?} is not needed"));
        let path = path.into_actions();
        eprintln!("without {guard:?}, {property} breaks: {path:?}");
    }
}
