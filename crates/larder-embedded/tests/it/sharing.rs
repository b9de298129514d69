//! One folder, several who use it.

use std::time::Duration;

use larder_core::{Store, Ttl};

use crate::support::{Place, Process, entry, get, key, listen, options, role, runtime, say, set};

#[test]
fn processes_see_each_others_entries_and_counts() {
    let place = Place::new();
    let store = place.open(options());
    set(&store, &key("/ours"), "1");
    let mut child = Process::start("sharing::child", "share", &place.folder);
    child.expect("1");
    assert_eq!(get(&store, &key("/theirs")).unwrap(), "2");
    let hits = || {
        runtime()
            .block_on(async { store.stats().await })
            .unwrap()
            .hits
            .unwrap()
    };
    let before = hits();
    child.tell("read");
    child.expect("1");
    assert_eq!(hits(), before + 1, "a hit of another process is seen");
    child.tell("end");
    assert!(child.wait().success());
}

#[test]
fn child() {
    let Some(folder) = role("share") else { return };
    let store = larder_embedded::EmbeddedStore::open(&folder, options()).unwrap();
    set(&store, &key("/theirs"), "2");
    loop {
        let found = get(&store, &key("/ours")).unwrap();
        say(std::str::from_utf8(&found).unwrap());
        if listen() == "end" {
            return;
        }
    }
}

#[test]
fn a_command_line_comes_and_goes_while_a_service_writes() {
    let place = Place::new();
    let mut service = Process::start("sharing::service", "write", &place.folder);
    service.expect("0");
    let mut last = 0;
    for _ in 0..30 {
        let store = place.open(options());
        let found = get(&store, &key("/count")).unwrap();
        let count: u32 = std::str::from_utf8(&found).unwrap().parse().unwrap();
        assert!(count >= last);
        last = count;
        set(&store, &key("/mine"), "x");
    }
    service.tell("end");
    assert!(service.wait().success());
    assert!(get(&place.open(options()), &key("/mine")).is_some());
}

#[test]
fn service() {
    let Some(folder) = role("write") else { return };
    let store = larder_embedded::EmbeddedStore::open(&folder, options()).unwrap();
    set(&store, &key("/count"), "0");
    say("0");
    let stop = std::thread::spawn(listen);
    let mut count = 0;
    while !stop.is_finished() {
        count += 1;
        set(&store, &key("/count"), format!("{count}"));
    }
}

#[test]
fn a_process_opens_a_folder_twice_however_it_is_spelt() {
    let place = Place::new();
    let first = place.open(options());
    let linked = place.folder.parent().unwrap().join("link");
    std::os::unix::fs::symlink(place.folder.parent().unwrap(), &linked).unwrap();
    for path in [place.folder.join("../store"), linked.join("store")] {
        let second = larder_embedded::EmbeddedStore::open(&path, options()).unwrap();
        set(&second, &key("/a"), "x");
        assert_eq!(get(&first, &key("/a")).unwrap(), "x");
        drop(second);
        set(&first, &key("/a"), "y");
    }
}

#[test]
fn it_is_opened_again_while_it_is_being_closed() {
    let place = Place::new();
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let folder = place.folder.clone();
            std::thread::spawn(move || {
                for round in 0..15 {
                    let store = larder_embedded::EmbeddedStore::open(&folder, options()).unwrap();
                    set(&store, &key(&format!("/{thread}")), format!("{round}"));
                    drop(store);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let store = place.open(options());
    for thread in 0..4 {
        assert_eq!(get(&store, &key(&format!("/{thread}"))).unwrap(), "14");
    }
}

#[tokio::test]
async fn entries_outlive_the_process_for_their_time_and_no_longer() {
    let place = Place::new();
    let store = place.open(options());
    assert!(
        store
            .set(entry(&key("/short"), "x", 1))
            .await
            .unwrap()
            .is_stored()
    );
    assert!(
        store
            .set(entry(&key("/long"), "x", 300))
            .await
            .unwrap()
            .is_stored()
    );
    store.close().await.unwrap();
    drop(store);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let store = place.open(options());
    assert!(store.get(&key("/short"), Ttl::MAX).await.unwrap().is_none());
    assert!(store.get(&key("/long"), Ttl::MAX).await.unwrap().is_some());
}
