//! A lookup costs next to nothing.

use std::hint::black_box;
use std::time::Instant;

use larder_core::{Event, Governor as _, Outcome};
use serde_json::json;

use crate::{Control, SOON, client, key, ttl, until};

/// The best of some rounds, in nanoseconds a call: what else runs on the machine only makes rounds slower.
fn measure(mut call: impl FnMut()) -> f64 {
    let calls = 20_000;
    let round = |_| {
        let began = Instant::now();
        (0..calls).for_each(|_| call());
        began.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
    };
    (0..20).map(round).fold(f64::INFINITY, f64::min)
}

#[tokio::test]
async fn gate_policy_and_record_take_less_than_a_few_microseconds_even_unoptimised() {
    let folder = tempfile::tempdir().unwrap();
    let control = Control::start(&folder.path().join("control.db"), 0).await;
    for index in 0..50 {
        control
            .put(
                &format!("/products/:id/part{index}"),
                json!({"ttl_seconds": 9}),
            )
            .await;
    }
    let client = client(control.port, None);
    until(SOON, "known", async || {
        ttl(&client, "/products/7/part49") == 9
    })
    .await;
    let key = key("/products/7/part49");
    let gate = measure(|| {
        black_box(client.gate(black_box(&key)));
    });
    let policy = measure(|| {
        black_box(client.policy(black_box(&key)));
    });
    let record = measure(|| client.record(black_box(&key), Event::of(Outcome::Hit, 100)));
    println!("gate {gate:.0} ns, policy {policy:.0} ns, record {record:.0} ns");
    let most = if cfg!(debug_assertions) {
        5_000.0
    } else {
        1_000.0
    };
    assert!(
        gate < most && policy < most && record < most,
        "{gate} {policy} {record}"
    );
}
