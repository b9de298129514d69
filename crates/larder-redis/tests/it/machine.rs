//! Any operations on a real server, one after the other, against a simple model.

use std::sync::Arc;
use std::time::Duration;

use larder_core::Store;
use larder_redis::{Options, RedisStore, RedisUrl};
use larder_testing::machine;
use larder_testing::redis::RedisServer;

#[test]
fn two_handles_answer_what_a_simple_model_says() {
    let server = RedisServer::start();
    let url = RedisUrl::parse(&server.url()).unwrap();
    // What a store says is asked, not how fast it is on a busy machine.
    let deadline = Duration::from_secs(5);
    machine::run(256, file!(), || {
        [(); 2].map(|()| {
            let options = Options {
                deadline,
                ..Options::default()
            };
            Arc::new(RedisStore::connect(url.clone(), options)) as Arc<dyn Store>
        })
    });
}
