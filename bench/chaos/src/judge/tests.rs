//! What the judge says of a few events.

use super::*;

const BOUNDS: Bounds = Bounds {
    store: 0,
    near: 100,
    fill: millis(200),
    adoption: None,
};

fn event(what: What, subject: u32, times: [Nanos; 3]) -> Event {
    let [begin, end, load_begin] = times;
    Event {
        what,
        subject,
        begin,
        end,
        load_begin,
        made: load_begin,
    }
}

fn witness(worker: usize, has_l1: bool, events: Vec<Event>) -> Witness {
    Witness {
        worker,
        has_l1,
        events,
        killed: None,
        stops: Vec::new(),
    }
}

fn violations(witnesses: &[Witness]) -> usize {
    judge(witnesses, BOUNDS, &[]).violations.len()
}

#[test]
fn an_old_value_after_a_delete_is_one_whoever_reads_it() {
    let deleted = event(What::Deleted, 0, [1_000, 1_010, 0]);
    let old = |begin| event(What::Hit, 0, [begin, begin + 1, 999]);
    let new = event(What::Hit, 0, [5_000, 5_001, 1_000]);
    let own = |read| violations(&[witness(0, true, vec![deleted, read])]);
    assert_eq!((own(old(1_011)), own(old(1_005)), own(new)), (1, 0, 0));
    let other = |has_l1, read| {
        violations(&[
            witness(0, true, vec![deleted]),
            witness(1, has_l1, vec![read]),
        ])
    };
    assert_eq!((other(false, old(1_011)), other(false, new)), (1, 0));
    assert_eq!((other(true, old(1_011)), other(true, old(1_111))), (0, 1));
    let of_another_key = event(What::Hit, 1, [5_000, 5_001, 999]);
    assert_eq!(other(true, of_another_key), 0);
}

#[test]
fn what_a_reader_had_no_processor_for_is_not_held_against_it() {
    let deleted = event(What::Deleted, 0, [1_000, 1_010, 0]);
    let judged = |stall: [Nanos; 2], read: Nanos| {
        let stalled = event(What::Stalled, 0, [stall[0], stall[1], 0]);
        let old = event(What::Hit, 0, [read, read + 1, 999]);
        violations(&[
            witness(0, true, vec![deleted]),
            witness(1, true, vec![stalled, old]),
        ])
    };
    // The wait is until 1,110 without a stall.
    assert_eq!(
        (judged([900, 1_005], 1_111), judged([1_120, 1_200], 1_111)),
        (1, 1)
    );
    assert_eq!(
        (judged([900, 1_060], 1_160), judged([900, 1_060], 1_161)),
        (0, 1)
    );
    let long = millis(3_000);
    assert_eq!(judged([1_050, long], 1_010 + LONGEST_STALL), 0);
    assert_eq!(
        judged([1_050, long], 1_011 + LONGEST_STALL),
        1,
        "longer than a reader may be stopped"
    );
}

#[test]
fn what_was_set_counts_until_something_is_said_after_it() {
    let set = event(What::Stored, 0, [1_000, 1_010, 0]);
    let read = event(What::Set, 0, [5_000, 5_001, 1_000]);
    let judged = |deleted: [Nanos; 2], set: Event| {
        let deleted = event(What::Deleted, 0, [deleted[0], deleted[1], 0]);
        violations(&[
            witness(0, false, vec![set, deleted]),
            witness(1, false, vec![read]),
        ])
    };
    assert_eq!(judged([1_011, 1_020], set), 1);
    assert_eq!(judged([1_005, 1_020], set), 0, "under way");
    assert_eq!(judged([1_011, 5_000], set), 0, "not over before the read");
    let of_another = event(What::Stored, 0, [999, 1_010, 0]);
    assert_eq!(judged([1_011, 1_020], of_another), 0, "not known");
}

#[test]
fn what_is_pending_binds_the_process_and_its_heir_alone() {
    let pending = event(What::DeletePending, 0, [1_000, 1_010, 0]);
    let old = event(What::Hit, 0, [2_000, 2_001, 999]);
    let started = |at| event(What::Started, 0, [at - 1, at, 0]);
    let first = || witness(0, false, vec![started(1), pending]);
    let heir = |worker, at| witness(worker, false, vec![started(at), old]);
    assert_eq!(violations(&[first(), heir(0, 1_500)]), 1);
    assert_eq!(violations(&[first(), heir(1, 1_500)]), 0);
    assert_eq!(violations(&[witness(0, false, vec![pending, old])]), 1);
}

#[test]
fn what_a_killed_process_left_binds_all_once_it_may_have_been_adopted() {
    let pending = event(What::DeletePending, 0, [1_000, 1_010, 0]);
    let judged = |killed, begin| {
        let old = event(What::Hit, 0, [begin, begin + 1, 999]);
        let left = Witness {
            killed,
            ..witness(0, false, vec![pending])
        };
        let bounds = Bounds {
            adoption: Some(500),
            ..BOUNDS
        };
        let all = [left, witness(1, false, vec![old])];
        judge(&all, bounds, &[]).violations.len()
    };
    assert_eq!(
        (judged(Some(2_000), 2_501), judged(Some(2_000), 2_500)),
        (1, 0)
    );
    assert_eq!(judged(None, 9_000), 0);
}

#[test]
fn what_a_reader_sees_late_is_counted_from_when_it_goes_on() {
    let deleted = event(What::Deleted, 0, [1_000, 1_010, 0]);
    let read = |begin, load_begin| event(What::Hit, 0, [begin, begin + 1, load_begin]);
    let stopped = Witness {
        stops: vec![(900, 5_000)],
        ..witness(
            0,
            true,
            vec![read(5_001, 1), read(5_007, 1), read(5_009, 2_000)],
        )
    };
    let verdict = judge(&[stopped, witness(1, false, vec![deleted])], BOUNDS, &[]);
    assert_eq!(verdict.stale, [7]);
}

#[test]
fn a_sweep_binds_others_only_when_it_is_through() {
    let done = event(What::ServiceDone, 0, [1_000, 1_010, 0]);
    let swept = event(What::ServiceSwept, 0, [1_000, 3_000, 0]);
    let framed = Kind::Tagged.keys().start as u32;
    let old = |key, begin| event(What::Hit, key, [begin, begin + 1, 999]);
    let other = |read| {
        violations(&[
            witness(0, true, vec![done, swept]),
            witness(1, false, vec![read]),
        ])
    };
    assert_eq!((other(old(0, 2_000)), other(old(0, 3_001))), (0, 1));
    assert_eq!(
        (other(old(framed, 1_100)), other(old(framed, 2_000))),
        (0, 1)
    );
    assert_eq!(
        violations(&[witness(0, true, vec![done, old(0, 1_011)])]),
        1
    );
}

#[test]
fn what_is_over_is_over() {
    let key = Kind::Short.keys().start as u32;
    let read = |begin| vec![event(What::Hit, key, [begin, begin + 1, 0])];
    assert_eq!(violations(&[witness(0, true, read(millis(1_200)))]), 0);
    assert_eq!(violations(&[witness(0, true, read(millis(1_201)))]), 1);
}

#[test]
fn the_least_loads_are_those_between_invalidations() {
    let read = |begin| event(What::Hit, 0, [begin, begin + 1, begin]);
    let deleted = event(What::Deleted, 0, [1_000, 1_010, 0]);
    let events = vec![
        read(1),
        read(2),
        deleted,
        read(1_005),
        read(1_011),
        read(1_012),
    ];
    let verdict = judge(&[witness(0, true, events)], BOUNDS, &[]);
    assert_eq!(verdict.least_loads, 2);
}
