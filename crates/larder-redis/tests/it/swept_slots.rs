//! What moves from a node that is not swept yet to one that has nothing to be swept goes with the rest.

use std::time::Duration;

use larder_core::{Key, Store as _, Ttl};
use larder_redis::Options;
use larder_testing::redis::{RedisCluster, wait_until};

use crate::connect_with;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moves_before_the_sweep_is_swept_where_it_is_then() {
    // What a node has told a replica is counted, so that the first one has a past; the second shall have none.
    let quiet = ["--repl-ping-replica-period", "3600"];
    let cluster = RedisCluster::start_with(2, &quiet);
    let of_first = |key: &str| {
        let slot = cluster.slots_of_keys(std::iter::once(key))[0];
        cluster.slots_of(0).contains(&slot).then_some(slot)
    };
    // The lease of the sweep lies in the first one, too.
    let services = (0..).map(|index| format!("svc-{index}"));
    let mut services =
        services.filter(|service| of_first(&format!("cache:{service}:sweep")).is_some());
    let service = services.next().unwrap();
    let keys = (0..).map(|index| Key::new(&service, &format!("/{index}")).unwrap());
    let mut keys = keys.filter(|key| of_first(key.as_str()).is_some());
    let (key, lease) = (
        keys.next().unwrap(),
        format!("larder:lease:{{cache:{service}:sweep}}"),
    );
    let slot = of_first(key.as_str()).unwrap();
    assert_eq!(cluster.nodes[0].cli(&["SET", key.as_str(), "1"]), "OK");
    // Another process sweeps, and takes its time.
    assert_eq!(cluster.nodes[0].cli(&["SET", &lease, "token"]), "OK");
    let offset = cluster.nodes[1].cli(&["INFO", "replication"]);
    assert!(offset.contains("master_repl_offset:0"), "{offset}");
    let options = Options {
        deadline: Duration::from_secs(1),
        ..Options::default()
    };
    let store = connect_with(&cluster.url(), options);
    assert_eq!(store.get(&key, Ttl::MAX).await, Ok(None));
    tokio::task::block_in_place(|| {
        assert_eq!(cluster.mover(0, 1).move_slot(slot), 1);
        let has = || cluster.nodes[1].cli(&["EXISTS", key.as_str()]);
        assert_eq!(has(), "1");
        // That one has ended.
        assert_eq!(cluster.nodes[0].cli(&["DEL", &lease]), "1");
        wait_until("it is swept where it is", || has() == "0");
    });
}
