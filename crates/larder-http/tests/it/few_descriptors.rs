//! A process that runs out of descriptors accepts again when it has some, and does not spin meanwhile.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use larder_http::{Limits, serve};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use crate::client::{closes_within, connect, get as get_it};

/// Set in the child: this test binary again, with few descriptors.
const IN_CHILD: &str = "LARDER_TEST_FEW_DESCRIPTORS";
const DESCRIPTORS: u32 = 40;

#[tokio::test]
async fn it_accepts_again_and_does_not_spin() {
    if std::env::var_os(IN_CHILD).is_some() {
        return serve_until_killed().await;
    }
    let (child, address) = start_child().await;
    let mut waiting = Vec::new();
    for _ in 0..DESCRIPTORS + 20 {
        waiting.push(connect(address).await);
    }
    let last = waiting.last_mut().unwrap();
    // Not refused, not closed: it waits to be accepted.
    let before = processor_time(&child);
    assert!(!closes_within(last, Duration::from_secs(1)).await);
    let spent = processor_time(&child) - before;
    assert!(
        spent < Duration::from_millis(500),
        "{spent:?} of processor time in 1 s"
    );
    drop(waiting);
    assert_eq!(get_it(address, "/", &[]).await.body, "hello");
}

async fn start_child() -> (Child, SocketAddr) {
    let program = std::env::current_exe().unwrap();
    let mut child = Command::new("sh")
        .args([
            "-c",
            &format!("ulimit -n {DESCRIPTORS} && exec \"$0\" \"$@\""),
        ])
        .arg(program)
        .args([
            "--exact",
            "few_descriptors::it_accepts_again_and_does_not_spin",
            "--nocapture",
        ])
        .env(IN_CHILD, "1")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = loop {
        let line = lines.next_line().await.unwrap().expect("the child ended");
        if let Some((_, address)) = line.split_once("serving on ") {
            break address.parse().unwrap();
        }
    };
    (child, address)
}

async fn serve_until_killed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("serving on {}", listener.local_addr().unwrap());
    let router = Router::new().route("/", get(|| async { "hello" }));
    serve(listener, router, Limits::default(), std::future::pending())
        .await
        .unwrap();
}

/// User and system time, of which the kernel counts 100 ticks a second.
fn processor_time(child: &Child) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id().unwrap())).unwrap();
    let after_name = stat.rsplit_once(") ").unwrap().1;
    let fields: Vec<&str> = after_name.split(' ').collect();
    let ticks = [11, 12].map(|field: usize| fields[field].parse::<u64>().unwrap());
    Duration::from_millis(10 * (ticks[0] + ticks[1]))
}
