//! The contract that every store passes.

use std::sync::Arc;

use larder_core::Store;

use crate::another::Another;
use crate::support::{Place, options};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_store_keeps_the_contract() {
    let place = Place::new();
    larder_testing::contract::run(|| async { Arc::new(place.open(options())) as Arc<dyn Store> })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_keeps_the_contract_over_one_store_too() {
    let place = Place::new();
    let keep_open = place.open(options());
    larder_testing::contract::run(|| async { Arc::new(place.open(options())) as Arc<dyn Store> })
        .await;
    drop(keep_open);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_store_keeps_the_contract_of_leases() {
    let place = Place::new();
    larder_testing::contract::run_leases(|| async {
        Arc::new(place.open(options())) as Arc<dyn Store>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_handles_of_a_process_keep_the_contract_of_proofs() {
    let place = Place::new();
    let (one, other) = (place.open(options()), place.open(options()));
    larder_testing::contract::run_proofs(Arc::new(one), Arc::new(other)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_keep_the_contract_of_proofs() {
    let place = Place::new();
    let store = place.open(options());
    let another = Another::start(&place);
    larder_testing::contract::run_proofs(Arc::new(store), another).await;
}

#[test]
fn two_handles_answer_what_a_simple_model_says() {
    let place = Place::new();
    larder_testing::machine::run(256, file!(), || {
        [(); 2].map(|()| Arc::new(place.open(options())) as _)
    });
}
