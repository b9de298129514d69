//! Where a server sends us, our password does not go unless the Cluster's nodes say that it belongs to them; and no server
//! sends us round and round (SECURITY SR-3).

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use larder_core::{Store as _, StoreError, Ttl};

use crate::scripted::only_node;
use crate::{connect, connect_patiently, key};

const PASSWORD: &str = "canary-hunter2";

/// A server that answers nothing, and notes what it is sent.
struct Trap {
    port: u16,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Trap {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&heard);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, notes) = (stream.unwrap(), Arc::clone(&notes));
                std::thread::spawn(move || {
                    let mut chunk = [0; 1_024];
                    while let Ok(count @ 1..) = stream.read(&mut chunk) {
                        notes.lock().unwrap().extend_from_slice(&chunk[..count]);
                        if stream.write_all(b"+OK\r\n").is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { port, heard }
    }

    fn has_heard(&self, word: &str) -> bool {
        let heard = self.heard.lock().unwrap();
        String::from_utf8_lossy(&heard).contains(word)
    }
}

/// The only node of a Cluster, which answers each `GET` with this; `{me}` in it is the node's own port. Its URL, and how
/// often it was asked.
fn node(refusal: &str) -> (String, Arc<AtomicU32>) {
    let asked = Arc::new(AtomicU32::new(0));
    let (refusal, gets) = (refusal.to_owned(), Arc::clone(&asked));
    let host = only_node("", move |command, stream| match &command[0][..] {
        b"PTTL" => stream.write_all(b":-2\r\n"),
        b"GET" => {
            gets.fetch_add(1, Ordering::SeqCst);
            let me = stream.local_addr()?.port().to_string();
            write!(stream, "-{}\r\n", refusal.replace("{me}", &me))
        }
        _ => stream.write_all(b"+OK\r\n"),
    });
    (format!("redis+cluster://:{PASSWORD}@{host}"), asked)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_sends_us_elsewhere_sends_no_password_there() {
    for kind in ["MOVED", "ASK"] {
        let trap = Trap::start();
        let (url, asked) = node(&format!("{kind} 0 127.0.0.1:{}", trap.port));
        // The attack: a client that goes where it is sent says its password there.
        let port = url.rsplit_once(':').unwrap().1;
        let mut naive = Command::new("redis-cli")
            .args(["-c", "-p", port, "GET", "k"])
            .env("REDISCLI_AUTH", PASSWORD)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        larder_testing::redis::wait_until("the trap is told the password", || {
            trap.has_heard(PASSWORD)
        });
        naive.kill().unwrap();
        naive.wait().unwrap();
        trap.heard.lock().unwrap().clear();

        let store = connect(&url);
        let before = asked.load(Ordering::SeqCst);
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(1) {
            let answer = store.get(&key("/a"), Ttl::MAX).await;
            assert!(answer.is_err(), "{answer:?}");
        }
        assert!(asked.load(Ordering::SeqCst) > before, "it was asked");
        let heard = trap.heard.lock().unwrap().clone();
        assert!(heard.is_empty(), "{}", String::from_utf8_lossy(&heard));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_sends_us_round_and_round_is_left() {
    for refusal in [
        "MOVED 0 127.0.0.1:{me}",
        "ASK 0 127.0.0.1:{me}",
        "MOVED 0 :{me}",
        "TRYAGAIN Multiple keys",
    ] {
        let (url, asked) = node(refusal);
        let store = connect_patiently(&url);
        let begin = Instant::now();
        let answer = store.get(&key("/a"), Ttl::MAX).await;
        assert!(
            matches!(answer, Err(StoreError::Refused(_))),
            "{refusal}: {answer:?}"
        );
        assert!(begin.elapsed() < Duration::from_secs(3), "{refusal}");
        let gets = asked.load(Ordering::SeqCst);
        assert_eq!(gets, 6, "{refusal}: five times more");
    }
}
