//! Fixed orders of steps: those that break naive caches.

use super::{Allows, EVERYWHERE, REDIS, SHARED, Scenario};
use crate::keys::Kind;
use crate::orders::{Mix, Order};
use crate::scene::Scene;
use crate::stage::Stage;

pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "late-grant",
            about: "the server stops between the request of a lease and its grant; another process deletes (H1)",
            stores: REDIS,
            allows: Allows::Outage,
            stage: Stage::Plain,
            run: late_grant,
        },
        Scenario {
            name: "held-past-lease",
            about: "a process is stopped in a load, past its lease; another deletes; it goes on (H1b)",
            stores: SHARED,
            allows: Allows::Silence,
            stage: Stage::Plain,
            run: held_past_lease,
        },
        Scenario {
            name: "join-after-delete",
            about: "a lookup joins a load that another process's delete, or its own, came after (H3)",
            stores: SHARED,
            allows: Allows::Push,
            stage: Stage::Plain,
            run: join_after_delete,
        },
        Scenario {
            name: "join-after-tag",
            about: "the same with a tag, an endpoint and the service in place of the key",
            stores: SHARED,
            allows: Allows::Push,
            stage: Stage::Plain,
            run: join_after_tag,
        },
        Scenario {
            name: "join-at-the-end",
            about: "lookups come at the moment in which a load ends, after a delete by another process",
            stores: SHARED,
            allows: Allows::Push,
            stage: Stage::Plain,
            run: join_at_the_end,
        },
        Scenario {
            name: "join-in-outage",
            about: "the server is away; a process deletes while it loads, and lookups of its own come after that (H3)",
            stores: REDIS,
            allows: Allows::Outage,
            stage: Stage::Plain,
            run: join_in_outage,
        },
        Scenario {
            name: "set-over-load",
            about: "a set comes while the key is loaded (H4)",
            stores: EVERYWHERE,
            allows: Allows::Push,
            stage: Stage::Plain,
            run: set_over_load,
        },
        Scenario {
            name: "policy-off-on",
            about: "policies are switched off and on, and invalidations come in between (H9)",
            stores: EVERYWHERE,
            allows: Allows::Push,
            stage: Stage::Plain,
            run: policy_off_on,
        },
    ]
}

/// The keys in turn, so that no round has what one before left.
pub(super) fn key_of(round: u64, kind: Kind) -> usize {
    let keys = kind.keys();
    keys.start + round as usize % keys.len()
}

fn late_grant(scene: &mut Scene) -> anyhow::Result<()> {
    while scene.has_time(2_000) {
        let key = key_of(scene.faults, Kind::Plain);
        scene.crew.insist(1, &Order::Delete { key })?;
        scene.redis()?.pause();
        let load = scene.crew.tell(0, Order::Look { key, load_ms: 700 })?;
        scene.pause_between(150, 250);
        scene.redis()?.resume();
        scene.is_over();
        scene.crew.insist(1, &Order::Delete { key })?;
        scene.crew.wait(load)?;
        scene.crew.ask_all(&Order::Peek { key, for_ms: 60 })?;
    }
    Ok(())
}

fn held_past_lease(scene: &mut Scene) -> anyhow::Result<()> {
    while scene.has_time(4_500) {
        let key = key_of(scene.faults, Kind::Plain);
        scene.crew.insist(1, &Order::Delete { key })?;
        let load = scene.crew.tell(0, Order::Look { key, load_ms: 400 })?;
        scene.pause(150);
        scene.crew.stop(0)?;
        scene.pause(2_300);
        scene.crew.insist(
            1,
            &Order::Clear {
                kind: Kind::Plain as usize,
            },
        )?;
        if scene.random.below(2) == 0 {
            scene.crew.ask(1, Order::Look { key, load_ms: 1 })?;
        }
        scene.crew.go_on(0)?;
        scene.is_over();
        scene.crew.wait(load)?;
        scene.crew.ask_all(&Order::Peek { key, for_ms: 60 })?;
    }
    Ok(())
}

fn join_after_delete(scene: &mut Scene) -> anyhow::Result<()> {
    while scene.has_time(600) {
        let key = match scene.random.below(2) {
            0 => key_of(scene.faults, Kind::Plain),
            _ => key_of(scene.faults, Kind::Tagged),
        };
        scene.crew.insist(1, &Order::Delete { key })?;
        let load = scene.crew.tell(0, Order::Look { key, load_ms: 120 })?;
        scene.pause(40);
        let by = scene.random.below(2);
        scene.crew.insist(by, &Order::Delete { key })?;
        let joined = scene.crew.tell(0, Order::Look { key, load_ms: 20 })?;
        scene.crew.wait(load)?;
        scene.crew.wait(joined)?;
        scene.crew.ask_all(&Order::Peek { key, for_ms: 20 })?;
        scene.is_over();
    }
    Ok(())
}

fn join_after_tag(scene: &mut Scene) -> anyhow::Result<()> {
    while scene.has_time(1_200) {
        let key = key_of(scene.faults, Kind::Tagged);
        scene.crew.insist(1, &Order::Delete { key })?;
        let load = scene.crew.tell(0, Order::Look { key, load_ms: 700 })?;
        scene.pause(40);
        let order = match scene.random.below(3) {
            0 => Order::Tag {
                tag: key % crate::keys::TAGS,
            },
            1 => Order::Endpoint {
                kind: Kind::Tagged as usize,
            },
            _ => Order::Service,
        };
        scene.crew.insist(1, &order)?;
        // Past the time within which a version is told.
        scene.pause(350);
        let joined = scene.crew.tell(0, Order::Look { key, load_ms: 20 })?;
        scene.crew.wait(load)?;
        scene.crew.wait(joined)?;
        scene.crew.ask_all(&Order::Peek { key, for_ms: 20 })?;
        scene.is_over();
    }
    Ok(())
}

fn join_at_the_end(scene: &mut Scene) -> anyhow::Result<()> {
    while scene.has_time(300) {
        let key = key_of(scene.faults, Kind::Plain);
        scene.crew.insist(1, &Order::Delete { key })?;
        let load = scene.crew.tell(0, Order::Look { key, load_ms: 30 })?;
        scene.pause(31);
        let mut late = Vec::new();
        for _ in 0..8 {
            scene.crew.insist(1, &Order::Delete { key })?;
            late.push(scene.crew.tell(0, Order::Look { key, load_ms: 2 })?);
        }
        scene.crew.wait(load)?;
        for told in late {
            scene.crew.wait(told)?;
        }
        scene.is_over();
    }
    Ok(())
}

fn join_in_outage(scene: &mut Scene) -> anyhow::Result<()> {
    while scene.has_time(1_500) {
        let key = key_of(scene.faults, Kind::Plain);
        scene.redis()?.kill();
        // It is noticed that there is none.
        scene.crew.ask(0, Order::Look { key, load_ms: 1 })?;
        let load = scene.crew.tell(0, Order::Look { key, load_ms: 300 })?;
        scene.pause(60);
        scene.crew.ask(0, Order::Delete { key })?;
        let joined = scene.crew.tell(0, Order::Look { key, load_ms: 20 })?;
        scene.crew.wait(load)?;
        scene.crew.wait(joined)?;
        scene.redis()?.restart();
        scene.crew.insist(1, &Order::Delete { key })?;
        scene.is_over();
    }
    Ok(())
}

fn set_over_load(scene: &mut Scene) -> anyhow::Result<()> {
    let last = scene.crew.len() - 1;
    while scene.has_time(300) {
        let key = key_of(scene.faults, Kind::Plain);
        scene.crew.insist(last, &Order::Delete { key })?;
        let load = scene.crew.tell(0, Order::Look { key, load_ms: 60 })?;
        scene.pause(20);
        let by = scene.random.below(scene.crew.len());
        scene.crew.insist(by, &Order::Set { key })?;
        scene.crew.wait(load)?;
        scene.crew.ask_all(&Order::Peek { key, for_ms: 20 })?;
        scene.is_over();
    }
    Ok(())
}

fn policy_off_on(scene: &mut Scene) -> anyhow::Result<()> {
    scene.mix(Mix::default())?;
    while scene.has_time(700) {
        scene.pause_between(100, 200);
        let worker = scene.some_worker();
        scene.crew.ask(worker, Order::Switch { is_off: true })?;
        scene.pause_between(100, 200);
        scene.crew.ask(worker, Order::Switch { is_off: false })?;
        scene.is_over();
    }
    Ok(())
}
