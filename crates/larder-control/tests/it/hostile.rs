//! A hostile client: slow connections, huge bodies, invented endpoints, wrong keys at full speed, floods of headers. The
//! control plane's memory stays bounded, and healthy clients are served. The hostile one has a process of its own with the lowest
//! priority, since in life it has other processors than the server.

use std::ops::Range;
use std::time::{Duration, Instant};

use larder_control::{ControlPlane, Settings};
use larder_model::api::KeyRole::Report;
use larder_testing::alone::Usage;
use larder_testing::process::{Process, in_role_behind, listen, role, say};
use larder_testing::stalls::Stalls;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::access::Keyed;
use crate::followers::{allow_open_files, p99};
use crate::{Running, until};

const GIB: u64 = 1 << 30;

/// So many try wrong keys at once: who tried too many waits for each answer.
const WRONG_AT_ONCE: usize = 20;

/// How much of each there is.
struct Attack {
    slow: usize,
    bodies: usize,
    invented: usize,
    wrong: usize,
    floods: usize,
    /// What a healthy client reads meanwhile.
    reads: usize,
    /// What all of it may take together: a slow connection some 20 KiB, and what an endpoint is measured by.
    max_growth: u64,
}

const SMALL: Attack = Attack {
    slow: 1_000,
    bodies: 8,
    invented: 10_000,
    wrong: 2_000,
    floods: 500,
    reads: 200,
    max_growth: 96 << 20,
};

const WHOLE: Attack = Attack {
    slow: 10_000,
    bodies: 50,
    invented: 100_000,
    wrong: 20_000,
    floods: 5_000,
    reads: 2_000,
    max_growth: 512 << 20,
};

/// Ten times the mark of twice, on a machine that does other things besides; and what its scheduler may add.
const MAX_TIMES: u32 = 20;
const SLACK: Duration = Duration::from_millis(500);

#[test]
fn serves_in_a_process_of_its_own() {
    let Some(folder) = role("control plane with keys") else {
        return;
    };
    allow_open_files(32_768);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let control = ControlPlane::open(Settings::new(folder.join("control.db")));
        let control = control.await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        say(&listener.local_addr().unwrap().port().to_string());
        let stopped = async {
            tokio::task::spawn_blocking(listen).await.unwrap();
        };
        control.run(listener, stopped).await.unwrap();
    });
}

/// The p99 of a healthy client's config reads.
async fn reads(port: u16, key: &str, reads: usize) -> Duration {
    let control = Running::at(port);
    let mut times = Vec::with_capacity(reads);
    for _ in 0..reads {
        let began = Instant::now();
        let read = control.with(Some(key), "GET", "/api/config/svc", "").await;
        assert_eq!(read.status, 200, "{read:?}");
        times.push(began.elapsed());
    }
    p99(times)
}

/// A head that never ends.
async fn slow(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let head = format!("GET /api/config/svc HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-Slow: ");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// A gibibyte, as far as it is taken; how much that was.
async fn body(port: u16, key: String, announces: bool) -> u64 {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let length = match announces {
        true => format!("Content-Length: {GIB}"),
        false => "Transfer-Encoding: chunked".to_owned(),
    };
    let head = format!(
        "POST /api/signals HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n{length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let piece = [
        b"10000\r\n".to_vec(),
        vec![b'['; 0x1_0000],
        b"\r\n".to_vec(),
    ]
    .concat();
    let mut sent = 0;
    while sent < GIB && stream.write_all(&piece).await.is_ok() {
        sent += piece.len() as u64;
    }
    sent
}

/// Signals of endpoints that there are none of, a hundred at a time.
async fn invent(port: u16, key: String, invented: usize) {
    let control = Running::at(port);
    for part in 0..invented / 100 {
        let signals: Vec<_> = (0..100)
            .map(|index| serde_json::json!({
                "service_name": "svc", "endpoint": format!("/invented{}/x", part * 100 + index), "latency_ms": 1, "status": "success",
            }))
            .collect();
        let batch = serde_json::json!({ "signals": signals }).to_string();
        let sent = control
            .with(Some(&key), "POST", "/api/signals/batch", &batch)
            .await;
        assert_eq!(sent.status, 200, "{sent:?}");
    }
}

async fn wrong_keys(port: u16, key: String, numbers: Range<usize>) {
    let control = Running::at(port);
    for number in numbers {
        let wrong = format!("{}{number:016x}", &key[..key.len() - 16]);
        let answer = control
            .with(Some(&wrong), "GET", "/api/config/svc", "")
            .await;
        assert!(matches!(answer.status, 401 | 429), "{answer:?}");
    }
}

/// Heads that are larger than may be, or have more fields.
async fn flood(port: u16, floods: usize) {
    for number in 0..floods {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let head = format!("GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n");
        let fields = match number % 2 {
            0 => format!("X-Large: {}\r\n\r\n", "x".repeat(1 << 20)),
            _ => "X: y\r\n".repeat(1_000) + "\r\n",
        };
        let _ = stream.write_all((head + &fields).as_bytes()).await;
        let mut answer = [0; 16];
        if let Ok(length @ 12..) = stream.read(&mut answer).await {
            let status = String::from_utf8_lossy(&answer[9..length.min(12)]).into_owned();
            assert!(status.starts_with('4'), "{status}");
        }
    }
}

/// Where the hostile client is told what to do: the port, a key, and how much.
const ORDERS: &str = "orders";

#[test]
fn attacks_in_a_process_of_its_own() {
    let Some(folder) = role("hostile client") else {
        return;
    };
    allow_open_files(32_768);
    let orders = std::fs::read_to_string(folder.join(ORDERS)).unwrap();
    let mut orders = orders.split(' ');
    let mut next = || orders.next().unwrap().to_owned();
    let (port, key) = (next().parse().unwrap(), next());
    let attack = match next().as_str() {
        "whole" => &WHOLE,
        _ => &SMALL,
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        tokio::select! {
            () = go_on(attack, port, &key) => {}
            () = say_that_it_lives() => {}
        }
    });
}

async fn say_that_it_lives() {
    loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        say("goes on");
    }
}

async fn go_on(attack: &Attack, port: u16, key: &str) {
    let mut slow_ones = Vec::with_capacity(attack.slow);
    for _ in 0..attack.slow {
        slow_ones.push(slow(port).await);
    }
    say("attacks");
    let mut attackers = JoinSet::new();
    for number in 0..attack.bodies {
        let body = body(port, key.to_owned(), number % 2 == 0);
        attackers.spawn(async move {
            // What the buffers on the way have room for.
            assert!(body.await < 64 << 20, "a body was read to its end");
        });
    }
    attackers.spawn(invent(port, key.to_owned(), attack.invented));
    let each = attack.wrong / WRONG_AT_ONCE;
    for begin in (0..attack.wrong).step_by(each) {
        attackers.spawn(wrong_keys(port, key.to_owned(), begin..begin + each));
    }
    attackers.spawn(flood(port, attack.floods));
    while let Some(ended) = attackers.join_next().await {
        ended.unwrap();
    }
    say("has done");
    // They are sent away, and nothing of them stays.
    let mut last = slow_ones.pop().unwrap();
    let mut end = [0; 1];
    until("the slow ones are closed", async || {
        let read = tokio::time::timeout(Duration::from_millis(100), last.read(&mut end));
        !matches!(read.await, Err(_) | Ok(Ok(1..)))
    })
    .await;
    say("was sent away");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_client_takes_bounded_memory_and_keeps_no_healthy_one_waiting() {
    // The mark's own numbers take a minute, and want a machine that does nothing else.
    match std::env::var_os("LARDER_SOAK") {
        Some(_) => attack(&WHOLE, "whole").await,
        None => attack(&SMALL, "small").await,
    }
}

async fn attack(attack: &Attack, how_much: &str) {
    let mut keyed = Keyed::new().await;
    let key = keyed.key(Report, &["svc"]).await.secret;
    let folder = keyed.database().parent().unwrap().to_owned();
    let test = "hostile::serves_in_a_process_of_its_own";
    let mut process = Process::start(test, "control plane with keys", &folder);
    let port: u16 = process.hear().unwrap().parse().unwrap();
    let quiet = reads(port, &key, attack.reads).await;
    let before = Usage::of(process.pid()).resident;
    let grown = || Usage::of(process.pid()).resident.saturating_sub(before);

    std::fs::write(folder.join(ORDERS), format!("{port} {key} {how_much}")).unwrap();
    let test = "hostile::attacks_in_a_process_of_its_own";
    let nice = ["nice", "-n", "19"];
    let mut hostile = Process::spawn(in_role_behind(&nice, test, "hostile client", &folder));
    let mut wait_for = |words: &str| {
        loop {
            let said = hostile.hear();
            let said = said.unwrap_or_else(|| panic!("it ended before it {words}"));
            if said == words {
                return;
            }
        }
    };
    wait_for("attacks");
    let stalls = Stalls::watch();
    let attacked = reads(port, &key, attack.reads).await;
    let stood_still = stalls.end();
    let meanwhile = grown();
    println!(
        "config reads, p99: {quiet:?} quiet, {attacked:?} attacked; the process grew by {} KiB",
        meanwhile >> 10
    );
    assert!(meanwhile < attack.max_growth, "grew by {meanwhile} bytes");
    assert!(
        attacked <= MAX_TIMES * quiet + SLACK + stood_still,
        "{quiet:?} {attacked:?} {stood_still:?}"
    );
    wait_for("has done");
    let in_the_end = grown();
    assert!(in_the_end < attack.max_growth, "grew by {in_the_end} bytes");
    wait_for("was sent away");
    assert_eq!(Running::at(port).get("/healthz").await.status, 200);
}
