//! How long it takes until all who follow a service have seen a change, and what one costs that sees none.
//!
//! The clients share the machine with the control plane, and what they take counts.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use larder_testing::alone::Usage;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::beside::Beside;
use crate::report::{Mark, Report};
use crate::server::Server;

const STREAMS: usize = 10_000;
/// Other files that a process has open.
const OTHERS: u64 = 200;
/// Policies that the service has.
const POLICIES: usize = 5;
/// Of all clients together.
const PATIENCE: Duration = Duration::from_secs(60);
const SERVICE: &str = "bench";
/// Of all services: more are not let in.
const MOST: usize = 20_000;

pub(crate) fn measure(report: &mut Report) -> anyhow::Result<()> {
    let streams = report.operations(STREAMS);
    let change = format!("streams, a policy change seen by {streams}, p99");
    let memory = format!("streams, memory of an idle one of {streams}");
    if !report.wants(&change) && !report.wants(&memory) {
        return idle(report);
    }
    allow_open_files(streams as u64 + OTHERS)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let (took, bytes) = runtime.block_on(follow(streams, report.rounds()))?;
    report.add_figure(&change, "ms", Mark::AtMost(250.0), took);
    let kib = bytes / 1_024.0;
    report.add_figure(&memory, "KiB", Mark::AtMost(10.0), vec![kib]);
    idle(report)
}

/// As many streams as there may be, on which nothing happens but that each says that it lives.
fn idle(report: &mut Report) -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile).maximum;
    // A control plane that may not open so many files has as many as it can.
    let files = limit.map_or(MOST, |most| usize::try_from(most).unwrap_or(MOST));
    let streams = report.operations(MOST.min(files.saturating_sub(OTHERS as usize)));
    let memory = format!("streams, memory of an idle one of {streams}, of two services");
    if !report.wants(&memory) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let control = Server::control(folder.path())?;
    let resident = || Usage::of(control.pid()).resident as f64;
    let before = resident();
    let half = streams / 2;
    // One address has no more than 15,000, nor has a service; and a process no more files than the control plane.
    let _one = followers(control.port, "bench-1", Ipv4Addr::new(127, 0, 0, 2), half)?;
    let _other = followers(
        control.port,
        "bench-2",
        Ipv4Addr::new(127, 0, 0, 3),
        streams - half,
    )?;
    // Each has said twice that it lives.
    std::thread::sleep(Duration::from_secs(20));
    let kib = (resident() - before) / streams as f64 / 1_024.0;
    report.add_figure(&memory, "KiB", Mark::AtMost(10.0), vec![kib]);
    Ok(())
}

/// Streams of a process of its own.
fn followers(
    port: u16,
    service: &str,
    address: Ipv4Addr,
    streams: usize,
) -> anyhow::Result<Beside> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["follow", &port.to_string(), service]);
    command.args([address.to_string(), streams.to_string()]);
    Beside::start(&mut command, "follows")
}

/// Follows a service over so many streams, until it is killed or one ends.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn follow_idly(
    port: u16,
    service: String,
    address: Ipv4Addr,
    streams: usize,
) -> anyhow::Result<()> {
    allow_open_files(streams as u64 + OTHERS)?;
    let mut clients = JoinSet::new();
    for _ in 0..streams {
        let mut client = Follower::open_from(address, port, &service).await?;
        client.until("\"policies\"").await?;
        clients.spawn(async move { client.until("there is no such text").await });
    }
    println!("follows");
    let ended = clients.join_next().await.context("there are streams")?;
    ended?.map(drop)
}

/// What each round took (p99, in milliseconds), and what a stream takes of the control plane's memory, in bytes.
async fn follow(streams: usize, rounds: usize) -> anyhow::Result<(Vec<f64>, f64)> {
    let folder = tempfile::tempdir()?;
    let control = Server::control(folder.path())?;
    for policy in 0..POLICIES {
        set(control.port, &format!("/{policy}"), 60).await?;
    }
    let resident = || Usage::of(control.pid()).resident as f64;
    let before = resident();
    // When each client saw which TTL.
    let (sender, mut seen) = mpsc::unbounded_channel();
    for _ in 0..streams {
        let mut client = Follower::open(control.port).await?;
        client.until("\"ttl_seconds\":60,").await?;
        let sender = sender.clone();
        tokio::spawn(async move {
            for ttl in 0.. {
                let change = format!("\"ttl_seconds\":{},", 100 + ttl);
                let at = client.until(&change).await;
                if sender.send((ttl, at)).is_err() {
                    return;
                }
            }
        });
    }
    let bytes = (resident() - before) / streams as f64;
    let mut figures = Vec::with_capacity(rounds);
    for round in 0..rounds {
        let began = Instant::now();
        set(control.port, "/0", 100 + round).await?;
        let mut took = Vec::with_capacity(streams);
        while took.len() < streams {
            let next = tokio::time::timeout(PATIENCE, seen.recv()).await;
            let (of, at) = next?.context("the clients are gone")?;
            anyhow::ensure!(of == round, "a client saw another change");
            took.push((at? - began).as_secs_f64() * 1e3);
        }
        took.sort_by(f64::total_cmp);
        figures.push(took[took.len() * 99 / 100]);
    }
    Ok((figures, bytes))
}

/// Sets a policy, by a connection of its own.
async fn set(port: u16, endpoint: &str, ttl: usize) -> anyhow::Result<()> {
    let body = format!("{{\"ttl_seconds\":{ttl}}}");
    let request = format!(
        "PUT /api/policies/{SERVICE}{endpoint} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    anyhow::ensure!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    Ok(())
}

/// A client with a stream.
struct Follower {
    stream: TcpStream,
    /// What arrived of the next event.
    text: Vec<u8>,
}

impl Follower {
    async fn open(port: u16) -> anyhow::Result<Self> {
        Self::open_from(Ipv4Addr::LOCALHOST, port, SERVICE).await
    }

    async fn open_from(address: Ipv4Addr, port: u16, service: &str) -> anyhow::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((address, 0).into())?;
        let mut stream = socket.connect((Ipv4Addr::LOCALHOST, port).into()).await?;
        let request =
            format!("GET /api/stream/{service} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        Ok(Self {
            stream,
            text: Vec::new(),
        })
    }

    /// When this text came, and its event was whole.
    async fn until(&mut self, what: &str) -> anyhow::Result<Instant> {
        loop {
            // The end of an event, and of the chunk that it comes in.
            if self.text.ends_with(b"\n\n\r\n") {
                let text = std::mem::take(&mut self.text);
                if find(&text, what.as_bytes()) {
                    return Ok(Instant::now());
                }
            }
            // A buffer of a client's own would stay.
            let mut piece = [0; 4_096];
            let read = self.stream.read(&mut piece).await?;
            anyhow::ensure!(
                read > 0,
                "a stream ended: {}",
                String::from_utf8_lossy(&self.text)
            );
            self.text.extend_from_slice(&piece[..read]);
        }
    }
}

fn find(text: &[u8], what: &[u8]) -> bool {
    text.windows(what.len()).any(|part| part == what)
}

/// The control plane, which is started from here, has the same bound.
pub(crate) fn allow_open_files(count: u64) -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= count) {
        return Ok(());
    }
    let more = Rlimit {
        current: Some(count),
        ..limit
    };
    let set = setrlimit(Resource::Nofile, more);
    set.with_context(|| format!("{count} open files are needed: raise the hard limit (ulimit -Hn)"))
}
