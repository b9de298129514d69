//! A store that was connected outside of a runtime, which it needs, says so at once.

use std::time::{Duration, Instant};

use larder_core::{Store as _, Ttl};
use larder_redis::{Options, RedisStore, RedisUrl};

use crate::key;

#[test]
fn without_a_runtime_nothing_is_waited_for() {
    let options = Options {
        deadline: Duration::from_secs(20),
        ..Options::default()
    };
    let store = RedisStore::connect(RedisUrl::parse("redis://127.0.0.1:9").unwrap(), options);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let begin = Instant::now();
    let error = runtime
        .block_on(store.get(&key("/a"), Ttl::MAX))
        .unwrap_err();
    assert!(error.to_string().contains("no Tokio runtime"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(10));
}
