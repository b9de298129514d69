//! Streams whose clients never read cost little, however often the policies change meanwhile, and end.

use std::time::Duration;

use larder_control::{ControlPlane, Settings};
use larder_testing::alone::Usage;
use larder_testing::process::{PATIENCE, Process, listen, role, say};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::followers::allow_open_files;
use crate::{Running, until};

const STREAMS: usize = 1_500;
/// Their document has some 100 KiB: more than all buffers on the way have room for.
const POLICIES: usize = 200;
const CHANGES: usize = 30;
/// Longer than all of this takes.
const STALL: Duration = Duration::from_secs(15);
/// What all of them may take together. Copies of what each has not read yet would be 4 GiB.
const MAX_GROWTH: u64 = 64 << 20;

#[test]
fn serves_in_a_process_of_its_own() {
    let Some(folder) = role("control plane") else {
        return;
    };
    allow_open_files(8_192);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut settings = Settings::new(folder.join("control.db"));
        settings.streams.stall = STALL;
        let control = ControlPlane::open(settings).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        say(&listener.local_addr().unwrap().port().to_string());
        let stopped = async {
            tokio::task::spawn_blocking(listen).await.unwrap();
        };
        control.run(listener, stopped).await.unwrap();
    });
}

/// Asks for the stream, and never reads.
async fn open(port: u16) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(2_048).unwrap();
    let to = format!("127.0.0.1:{port}").parse().unwrap();
    let mut stream = socket.connect(to).await.unwrap();
    let request = format!("GET /api/stream/svc HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_never_read_cost_little_and_end() {
    allow_open_files(8_192);
    let folder = tempfile::tempdir().unwrap();
    let test = "never_read::serves_in_a_process_of_its_own";
    let mut process = Process::start(test, "control plane", folder.path());
    let port = process.hear().unwrap().parse().unwrap();
    let control = Running::at(port);
    for index in 0..POLICIES {
        control
            .put(&format!("/api/policies/svc/a/{index}"), "{}")
            .await;
    }
    let streams = async || control.metric("larder_control_streams ").await;
    let before = Usage::of(process.pid()).resident;
    let mut open_streams = Vec::with_capacity(STREAMS);
    for _ in 0..STREAMS {
        open_streams.push(open(port).await);
    }
    until("all are open", async || streams().await == STREAMS as u64).await;
    for change in 0..CHANGES {
        let put = format!("{{\"ttl_seconds\":{}}}", 60 + change);
        assert_eq!(control.put("/api/policies/svc/a/1", &put).await.status, 200);
    }
    assert_eq!(
        streams().await,
        STREAMS as u64,
        "they are there all the time"
    );
    let grown = Usage::of(process.pid()).resident.saturating_sub(before);
    println!(
        "{STREAMS} streams that never read: {} KiB each",
        grown / 1_024 / STREAMS as u64
    );
    assert!(grown < MAX_GROWTH, "grew by {grown} bytes");
    assert!(STALL < PATIENCE);
    until("those that take nothing are closed", async || {
        streams().await == 0
    })
    .await;
    assert_eq!(control.get("/healthz").await.status, 200);
}
