//! Who is to load may find that another load has filled meanwhile. Those who joined get what it found, in their own form.

use larder_core::Cache;
use larder_testing::slow::Slow;

use crate::{Failed, key, until};

async fn get_or_load(cache: &Cache, value: &'static str) -> String {
    let loader = move || async move { Ok::<_, Failed>(value.to_owned()) };
    let answer = cache.get_or_load(&key("/products"), loader).await;
    answer.unwrap().value
}

#[tokio::test]
async fn a_batch_that_joined_gets_what_the_pilot_found() {
    let slow = Slow::new();
    let cache = slow.cache();

    // Two read that there is nothing, and are held up; meanwhile a third loads and fills.
    slow.reads.hold_next();
    let pilot = tokio::spawn({
        let cache = cache.clone();
        async move { get_or_load(&cache, "loaded by the pilot").await }
    });
    slow.reads.holds(1).await;
    slow.reads.hold_next();
    let batch = tokio::spawn({
        let cache = cache.clone();
        async move {
            let loader =
                |_| async { Err::<std::collections::HashMap<_, String>, _>(Failed("called")) };
            let answers = cache.get_or_load_many(&[key("/products")], loader).await;
            answers.unwrap().remove(0).value
        }
    });
    slow.reads.holds(2).await;
    assert_eq!(get_or_load(&cache, "there").await, "there");

    // The first is to load: it reads again, and is held up. The second joins it.
    slow.reads.hold_next();
    slow.reads.let_go();
    slow.reads.holds(3).await;
    slow.reads.let_go();
    until("the batch has joined", || cache.counts().joined == 1).await;
    slow.reads.let_go();
    assert_eq!(pilot.await.unwrap(), "there");
    assert_eq!(batch.await.unwrap().as_deref(), Some("there"));
}
