//! What a sweep removes, when, and what it leaves: plain entries of another life of their server, and nothing else.

use larder_core::{Store as _, Ttl};
use larder_testing::redis::{RedisServer, wait_until};

use crate::{connect_patiently, key};

/// What a replica took from its master may have been deleted there since; also where it does not know any more that it was
/// one: it was told of all keys one by one, was promoted, and had no replica for a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_has_forgotten_its_master_is_swept() {
    let master = RedisServer::start_with(&["--repl-diskless-sync-delay", "0"]);
    let (port, taken) = (master.port().to_string(), key("/a"));
    let arguments = ["--replicaof", "127.0.0.1", &port, "--repl-backlog-ttl", "1"];
    let server = RedisServer::start_with(&arguments);
    tokio::task::block_in_place(|| {
        wait_until("the replica is in step", || server.is_in_sync());
        master.cli(&["SET", taken.as_str(), "1", "EX", "60"]);
        wait_until("it has the key", || server.cli(&["DBSIZE"]) == "1");
        assert_eq!(server.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
        let tells = |section: &str, what: &str| server.cli(&["INFO", section]).contains(what);
        wait_until("it has forgotten its master", || {
            tells("replication", "repl_backlog_active:0")
                && tells("replication", &format!("master_replid2:{:040}", 0))
        });
        assert!(tells("persistence", "rdb_last_load_keys_loaded:0"));
    });
    let store = connect_patiently(&server.url());
    assert_eq!(store.get(&taken, Ttl::MAX).await, Ok(None));
    tokio::task::block_in_place(|| {
        wait_until("it is swept", || {
            server.cli(&["EXISTS", taken.as_str()]) == "0"
        });
    });
}
