//! Whatever a server sends, what is held of it is bounded, and callers get a miss within their deadline (SECURITY SF-5).

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use larder_core::{ClearMode, Pattern, Store as _, StoreError, Ttl};
use larder_testing::alone::{is_alone, resident};
use larder_testing::stalls::Stalls;

use crate::scripted::server;
use crate::{connect, connect_patiently, key};

/// What a reply may cost in memory, in bytes.
const MOST: u64 = 32 << 20;

type Attack = fn(&mut TcpStream) -> std::io::Result<()>;

/// Memory is measured of a process in which nothing else runs.
#[test]
fn its_replies_are_bounded() {
    if !is_alone("hostile_server::its_replies_are_bounded") {
        return;
    }
    let attacks: [(&str, Attack); 12] = [
        ("a string of 512 MiB", |stream| {
            stream.write_all(b"$536870912\r\n")?;
            flood(stream, b'x', 512 << 20)
        }),
        ("a string of 60 MiB", |stream| {
            stream.write_all(b"$62914560\r\n")?;
            flood(stream, b'x', 60 << 20)
        }),
        ("a line without an end", |stream| {
            stream.write_all(b"+")?;
            flood(stream, b'x', 512 << 20)
        }),
        ("two billion elements", |stream| {
            stream.write_all(b"*2147483647\r\n")?;
            for _ in 0..10_000_000 {
                stream.write_all(b":1\r\n:1\r\n:1\r\n:1\r\n")?;
            }
            Ok(())
        }),
        ("a list of strings, each short enough", |stream| {
            strings(stream, b"*100000\r\n", 200)
        }),
        ("a push of strings, each short enough", |stream| {
            strings(stream, b">100000\r\n", 200)
        }),
        ("a million numbers", |stream| {
            stream.write_all(b"*1000000\r\n")?;
            stream.write_all(&b":1\r\n".repeat(999_999))
        }),
        ("a million deep", |stream| {
            stream.write_all("*1\r\n".repeat(1_000_000).as_bytes())
        }),
        ("a negative length", |stream| stream.write_all(b"$-5\r\n")),
        ("a length beyond all numbers", |stream| {
            stream.write_all(b"$99999999999999999999999\r\n")
        }),
        ("pushes without an end", |stream| {
            let push = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n".repeat(1_000);
            for _ in 0..5_000 {
                stream.write_all(&push)?;
            }
            Ok(())
        }),
        ("a reply that never comes to its end", |stream| {
            stream.write_all(b"$10\r\nabc")
        }),
    ];
    for (name, attack) in attacks {
        let before = resident();
        let (done, is_done) = std::sync::mpsc::channel();
        let url = server(move |command, stream| {
            if command[0] == b"GET" {
                let attacked = attack(stream);
                let _ = done.send(());
                return attacked;
            }
            Ok(())
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let store = runtime.block_on(async { connect(&url) });
        let (begin, stalls) = (Instant::now(), Stalls::watch());
        let answer = runtime.block_on(store.get(&key("/a"), Ttl::MAX));
        let took = begin.elapsed();
        let stood_still = stalls.end();
        assert!(!matches!(answer, Ok(Some(_))), "{name}: {answer:?}");
        let most = Duration::from_secs(1) + stood_still;
        assert!(took < most, "{name}: {took:?} {stood_still:?}");
        // Also after the caller has given up.
        let most = watch(&is_done);
        let grown = most.saturating_sub(before);
        assert!(grown <= MOST, "{name}: {grown} bytes");
    }
}

/// The most memory until the attack is over, or for three seconds.
fn watch(is_done: &std::sync::mpsc::Receiver<()>) -> u64 {
    let begin = Instant::now();
    let mut most = 0;
    while begin.elapsed() < Duration::from_secs(3) {
        most = most.max(resident());
        if is_done.recv_timeout(Duration::from_millis(5)).is_ok() {
            return most.max(resident());
        }
    }
    most
}

/// The beginning of a reply, and so many MiB of strings.
fn strings(stream: &mut TcpStream, begin: &[u8], count: usize) -> std::io::Result<()> {
    stream.write_all(begin)?;
    for _ in 0..count {
        stream.write_all(b"$1048576\r\n")?;
        flood(stream, b'x', 1 << 20)?;
        stream.write_all(b"\r\n")?;
    }
    Ok(())
}

fn flood(stream: &mut TcpStream, byte: u8, count: usize) -> std::io::Result<()> {
    let chunk = vec![byte; 1 << 20];
    for _ in 0..count / chunk.len() {
        stream.write_all(&chunk)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_without_an_end_is_given_up() {
    let store = connect_patiently(&server(|command, stream| match &command[0][..] {
        b"SCAN" => stream.write_all(b"*2\r\n$1\r\n7\r\n*1\r\n$12\r\ncache:svc:/a\r\n"),
        _ => stream.write_all(b":5\r\n"),
    }));
    let pattern = Pattern::parse("cache:svc:*").unwrap();
    for mode in [ClearMode::DryRun, ClearMode::Delete] {
        let answer = store.clear(&pattern, mode).await;
        assert!(matches!(answer, Err(StoreError::Refused(_))), "{answer:?}");
    }
}
