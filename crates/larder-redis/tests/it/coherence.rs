//! A proof ends with what it is of: by whoever changed that, and by whatever keeps the change from being told.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use larder_core::{Key, Proof, Store as _, Ttl};
use larder_redis::RedisStore;
use larder_testing::redis::RedisServer;

use crate::{connect_patiently, entry, key};

const PATIENCE: Duration = Duration::from_secs(10);
/// What a silent server is believed for: 2 s; the rest is for a machine that is busy.
const SILENCE: Duration = Duration::from_millis(2_300);
/// For the end of another's proof. The mark is 5 ms.
const SOON: Duration = Duration::from_millis(50);
/// What a server said longer ago was heard.
const HEARD: Duration = Duration::from_secs(1);

async fn set(store: &RedisStore, key: &Key, value: &str) {
    assert!(store.set(entry(key, value)).await.unwrap().is_stored());
}

/// What is read with a proof that holds, as soon as there is one.
async fn proven(store: &RedisStore, key: &Key) -> Proof {
    let begin = Instant::now();
    loop {
        if let Ok(Some(stored)) = store.get(key, Ttl::MAX).await
            && let Some(proof) = stored.proof.filter(|proof| store.holds(proof))
        {
            assert!(stored.ttl.is_some());
            return proof;
        }
        assert!(begin.elapsed() < PATIENCE, "no read came with a proof");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Waits until the proof has ended; for how long it is known to have held. Who looks late knows of less.
async fn until_ended(store: &RedisStore, proof: &Proof, what: &str) -> Duration {
    let (begin, mut held) = (Instant::now(), Duration::ZERO);
    loop {
        let looked = begin.elapsed();
        if !store.holds(proof) {
            return held;
        }
        held = looked;
        assert!(held < PATIENCE, "{what}: it never ended");
        let changed = store.changed(*proof, Duration::from_millis(50)).await;
        changed.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_clients_change_ends_the_proof() {
    any_client(RedisServer::start()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_clients_change_ends_the_proof_on_valkey() {
    any_client(RedisServer::start_valkey(&[])).await;
}

async fn any_client(server: RedisServer) {
    let (store, key, other) = (connect_patiently(&server.url()), key("/a"), key("/b"));
    let name = key.as_str();
    set(&store, &other, "1").await;
    for change in [
        &["DEL", name][..],
        &["SET", name, "2", "EX", "60"],
        &["PEXPIRE", name, "20"],
        &["EXPIRE", name, "90"],
        &["RENAME", name, "elsewhere"],
        &["EVAL", "redis.call('DEL', KEYS[1])", "1", name],
        &["FLUSHALL"],
    ] {
        set(&store, &key, "1").await;
        let proof = proven(&store, &key).await;
        server.cli(change);
        until_ended(&store, &proof, change[0]).await;
    }
    // What nobody touched holds on, over several beats.
    set(&store, &other, "1").await;
    let proof = proven(&store, &other).await;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(2_500) {
        set(&store, &key, "1").await;
        assert!(store.holds(&proof));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_ends_the_proof() {
    let server = RedisServer::start();
    let (store, key) = (connect_patiently(&server.url()), key("/a"));
    set(&store, &key, "1").await;
    for _ in 0..5 {
        let proof = proven(&store, &key).await;
        server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
        until_ended(&store, &proof, "CLIENT KILL").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_silent_is_believed_for_two_seconds() {
    let server = RedisServer::start();
    let (store, key) = (connect_patiently(&server.url()), key("/a"));
    set(&store, &key, "1").await;
    let proof = proven(&store, &key).await;
    server.pause();
    let took = until_ended(&store, &proof, "SIGSTOP").await;
    server.resume();
    assert!(took < SILENCE, "{took:?}");
}

/// This process may be the one that was stopped: then nothing but the clock has gone on.
#[tokio::test]
async fn who_was_stopped_himself_believes_nothing_from_before() {
    let server = RedisServer::start();
    let (store, key) = (connect_patiently(&server.url()), key("/a"));
    set(&store, &key, "1").await;
    let proof = proven(&store, &key).await;
    assert!(store.holds(&proof));
    // The only thread: no task runs meanwhile, nor before the next look.
    std::thread::sleep(Duration::from_millis(2_100));
    assert!(!store.holds(&proof));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_is_demoted_ends_the_proof() {
    let (server, next) = (RedisServer::start(), RedisServer::start());
    let (store, key) = (connect_patiently(&server.url()), key("/a"));
    set(&store, &key, "1").await;
    let proof = proven(&store, &key).await;
    // It never gets to know what its new master has, so it never says that anything changed.
    next.pause();
    let port = next.port().to_string();
    server.cli(&["REPLICAOF", "127.0.0.1", &port]);
    assert_eq!(server.cli(&["GET", key.as_str()]), "1", "it answers on");
    let took = until_ended(&store, &proof, "REPLICAOF").await;
    next.resume();
    assert!(took < SILENCE, "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_can_remember_few_keys_ends_proofs_early() {
    let server = RedisServer::start_with(&["--tracking-table-max-keys", "10"]);
    let store = connect_patiently(&server.url());
    let keys: Vec<Key> = (0..40).map(|index| key(&format!("/{index}"))).collect();
    let mut proofs = Vec::new();
    for key in &keys {
        set(&store, key, "1").await;
        proofs.push(proven(&store, key).await);
    }
    let begin = Instant::now();
    let held = || proofs.iter().filter(|proof| store.holds(proof)).count();
    while held() > 20 {
        assert!(begin.elapsed() < PATIENCE, "{} proofs hold", held());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for (key, proof) in std::iter::zip(&keys, &proofs) {
        server.cli(&["DEL", key.as_str()]);
        until_ended(&store, proof, key.as_str()).await;
    }
}

/// A network that says `CLIENT TRACKING OFF` in its client's name when it is told to, and keeps the answer to itself.
fn meddler(port: u16) -> (String, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let meddles = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&meddles);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut server = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let (mut back, mut home) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            let (told, swallows) = (Arc::clone(&told), Arc::new(AtomicBool::new(false)));
            let swallowed = Arc::clone(&swallows);
            std::thread::spawn(move || {
                let mut chunk = [0; 65_536];
                while let Ok(count @ 1..) = back.read(&mut chunk) {
                    let mut said = &chunk[..count];
                    if swallowed.load(Ordering::SeqCst) && said.starts_with(b"+OK\r\n") {
                        swallowed.store(false, Ordering::SeqCst);
                        said = &said[5..];
                    }
                    if home.write_all(said).is_err() {
                        break;
                    }
                }
                let _ = home.shutdown(std::net::Shutdown::Both);
            });
            std::thread::spawn(move || {
                let mut chunk = [0; 65_536];
                while let Ok(count @ 1..) = client.read(&mut chunk) {
                    if told.swap(false, Ordering::SeqCst) {
                        swallows.store(true, Ordering::SeqCst);
                        server.write_all(b"CLIENT TRACKING OFF\r\n").unwrap();
                    }
                    if server.write_all(&chunk[..count]).is_err() {
                        break;
                    }
                }
                let _ = server.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    (url, meddles)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_told_to_track_no_more_is_found_out() {
    let server = RedisServer::start();
    let (url, meddles) = meddler(server.port());
    let (store, key, other) = (connect_patiently(&url), key("/a"), key("/b"));
    set(&store, &key, "1").await;
    let proof = proven(&store, &key).await;
    meddles.store(true, Ordering::SeqCst);
    // What goes out next takes it along.
    let _ = store.get(&other, Ttl::MAX).await;
    server.cli(&["DEL", key.as_str()]);
    let took = until_ended(&store, &proof, "CLIENT TRACKING OFF").await;
    assert!(took < SILENCE, "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_right_to_track_reads_come_without_proofs() {
    let server = RedisServer::start();
    let rules = "ACL SETUSER app on >pw ~cache:* ~larder:* +@all -client|tracking";
    server.cli(&rules.split(' ').collect::<Vec<_>>());
    let store = connect_patiently(&format!("redis://app:pw@127.0.0.1:{}", server.port()));
    let key = key("/a");
    set(&store, &key, "1").await;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(1) {
        let stored = store.get(&key, Ttl::MAX).await.unwrap().unwrap();
        assert_eq!((&stored.bytes[..], stored.proof), (&b"1"[..], None));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Prints how long it takes from a delete to the end of another store's proof.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_stores_delete_ends_the_proof_soon() {
    let server = RedisServer::start();
    let (one, other) = (
        connect_patiently(&server.url()),
        connect_patiently(&server.url()),
    );
    let key = key("/a");
    let mut soonest = Duration::MAX;
    // A machine that stands still for a moment has five times to be fast.
    for _ in 0..5 {
        let mut times = Vec::new();
        for _ in 0..500 {
            set(&other, &key, "1").await;
            let proof = proven(&one, &key).await;
            let begin = Instant::now();
            other.delete(std::slice::from_ref(&key)).await.unwrap();
            while one.holds(&proof) {
                assert!(begin.elapsed() < PATIENCE, "it never ended");
                tokio::task::yield_now().await;
            }
            times.push(begin.elapsed());
        }
        times.sort();
        let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
        println!(
            "from the call of delete to the end of another store's proof: p50 {p50:?}, p99 {p99:?}"
        );
        soonest = soonest.min(p99);
        if soonest < SOON {
            return;
        }
    }
    panic!("{soonest:?}");
}

/// Readers keep what they read while its proof holds, and a writer sets without end: soon after its last word nobody has
/// an older one. The writes go in between of a read's being sent and its reply's being handed out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_reader_keeps_an_old_value() {
    const ROUNDS: u32 = 20;
    const KEYS: usize = 100;
    const READERS: usize = 8;
    let server = RedisServer::start();
    let writer = connect_patiently(&server.url());
    let keys: Arc<Vec<Key>> = Arc::new((0..KEYS).map(|index| key(&format!("/{index}"))).collect());
    for key in keys.iter() {
        set(&writer, key, "0").await;
    }
    let reader = connect_patiently(&server.url());
    proven(&reader, &keys[0]).await;
    let (mut old, mut kept) = (0, 0);
    for round in 1..=ROUNDS {
        let is_over = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = (0..READERS)
            .map(|_| {
                let (reader, keys, is_over) = (reader.clone(), keys.clone(), is_over.clone());
                tokio::spawn(async move {
                    let mut kept = vec![None; KEYS];
                    while !is_over.load(Ordering::SeqCst) {
                        for (key, kept) in std::iter::zip(keys.iter(), &mut kept) {
                            let is_known = matches!(kept, Some((_, proof)) if reader.holds(proof));
                            if !is_known {
                                let stored = reader.get(key, Ttl::MAX).await.unwrap().unwrap();
                                *kept = stored.proof.map(|proof| (stored.bytes, proof));
                            }
                        }
                        tokio::task::yield_now().await;
                    }
                    kept
                })
            })
            .collect();
        for value in 0..5 {
            for key in keys.iter() {
                set(&writer, key, &format!("{round}{value}")).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        is_over.store(true, Ordering::SeqCst);
        let last = format!("{round}4");
        for held in readers {
            for (bytes, proof) in held.await.unwrap().into_iter().flatten() {
                kept += u32::from(reader.holds(&proof));
                // What the server has said by then may not have been heard yet, where the machine stood still; what it never says is
                // not heard later either.
                let begin = Instant::now();
                while bytes != last && reader.holds(&proof) && begin.elapsed() < HEARD {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                old += u32::from(bytes != last && reader.holds(&proof));
            }
        }
    }
    assert!(kept > ROUNDS, "{kept}: nothing was kept at all");
    assert_eq!(old, 0, "of {kept}");
}
