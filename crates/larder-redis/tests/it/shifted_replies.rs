//! A reply that nobody asked for would shift all later ones by one: then everybody gets somebody else's value
//! (SECURITY SF-6).

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use larder_core::{Store as _, Ttl};

use crate::scripted::{bulk, server};
use crate::{connect, key};

/// Answers each `GET` with its own key as a JSON string, and says something of its own after every hundredth.
fn surplus_server() -> String {
    let answered = AtomicUsize::new(0);
    server(move |command, stream| match &command[0][..] {
        b"GET" => {
            let key = String::from_utf8_lossy(&command[1]).into_owned();
            stream.write_all(&bulk(format!("\"{key}\"").as_bytes()))?;
            if answered.fetch_add(1, Ordering::SeqCst) % 100 == 57 {
                stream.write_all(&bulk(b"\"surplus\""))?;
            }
            Ok(())
        }
        b"PING" => stream.write_all(&bulk(&command[1])),
        _ => stream.write_all(b":1000\r\n"),
    })
}

#[test]
fn a_naive_client_hands_out_foreign_values() {
    let url = surplus_server();
    let mut stream = TcpStream::connect(url.trim_start_matches("redis://")).unwrap();
    let mut replies = Vec::new();
    for index in 0..60 {
        let key = format!("cache:svc:/{index:02}");
        write!(stream, "*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len()).unwrap();
        let mut reply = vec![0; bulk(format!("\"{key}\"").as_bytes()).len()];
        stream.read_exact(&mut reply).unwrap();
        replies.push(String::from_utf8_lossy(&reply).contains(&key));
    }
    assert!(replies[..58].iter().all(|is_own| *is_own));
    assert!(!replies[59], "from then on every reply is another's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_reply_reaches_the_wrong_caller() {
    let store = connect(&surplus_server());
    let mut own = 0;
    let begin = Instant::now();
    let rounds = (0..).take_while(|round| *round < 40 || begin.elapsed() < Duration::from_secs(20));
    for round in rounds {
        let mut reads = Vec::new();
        for index in 0..50 {
            let (store, key) = (store.clone(), key(&format!("/{round}/{index}")));
            reads.push(tokio::spawn(async move {
                let found = store.get(&key, Ttl::MAX).await;
                (key, found)
            }));
        }
        for read in reads {
            let (key, found) = read.await.unwrap();
            // An ended connection is a miss; a value is the key's own.
            if let Ok(Some(stored)) = found {
                assert_eq!(stored.bytes, format!("\"{key}\""));
                own += 1;
            }
        }
        if round >= 40 && own >= 100 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(own >= 100, "only {own} reads were answered");
}

#[tokio::test]
async fn a_reply_of_another_kind_ends_the_connection() {
    let store = connect(&server(|command, stream| match &command[0][..] {
        b"GET" => stream.write_all(b":7\r\n"),
        b"PING" => stream.write_all(&bulk(&command[1])),
        _ => stream.write_all(b":1000\r\n"),
    }));
    let answer = store.get(&key("/a"), Ttl::MAX).await;
    assert!(!matches!(answer, Ok(Some(_))), "{answer:?}");
}
