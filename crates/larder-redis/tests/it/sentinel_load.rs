//! What invalidations cost the Sentinels is bounded, however many there are.

use std::time::{Duration, Instant};

use larder_core::Store as _;
use larder_testing::redis::RedisSentinels;

use crate::{connect_patiently, key, until_kept};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_invalidations_few_questions_are_asked() {
    const DELETES: u32 = 300;
    let sentinels = RedisSentinels::start();
    let (store, key) = (connect_patiently(&sentinels.url()), key("/a"));
    until_kept(&store, &key).await;
    let commands = || {
        let stats = sentinels.ask_sentinel(0, &["INFO", "stats"]);
        let all = stats.split("total_commands_processed:").nth(1);
        let all = all.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        all.unwrap()
    };
    let (before, begin) = (commands(), Instant::now());
    for _ in 0..DELETES {
        store.delete(std::slice::from_ref(&key)).await.unwrap();
    }
    let (asked, took) = (commands() - before, begin.elapsed());
    // Two for a question, and what Sentinels ask each other.
    let questions = took.as_millis() / Duration::from_millis(5).as_millis() + 1;
    let others = 50 + took.as_millis() / 10;
    assert!(
        u128::from(asked) < 2 * questions + others,
        "{asked} in {took:?}"
    );
}
