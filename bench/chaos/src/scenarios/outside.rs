//! Programs that are not Larder's, and change what it has in Redis.

use super::orders::key_of;
use super::{Allows, REDIS, Scenario};
use crate::event::What;
use crate::instant::now;
use crate::keys::{self, Kind};
use crate::orders::{Mix, Order};
use crate::scene::Scene;
use crate::stage::Stage;
use crate::watched::Value;

pub(super) fn all() -> Vec<Scenario> {
    let one = |name, about, run| Scenario {
        name,
        about,
        stores: REDIS,
        allows: Allows::Push,
        stage: Stage::Plain,
        run,
    };
    vec![
        one(
            "outside",
            "another program deletes and sets keys (redis-cli), as chance wants (H4b)",
            outside,
        ),
        one(
            "outside-set",
            "another program sets a key while it is loaded (H4b)",
            outside_set,
        ),
    ]
}

fn outside(scene: &mut Scene) -> anyhow::Result<()> {
    scene.mix(Mix::default())?;
    while scene.has_time(300) {
        scene.pause_between(1, 30);
        let key = scene.random.below(keys::EACH);
        match scene.random.below(3) {
            0 => set(scene, key)?,
            _ => delete(scene, key)?,
        }
        scene.is_over();
    }
    scene.pause(200);
    Ok(())
}

fn outside_set(scene: &mut Scene) -> anyhow::Result<()> {
    while scene.has_time(300) {
        let key = key_of(scene.faults, Kind::Plain);
        scene.crew.insist(1, &Order::Delete { key })?;
        let load = scene.crew.tell(0, Order::Look { key, load_ms: 90 })?;
        scene.pause(40);
        set(scene, key)?;
        scene.crew.wait(load)?;
        scene.crew.ask_all(&Order::Peek { key, for_ms: 20 })?;
        scene.is_over();
    }
    Ok(())
}

fn set(scene: &mut Scene, key: usize) -> anyhow::Result<()> {
    let begin = now();
    let value = serde_json::to_string(&Value::said(key, begin))?;
    let seconds = Kind::of(key).ttl().as_secs().to_string();
    let said = scene
        .redis()?
        .cli(&["SETEX", &keys::entry_of(key), &seconds, &value]);
    anyhow::ensure!(said == "OK", "{said}");
    scene.note_outside(What::Stored, key, begin);
    Ok(())
}

/// A key that has no entry at that moment is told to nobody: then nothing is promised.
fn delete(scene: &mut Scene, key: usize) -> anyhow::Result<()> {
    let begin = now();
    if scene.redis()?.cli(&["DEL", &keys::entry_of(key)]) == "1" {
        scene.note_outside(What::Deleted, key, begin);
    }
    Ok(())
}
