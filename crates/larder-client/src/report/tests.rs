//! What is reported, what is dropped, and what is told of what is dropped.

use larder_core::{KeyUse, MAX_ENDPOINT_BYTES};

use super::*;

fn reporter() -> Reporter {
    Reporter::new(&Service::new("svc").unwrap(), 0).unwrap()
}

fn keys(count: u32) -> Evidence {
    let key = |hash| KeyUse {
        hash,
        requests: 1,
        first: 0,
        last: 0,
        since_before: None,
        is_hot: false,
    };
    Evidence {
        keys: (0..count).map(key).collect(),
        ..Evidence::default()
    }
}

fn erased(hash: u32) -> Evidence {
    Evidence {
        erased: vec![hash],
        ..Evidence::default()
    }
}

fn measured(endpoint: &str, requests: u64, evidence: Evidence) -> Measured {
    let window = Window {
        hits: requests,
        ..Window::default()
    };
    (endpoint.to_owned(), window, Some(evidence))
}

#[test]
fn the_oldest_windows_are_dropped_and_counted() {
    let mut reporter = reporter();
    let mut backlog = Backlog::default();
    for _ in 0..MAX_BACKLOG + 5 {
        backlog.push(
            reporter.report("/a".into(), Window::default()),
            Instant::now(),
        );
    }
    assert_eq!((backlog.waiting.len(), backlog.dropped), (MAX_BACKLOG, 5));
    assert_eq!(backlog.waiting.front().unwrap().report.sequence, 6);
}

#[test]
fn an_endpoint_of_which_only_something_was_invalidated_is_reported() {
    assert!(tells_something(&measured("/a", 0, erased(1))));
    let more = Evidence {
        erased_more: true,
        ..Evidence::default()
    };
    assert!(tells_something(&measured("/a", 0, more)));
    assert!(tells_something(&measured("/a", 1, Evidence::default())));
    assert!(!tells_something(&measured("/a", 0, Evidence::default())));
    assert!(!tells_something(&("/a".into(), Window::default(), None)));
}

#[test]
fn keys_for_which_there_is_no_room_leave_what_was_invalidated_and_get_their_turn() {
    let mut turns = Turns::default();
    let mut told = std::collections::BTreeMap::<String, u32>::new();
    for round in 0..20 {
        let mut all: Vec<_> = (0..30)
            .map(|at| {
                let mut evidence = keys(if at == 0 { 250 } else { 200 });
                evidence.erased = vec![round];
                measured(&format!("/{at}"), 1_000 - at, evidence)
            })
            .collect();
        // One that hardly needs room.
        all.push(measured("/small", 1, keys(3)));
        turns.share_out(&mut all);
        let records = |one: &Measured| one.2.as_ref().unwrap().records();
        assert!(all.iter().map(records).sum::<usize>() <= MAX_RECORDS);
        for one in &all[..30] {
            let evidence = one.2.as_ref().unwrap();
            assert!(
                evidence.erased == [round] || evidence.erased_more,
                "{one:?}"
            );
        }
        for (endpoint, _, evidence) in &all {
            let is_told = !evidence.as_ref().unwrap().keys.is_empty();
            *told.entry(endpoint.clone()).or_default() += u32::from(is_told);
        }
    }
    assert!(told.values().all(|times| *times >= 8), "{told:?}");
}

#[test]
fn what_was_invalidated_is_told_of_old_windows_and_of_those_that_were_dropped() {
    let mut backlog = Backlog::default();
    let mut reporter = reporter();
    let mut push = |backlog: &mut Backlog, endpoint: &str, evidence, ended| {
        let mut report = reporter.report(endpoint.into(), Window::default());
        report.evidence = Some(evidence);
        backlog.push(report, ended);
    };
    let old = Instant::now().checked_sub(2 * KEYS_COUNT).unwrap();
    let mut both = keys(5);
    both.erased = vec![7];
    push(&mut backlog, "/a", both, old);
    push(&mut backlog, "/a", keys(5), old);
    backlog.forget_keys();
    let evidence = |backlog: &Backlog, at: usize| backlog.waiting[at].report.evidence.clone();
    assert_eq!(evidence(&backlog, 0), Some(erased(7)));
    assert_eq!(evidence(&backlog, 1), None);
    backlog.drop_oldest(2);
    push(&mut backlog, "/b", keys(1), old);
    push(&mut backlog, "/a", keys(1), old);
    push(&mut backlog, "/a", keys(1), old);
    let more = |at| evidence(&backlog, at).unwrap().erased_more;
    assert_eq!([more(0), more(1), more(2)], [false, true, false]);
}

/// The control plane takes bodies of at most 1 MiB.
#[test]
fn however_much_waits_no_batch_is_larger_than_what_is_taken() {
    let most = 1_000_000_000;
    let sum = 1.234_567_890_123_456_7e300;
    let window = Window {
        hits: most,
        stales: most,
        misses: most,
        bypasses: most,
        refreshes: most,
        errors: most,
        client_errors: most,
        origin_count: most,
        origin_ms_sum: sum,
        origin_ms_sq_sum: sum,
        origin_ln_sum: -sum,
        origin_ln_sq_sum: sum,
        origin_ms_max: sum,
        hit_ms_sum: sum,
        bytes: u64::MAX,
    };
    let mut reporter = reporter();
    let mut backlog = Backlog::default();
    let paths = [
        "/a".to_owned(),
        format!("OPTIONS /{}", "\"".repeat(MAX_ENDPOINT_BYTES)),
    ];
    for at in 0..2_000_usize {
        let path = &paths[usize::from(at % 500 < 20)];
        let mut report = reporter.report(path.clone(), window);
        report.evidence = (at % 3 == 0).then(|| keys(if at < 1_000 { 256 } else { 1 }));
        (report.length_ms, report.store_id) = (u64::MAX, u32::MAX);
        report.store_failed = true;
        backlog.push(report, Instant::now());
    }
    let (mut sent, mut most) = (0, (0, 0));
    while !backlog.waiting.is_empty() {
        let windows = backlog.batch();
        let count = windows.len();
        backlog.delivered(count);
        sent += count;
        let batch = SignalBatch {
            signals: Vec::new(),
            windows,
        };
        let bytes = serde_json::to_vec(&batch).unwrap().len();
        most = (most.0.max(count), most.1.max(bytes));
    }
    assert_eq!((sent, most.0), (2_000, BATCH));
    assert!((400_000..1 << 20).contains(&most.1), "{most:?}");
}
