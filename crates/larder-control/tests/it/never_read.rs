//! Streams whose clients never read cost little, however often the policies change meanwhile, and end.

use std::time::Duration;

use larder_control::{ControlPlane, Settings};
use larder_testing::alone::Usage;
use larder_testing::process::{Process, listen, role, say};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::followers::allow_open_files;
use crate::{Running, until};

const STREAMS: usize = 1_500;
/// Their document has some 100 KiB: more than all buffers on the way have room for.
const POLICIES: usize = 200;
const CHANGES: usize = 30;
/// In the folder of who serves: after how many seconds a stream that takes nothing is closed.
const STALL: &str = "stall";
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
        let stall = std::fs::read_to_string(folder.join(STALL)).unwrap();
        settings.streams.stall = Duration::from_secs(stall.parse().unwrap());
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

/// A control plane with many policies, in a process of its own.
struct Served {
    process: Process,
    control: Running,
    _folder: tempfile::TempDir,
}

impl Served {
    async fn start(stall: Duration) -> Self {
        allow_open_files(8_192);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(STALL), stall.as_secs().to_string()).unwrap();
        let test = "never_read::serves_in_a_process_of_its_own";
        let mut process = Process::start(test, "control plane", folder.path());
        let control = Running::at(process.hear().unwrap().parse().unwrap());
        for index in 0..POLICIES {
            control
                .put(&format!("/api/policies/svc/a/{index}"), "{}")
                .await;
        }
        Self {
            process,
            control,
            _folder: folder,
        }
    }

    async fn streams(&self) -> usize {
        self.control.metric("larder_control_streams ").await as usize
    }

    async fn change(&self) {
        for change in 0..CHANGES {
            let put = format!("{{\"ttl_seconds\":{}}}", 60 + change);
            let put = self.control.put("/api/policies/svc/a/1", &put).await;
            assert_eq!(put.status, 200);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_never_read_cost_little() {
    // Longer than all of this takes.
    let served = Served::start(Duration::from_secs(600)).await;
    let before = Usage::of(served.process.pid()).resident;
    let mut open_streams = Vec::with_capacity(STREAMS);
    for _ in 0..STREAMS {
        open_streams.push(open(served.control.port).await);
    }
    until("all are open", async || served.streams().await == STREAMS).await;
    served.change().await;
    assert_eq!(
        served.streams().await,
        STREAMS,
        "they are there all the time"
    );
    let process = &served.process;
    let grown = Usage::of(process.pid()).resident.saturating_sub(before);
    println!(
        "{STREAMS} streams that never read: {} KiB each",
        grown / 1_024 / STREAMS as u64
    );
    assert!(grown < MAX_GROWTH, "grew by {grown} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_never_read_end() {
    let served = Served::start(Duration::from_secs(5)).await;
    let mut open_streams = Vec::new();
    for _ in 0..20 {
        open_streams.push(open(served.control.port).await);
    }
    until("they are there", async || served.streams().await > 0).await;
    served.change().await;
    until("those that take nothing are closed", async || {
        served.streams().await == 0
    })
    .await;
    assert_eq!(served.control.get("/healthz").await.status, 200);
}
