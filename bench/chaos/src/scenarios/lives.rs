//! What a server or a process leaves behind it: leases that outlive a delete, versions that are gone, a name that is another
//! server's, a journal that nobody comes back for.

use larder_testing::redis::wait_until;

use super::orders::key_of;
use super::{Allows, CLUSTER, REDIS, Scenario};
use crate::keys::{self, Kind, TAGS};
use crate::orders::Order;
use crate::scene::{Scene, Servers};
use crate::stage::{MASTERS, Stage};

pub(super) fn all() -> Vec<Scenario> {
    let one = |name, about, allows, run| Scenario {
        name,
        about,
        stores: REDIS,
        allows,
        stage: Stage::Plain,
        run,
    };
    vec![
        one(
            "lease-comes-back",
            "a lease is saved, its key deleted, and the server starts from what was saved: the lease is there again, and its load ends (H6)",
            Allows::Push,
            lease_comes_back,
        ),
        one(
            "lost-version",
            "the server evicts versions between a load and the invalidation of its tag (H2)",
            Allows::Push,
            lost_version,
        ),
        Scenario {
            stores: CLUSTER,
            ..one(
                "version-away",
                "the master that has a tag's version is stopped, after that was invalidated (H10)",
                Allows::Push,
                version_away,
            )
        },
        Scenario {
            stage: Stage::Named,
            ..one(
                "named-anew",
                "the server's name becomes its replica's; the old master is a replica of nobody, and goes on answering who is connected (H20)",
                Allows::Loss,
                named_anew,
            )
        },
        Scenario {
            stage: Stage::Proxied,
            ..one(
                "set-in-outage",
                "a process sets while its link is cut, and reads when it is mended (H4, C3)",
                Allows::Outage,
                set_in_outage,
            )
        },
        Scenario {
            stage: Stage::Proxied,
            ..one(
                "adopted",
                "a process whose link is cut is killed with what is pending, and does not come back (H27)",
                Allows::Adoption,
                adopted,
            )
        },
    ]
}

fn lease_comes_back(scene: &mut Scene) -> anyhow::Result<()> {
    while scene.has_time(1_500) {
        let key = key_of(scene.faults, Kind::Plain);
        scene.crew.insist(1, &Order::Delete { key })?;
        let load = scene.crew.tell(0, Order::Look { key, load_ms: 900 })?;
        scene.pause(100);
        scene.redis()?.cli(&["SAVE"]);
        scene.crew.insist(1, &Order::Delete { key })?;
        let redis = scene.redis()?;
        redis.kill();
        redis.restart();
        scene.is_over();
        scene.crew.wait(load)?;
        scene.crew.ask_all(&Order::Peek { key, for_ms: 100 })?;
    }
    Ok(())
}

fn lost_version(scene: &mut Scene) -> anyhow::Result<()> {
    while scene.has_time(400) {
        let key = key_of(scene.faults, Kind::Lasting);
        scene.crew.insist(1, &Order::Delete { key })?;
        scene.crew.ask(0, Order::Look { key, load_ms: 1 })?;
        let evict = "for _, key in ipairs(redis.call('KEYS', 'larder:ver:*')) do redis.call('DEL', key) end";
        scene.redis()?.cli(&["EVAL", evict, "0"]);
        let by = scene.random.below(scene.crew.len());
        scene.crew.insist(by, &Order::Tag { tag: key % TAGS })?;
        scene.is_over();
        scene.crew.ask_all(&Order::Peek { key, for_ms: 80 })?;
    }
    Ok(())
}

fn version_away(scene: &mut Scene) -> anyhow::Result<()> {
    while scene.has_time(1_500) {
        let (key, master) = apart(scene)?;
        scene.crew.insist(1, &Order::Delete { key })?;
        scene.crew.ask(0, Order::Look { key, load_ms: 1 })?;
        scene.crew.insist(1, &Order::Tag { tag: key % TAGS })?;
        // The push has come.
        scene.pause(100);
        scene.cluster()?.nodes[master].pause();
        let peek = scene.crew.tell(0, Order::Peek { key, for_ms: 300 });
        let seen = peek.and_then(|peek| scene.crew.wait(peek));
        // Not for as long as its replica would wait before it takes over.
        scene.cluster()?.nodes[master].resume();
        seen?;
        scene.is_over();
        scene.pause(600);
    }
    Ok(())
}

/// A key with a tag whose version another master has, and which one that is.
fn apart(scene: &mut Scene) -> anyhow::Result<(usize, usize)> {
    let round = scene.faults;
    let cluster = scene.cluster()?;
    for further in 0..keys::EACH as u64 {
        let key = key_of(round + further, Kind::Lasting);
        let entry = keys::entry_of(key);
        let version = format!("larder:ver:{}/tag:tag-{}", keys::SERVICE, key % TAGS);
        let slots = cluster.slots_of_keys([&*entry, &*version].into_iter());
        let owner = |slot| (0..MASTERS).find(|master| cluster.slots_of(*master).contains(slot));
        if let [Some(of_entry), Some(of_version)] = [owner(&slots[0]), owner(&slots[1])]
            && of_entry != of_version
        {
            return Ok((key, of_version));
        }
    }
    anyhow::bail!("all keys have their versions with them")
}

/// One: a second one would need what the first one took.
fn named_anew(scene: &mut Scene) -> anyhow::Result<()> {
    let keys = || Kind::Plain.keys();
    for worker in [0, 2] {
        for key in keys().chain(keys()) {
            scene.crew.ask(worker, Order::Look { key, load_ms: 0 })?;
        }
    }
    let Servers::Pair([old, new]) = &scene.servers else {
        anyhow::bail!("this is for a server with a replica");
    };
    wait_until("the replica has all data", || new.is_in_sync());
    new.cli(&["REPLICAOF", "NO", "ONE"]);
    for proxy in scene.proxies() {
        proxy.lead_to(new.port());
    }
    // Nobody listens there: it hears nothing of what its successor is told.
    old.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    scene.crew.kill(1)?;
    scene.crew.start(1)?;
    for key in keys() {
        scene.crew.insist(1, &Order::Delete { key })?;
    }
    scene.is_over();
    let mut peeks = Vec::new();
    for worker in [0, 2] {
        for key in keys() {
            let peek = Order::Peek { key, for_ms: 3_400 };
            peeks.push(scene.crew.tell(worker, peek)?);
        }
    }
    peeks
        .into_iter()
        .try_for_each(|peek| scene.crew.wait(peek).map(drop))
}

fn set_in_outage(scene: &mut Scene) -> anyhow::Result<()> {
    let keys = || Kind::Plain.keys();
    let last = scene.crew.len() - 1;
    while scene.has_time(3_500) {
        for key in keys().chain(keys()) {
            scene.crew.ask(last, Order::Look { key, load_ms: 0 })?;
        }
        scene.proxy()?.cut();
        // The first may come late; those behind it are not sent.
        for key in keys() {
            scene.crew.ask(last, Order::Set { key })?;
        }
        let peeks = keys().map(|key| scene.crew.tell(last, Order::Peek { key, for_ms: 1_500 }));
        let peeks = peeks.collect::<anyhow::Result<Vec<_>>>()?;
        scene.proxy()?.mend();
        scene.is_over();
        for peek in peeks {
            scene.crew.wait(peek)?;
        }
    }
    Ok(())
}

/// Nothing but these steps: whoever else deleted the same keys would do the dead one's work.
fn adopted(scene: &mut Scene) -> anyhow::Result<()> {
    let keys = || Kind::Plain.keys().chain(Kind::Lasting.keys());
    let last = scene.crew.len() - 1;
    for worker in 0..last {
        for key in keys().chain(keys()) {
            scene.crew.ask(worker, Order::Look { key, load_ms: 0 })?;
        }
    }
    scene.proxy()?.cut();
    for key in keys() {
        scene.crew.ask(last, Order::Delete { key })?;
    }
    scene.crew.kill(last)?;
    scene.proxy()?.mend();
    scene.is_over();
    scene.pause(8_100);
    for key in keys() {
        scene.crew.ask_all(&Order::Peek { key, for_ms: 5 })?;
    }
    Ok(())
}
