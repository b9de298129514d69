//! The contract of a store: what each of them promises in `larder_core::Store`, as checks that each of them passes.
//!
//! Every check works under a service name of its own, so it can run on a server that others use too.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod clears;
mod deletes;
mod leases;
mod lives;
mod proofs;
mod scans;
mod values;
mod versions;
mod whole;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use larder_core::{ClearMode, Guard, Key, NewEntry, Pattern, Store, Stored, Ttl, Written};

/// How long a check polls for what must come true.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs the whole contract; `make` gives a store that works, the same or a new one each time.
///
/// # Panics
/// Where a promise is not kept.
pub async fn run<M, F>(make: M)
where
    M: Fn() -> F,
    F: Future<Output = Arc<dyn Store>>,
{
    values::values_come_back_byte_for_byte(&*make().await).await;
    values::a_set_replaces_what_was_there(&*make().await).await;
    lives::an_entry_ends_with_its_ttl(&*make().await).await;
    lives::a_replaced_entry_has_the_new_ttl(&*make().await).await;
    lives::a_read_cuts_what_lives_too_long(&*make().await).await;
    lives::a_read_that_allows_more_lengthens_nothing(&*make().await).await;
    values::many_are_read_in_their_order(&*make().await).await;
    values::many_are_set_with_an_outcome_each(&*make().await).await;
    deletes::a_delete_counts_what_was_there(&*make().await).await;
    deletes::an_ended_right_fills_nothing(&*make().await).await;
    deletes::no_fill_overtakes_a_delete(make().await).await;
    clears::a_clear_removes_what_its_pattern_means(&*make().await).await;
    clears::a_dry_run_removes_nothing(&*make().await).await;
    clears::patterns_mean_the_keys_that_redis_would(&*make().await).await;
    clears::a_clear_leaves_other_services_alone(&*make().await).await;
    clears::a_large_clear_counts_all(&*make().await).await;
    scans::a_scan_meets_every_entry(&*make().await).await;
    scans::a_scan_meets_all_services(&*make().await).await;
    values::the_longest_keys_and_large_values_are_kept(&*make().await).await;
    whole::many_tasks_work_at_once(make().await).await;
    whole::figures_are_plausible(&*make().await).await;
    whole::it_has_a_name_without_a_secret(&*make().await);
    whole::it_can_be_closed_twice(&*make().await).await;
}

/// Runs what all processes that share a store are promised together: leases and versions.
///
/// # Panics
/// Where a promise is not kept.
pub async fn run_leases<M, F>(make: M)
where
    M: Fn() -> F,
    F: Future<Output = Arc<dyn Store>>,
{
    leases::one_of_all_has_a_lease(make().await).await;
    leases::a_lease_tells_what_is_there(&*make().await).await;
    leases::deletes_clears_and_sets_end_a_lease(&*make().await).await;
    leases::a_dry_run_ends_no_lease(&*make().await).await;
    leases::a_lease_ends_with_its_time_and_is_never_taken_again(&*make().await).await;
    leases::an_extended_lease_outlives_its_first_time(&*make().await).await;
    leases::a_released_lease_is_free(&*make().await).await;
    leases::many_leases_are_asked_for_at_once(&*make().await).await;
    leases::who_waits_is_woken(make().await).await;
    leases::no_leased_fill_overtakes_a_delete(make().await).await;
    leases::who_looks_sees_a_lease_and_makes_no_version(&*make().await).await;
    versions::a_version_stays_until_it_is_renewed(&*make().await).await;
    versions::all_who_ask_first_are_told_the_same(make().await).await;
    versions::a_renewed_version_ends_its_proof(&*make().await).await;
}

/// Runs what those are promised who keep what they read: of two handles on the same store.
///
/// # Panics
/// Where a promise is not kept.
pub async fn run_proofs(one: Arc<dyn Store>, other: Arc<dyn Store>) {
    proofs::a_change_ends_the_proof(&*one).await;
    proofs::anothers_change_ends_the_proof(Arc::clone(&one), other).await;
    proofs::no_proof_holds_for_an_old_value(one).await;
}

/// A service name that no other check has.
pub(crate) fn service(check: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let since_1970 = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id();
    format!(
        "{check}-{process:x}-{:x}-{count:x}",
        since_1970.as_nanos() as u64
    )
}

fn key(service: &str, endpoint: &str) -> Key {
    Key::new(service, endpoint).unwrap()
}

fn ttl(seconds: u64) -> Ttl {
    Ttl::new(Duration::from_secs(seconds)).unwrap()
}

fn entry(key: &Key, bytes: impl Into<Bytes>, ttl: Ttl, guard: Guard) -> NewEntry {
    NewEntry {
        key: key.clone(),
        bytes: bytes.into(),
        ttl,
        guard,
    }
}

async fn set(store: &dyn Store, key: &Key, bytes: impl Into<Bytes>) {
    set_for(store, key, bytes, ttl(300)).await;
}

async fn set_for(store: &dyn Store, key: &Key, bytes: impl Into<Bytes>, ttl: Ttl) {
    let written = store
        .set(entry(key, bytes, ttl, Guard::Always))
        .await
        .unwrap();
    assert_eq!(written, Written::Stored, "set {key}");
}

async fn get(store: &dyn Store, key: &Key) -> Option<Stored> {
    store.get(key, Ttl::MAX).await.unwrap()
}

async fn value(store: &dyn Store, key: &Key) -> Option<Bytes> {
    get(store, key).await.map(|stored| stored.bytes)
}

async fn clear(store: &dyn Store, pattern: &str, mode: ClearMode) -> u64 {
    let pattern = Pattern::parse(pattern).unwrap();
    store.clear(&pattern, mode).await.unwrap().entries
}
