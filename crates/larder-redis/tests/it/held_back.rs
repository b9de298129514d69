//! What the network holds back of a connection that was given up is not done late: a write that comes after the delete
//! that followed it would bring an old value back.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use larder_core::{Store as _, StoreError, Ttl};
use larder_testing::redis::RedisServer;

use crate::{connect, entry, key, store_in, until_found};

/// A network between a client and a server, that can hold back what the client says on its first connection.
struct Network {
    url: String,
    holds: Arc<(Mutex<bool>, Condvar)>,
    connections: Arc<AtomicUsize>,
    /// Told when all of the first connection was passed on and the server has ended it.
    over: Receiver<()>,
}

impl Network {
    fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let holds = Arc::new((Mutex::new(false), Condvar::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let (tell, over) = channel();
        let (held, count) = (Arc::clone(&holds), Arc::clone(&connections));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let is_first = count.fetch_add(1, Ordering::SeqCst) == 0;
                let client = client.unwrap();
                let server = TcpStream::connect(("127.0.0.1", port)).unwrap();
                let back = (server.try_clone().unwrap(), client.try_clone().unwrap());
                let tell = tell.clone();
                std::thread::spawn(move || {
                    pass_on(back.0, back.1, || {});
                    if is_first {
                        let _ = tell.send(());
                    }
                });
                let held = Arc::clone(&held);
                std::thread::spawn(move || {
                    pass_on(client, server, || {
                        let (holds, changed) = &*held;
                        let holds = holds.lock().unwrap();
                        drop(
                            changed
                                .wait_while(holds, |holds| *holds && is_first)
                                .unwrap(),
                        );
                    });
                });
            }
        });
        Self {
            url,
            holds,
            connections,
            over,
        }
    }

    fn hold(&self, holds: bool) {
        *self.holds.0.lock().unwrap() = holds;
        self.holds.1.notify_all();
    }
}

/// Passes on what comes, and then that there comes no more.
fn pass_on(mut from: TcpStream, mut to: TcpStream, wait: impl Fn()) {
    let mut chunk = [0; 4_096];
    while let Ok(count) = from.read(&mut chunk) {
        wait();
        if count == 0 || to.write_all(&chunk[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

#[test]
fn a_write_that_is_held_back_bites_a_client_that_only_connects_anew() {
    let server = RedisServer::start();
    let network = Network::before(server.port());
    let mut first = TcpStream::connect(network.url.trim_start_matches("redis://")).unwrap();
    network.hold(true);
    first.write_all(b"SETEX k 60 old\r\n").unwrap();
    drop(first);
    server.cli(&["DEL", "k"]);
    network.hold(false);
    network.over.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(server.cli(&["GET", "k"]).trim(), "old");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_is_held_back_over_a_new_connection_is_not_done() {
    let server = RedisServer::start();
    let network = Network::before(server.port());
    let store = connect(&network.url);
    let (key, other) = (key("/a"), key("/b"));
    store_in(&store, &other, "1").await;
    network.hold(true);
    while network.connections.load(Ordering::SeqCst) < 2 {
        let written = store.set(entry(&key, "\"old\"")).await;
        // A busy machine may have connected anew in between: then nothing holds it back.
        let is_held = network.connections.load(Ordering::SeqCst) < 2;
        assert!(!(is_held && written.is_ok_and(|written| written.is_stored())));
    }
    until_found(&store, &other).await;
    let begin = Instant::now();
    while store.delete(std::slice::from_ref(&key)).await.is_err() {
        assert!(begin.elapsed() < Duration::from_secs(20), "never deleted");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    network.hold(false);
    network.over.recv_timeout(Duration::from_secs(20)).unwrap();
    until_found(&store, &other).await;
    assert_eq!(store.get(&key, Ttl::MAX).await, Ok(None));
    assert_eq!(server.cli(&["EXISTS", key.as_str()]).trim(), "0");
}

/// A user who may not end connections is told, and served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_without_the_right_to_end_connections_is_served() {
    let server = RedisServer::start();
    server.cli(&[
        "ACL",
        "SETUSER",
        "app",
        "on",
        ">pw",
        "~cache:*",
        "+@all",
        "-client|kill",
    ]);
    let store = connect(&format!("redis://app:pw@127.0.0.1:{}", server.port()));
    let key = key("/a");
    store_in(&store, &key, "1").await;
    server.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    while !matches!(
        store.get(&key, Ttl::MAX).await,
        Err(StoreError::Away(_) | StoreError::Broken(_)) | Ok(Some(_))
    ) {}
    until_found(&store, &key).await;
}
