//! A process that stands still for a moment, as one does whose container has used up its share of the processors: its server
//! answered meanwhile, and is not taken for one that is away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use larder_core::{Store as _, StoreError, Ttl};
use larder_testing::process::{Process, listen, role, say};
use larder_testing::redis::RedisServer;
use larder_testing::stalls::once_of_three;
use rustix::process::Signal;

use crate::{connect, key, store_in};

const STOPS: u32 = 20;
const CALLERS: usize = 32;
const URL: &str = "url";
/// So many may have no answer. A naive client gives up about one in twenty of those that were under way, takes the server for away,
/// and refuses thousands.
const MOST_LATE: u32 = 5;

#[test]
fn asks_in_a_process_of_its_own() {
    let Some(folder) = role("asks") else {
        return;
    };
    let url = std::fs::read_to_string(folder.join(URL)).unwrap();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (store, key) = (connect(&url), key("/a"));
        store_in(&store, &key, "1").await;
        let is_over = Arc::new(AtomicBool::new(false));
        // Those that were answered, late, and refused.
        let counts: Arc<[AtomicU32; 3]> = Arc::default();
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| {
                let (store, key) = (Arc::clone(&store), key.clone());
                let (is_over, counts) = (Arc::clone(&is_over), Arc::clone(&counts));
                tokio::spawn(async move {
                    while !is_over.load(Ordering::SeqCst) {
                        let answer = store.get(&key, Ttl::MAX).await;
                        let count = match answer {
                            Ok(_) => 0,
                            Err(StoreError::TimedOut) => 1,
                            Err(_) => 2,
                        };
                        counts[count].fetch_add(1, Ordering::SeqCst);
                        if count > 0 {
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                    }
                })
            })
            .collect();
        say("asks");
        tokio::task::spawn_blocking(listen).await.unwrap();
        is_over.store(true, Ordering::SeqCst);
        for caller in callers {
            caller.await.unwrap();
        }
        let [answered, late, refused] = [0, 1, 2].map(|at| counts[at].load(Ordering::SeqCst));
        say(&format!("{answered} {late} {refused}"));
    });
}

#[test]
fn what_came_meanwhile_is_taken() {
    // Where the server stood still, too, that is no fault of who asks.
    once_of_three(is_taken);
}

fn is_taken() -> Result<(), String> {
    let server = RedisServer::start();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(URL), server.url()).unwrap();
    let test = "stopped::asks_in_a_process_of_its_own";
    let mut process = Process::start(test, "asks", folder.path());
    process.expect("asks");
    for _ in 0..STOPS {
        process.stop();
        // The deadline is 100 ms.
        std::thread::sleep(Duration::from_millis(150));
        process.signal(Signal::CONT);
        std::thread::sleep(Duration::from_millis(50));
    }
    process.tell("end");
    let said = process.hear().unwrap();
    println!("{CALLERS} callers, stopped {STOPS} times: answered, late, refused: {said}");
    let counts: Vec<u32> = said
        .split(' ')
        .map(|count| count.parse().unwrap())
        .collect();
    // One of each caller at the least was under way at each stop.
    let is_asked = counts[0] > STOPS * CALLERS as u32;
    match is_asked && counts[1] + counts[2] <= MOST_LATE {
        true => Ok(()),
        false => Err(said),
    }
}
