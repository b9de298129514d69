//! What healthy services notice of a hostile client that does all it can at once: the p99 of their config reads, against the
//! quiet one, and what the control plane's memory grows to.
//!
//! The control plane asks for API keys, and the hostile client has one that may report: slow connections, bodies without an
//! end, invented endpoints, wrong keys and floods of headers, each as fast as it goes. It is a process of its own that
//! gets what is left of the processors, since in life it has others than the server. A second row, without a mark, shows what of
//! that is the wait for a processor: there the server and those who read come first on them.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use larder_testing::alone::Usage;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::beside::{Beside, First, yielding};
use crate::load::{Load, p99_micros};
use crate::report::{Mark, Report};
use crate::server::{Server, built};
use crate::streams::allow_open_files;

/// Of this service there are policies, and its key is what the hostile client has.
pub(crate) const SERVICE: &str = "bench";
const READ: &str = "/api/config/bench";
/// Until the server has done with those who went.
const SETTLE: Duration = Duration::from_secs(3);
const LENGTH: Duration = Duration::from_secs(8);
/// How long an attacker that was sent away stays away.
const AWAY: Duration = Duration::from_millis(100);
/// A slow one says one byte in this time.
const DRIP: Duration = Duration::from_secs(5);
/// So many of the slow ones are opened at once.
const OPENED_AT_ONCE: usize = 100;
const SLOW: usize = 10_000;
const BODIES: usize = 50;
const BODY_BYTES: u64 = 1 << 30;
const INVENTED: usize = 100_000;
/// Endpoints of one batch.
const BATCH: usize = 100;
const WRONG_KEYS: usize = 4;
const FLOODS: usize = 4;
/// What all of it may take together: a slow connection some 20 KiB, and what an endpoint is measured by.
const MAX_GROWTH_MIB: f64 = 512.0;

pub(crate) fn measure(report: &mut Report) -> anyhow::Result<()> {
    reads(report, false)?;
    reads(report, true)
}

/// Whether the server and those who read come first on the processors.
fn reads(report: &mut Report, come_first: bool) -> anyhow::Result<()> {
    let what = match come_first {
        true => "config read, first on the processors, under the whole attack",
        false => "config read under the whole attack",
    };
    let name = format!("{what}, p99");
    let growth = format!("{what}, the control plane grows by");
    if !report.wants(&name) && !report.wants(&growth) {
        return Ok(());
    }
    let _first = come_first.then(First::begin).transpose()?;
    let slow = report.operations(SLOW);
    allow_open_files(slow as u64 + 1_000)?;
    let folder = tempfile::tempdir()?;
    let services = make_key(folder.path(), "services")?;
    let stolen = make_key(folder.path(), "stolen")?;
    let control = Server::control(folder.path())?;
    let before = Usage::of(control.pid()).resident;
    let load = Load {
        port: control.port,
        clients: 4,
        per_second: 500,
        key: Some(&services),
    };
    let ask = || Ok(p99_micros(&load.run(LENGTH, |_| READ.to_owned())?));
    let attacked = || {
        let _hostile = start(control.port, &stolen, slow)?;
        ask()
    };
    let quiet = || {
        std::thread::sleep(SETTLE);
        ask()
    };
    let mark = (!come_first).then_some(Mark::AtMost(2.0));
    report.add(&name, "quiet", "µs", mark, attacked, quiet)?;
    let most = Usage::of(control.pid()).most_resident;
    let grown = most.saturating_sub(before) as f64 / f64::from(1 << 20);
    report.add_figure(&growth, "MiB", Mark::AtMost(MAX_GROWTH_MIB), vec![grown]);
    Ok(())
}

/// A key with which a service reports and reads, made before the control plane begins.
pub(crate) fn make_key(folder: &Path, name: &str) -> anyhow::Result<String> {
    let mut command = Command::new(built("larder")?);
    command.args(["key", "create", "--role", "report"]);
    command.args(["--service", SERVICE, "--name", name]);
    let made = command.current_dir(folder).output()?;
    let key = String::from_utf8(made.stdout)?.trim().to_owned();
    anyhow::ensure!(
        key.starts_with("lrd_"),
        "no key was made: {}",
        String::from_utf8_lossy(&made.stderr)
    );
    Ok(key)
}

/// Waits until all of its slow connections are there, and the rest goes on.
fn start(port: u16, key: &str, slow: usize) -> anyhow::Result<Beside> {
    let mut command = yielding()?;
    command.args(["hostile", &port.to_string(), key, &slow.to_string()]);
    let hostile = Beside::start(&mut command, "attacks")?;
    std::thread::sleep(SETTLE);
    Ok(hostile)
}

/// Attacks until it is killed.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn attack(
    port: u16,
    key: String,
    slow: usize,
    kinds: Vec<String>,
) -> anyhow::Result<()> {
    let some =
        |kind: &str, number: usize| match kinds.is_empty() || kinds.iter().any(|it| it == kind) {
            true => number,
            false => 0,
        };
    allow_open_files(slow as u64 + 500)?;
    let mut attackers = JoinSet::new();
    let (opened, mut all_opened) = mpsc::channel(OPENED_AT_ONCE);
    for number in 0..slow {
        let opened = opened.clone();
        attackers.spawn(async move {
            // They come a few at a time, and so they go.
            sleep(DRIP * u32::try_from(number).unwrap_or(0) / u32::try_from(slow).unwrap_or(1))
                .await;
            let mut opened = Some(opened);
            go_on(move || drip(port, opened.take())).await;
        });
    }
    for _ in 0..slow {
        all_opened.recv().await;
    }
    for number in 0..some("bodies", BODIES) {
        let key = key.clone();
        attackers.spawn(go_on(move || body(port, key.clone(), number % 2 == 0)));
    }
    for _ in 0..some("keys", WRONG_KEYS) {
        let key = key.clone();
        attackers.spawn(go_on(move || wrong_keys(port, key.clone())));
    }
    for number in 0..some("heads", FLOODS) {
        attackers.spawn(go_on(move || flood(port, number % 2 == 0)));
    }
    for _ in 0..some("endpoints", 1) {
        let key = key.clone();
        attackers.spawn(go_on(move || invent(port, key.clone())));
    }
    println!("attacks");
    attackers.join_all().await;
    Ok(())
}

/// Who is sent away comes again, however it ended.
async fn go_on<F>(mut attack: impl FnMut() -> F)
where
    F: Future<Output = anyhow::Result<()>>,
{
    loop {
        let _ = attack().await;
        sleep(AWAY).await;
    }
}

async fn connect(port: u16) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A head that never ends, until it is sent away.
async fn drip(port: u16, opened: Option<mpsc::Sender<()>>) -> anyhow::Result<()> {
    let mut stream = connect(port).await?;
    let head = format!("GET {READ} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-Slow: ");
    stream.write_all(head.as_bytes()).await?;
    if let Some(opened) = opened {
        opened.send(()).await?;
    }
    loop {
        match timeout(DRIP, stream.read(&mut [0; 64])).await {
            Ok(_) => return Ok(()),
            Err(_) => stream.write_all(b"x").await?,
        }
    }
}

/// A gibibyte, as far as it is taken.
async fn body(port: u16, key: String, announces: bool) -> anyhow::Result<()> {
    let mut stream = connect(port).await?;
    let length = match announces {
        true => format!("Content-Length: {BODY_BYTES}"),
        false => "Transfer-Encoding: chunked".to_owned(),
    };
    let head = format!(
        "POST /api/signals HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n{length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let piece = [&b"10000\r\n"[..], &[b'['; 0x1_0000], b"\r\n"].concat();
    for _ in 0..BODY_BYTES / piece.len() as u64 {
        stream.write_all(&piece).await?;
    }
    anyhow::bail!("a body was read to its end")
}

/// Asks with one wrong key after the other, as fast as it is told no.
async fn wrong_keys(port: u16, key: String) -> anyhow::Result<()> {
    let mut stream = connect(port).await?;
    let begin = &key[..key.len() - 16];
    for number in 0_u64.. {
        let request = format!(
            "GET {READ} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {begin}{number:016x}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        answer(&mut stream).await?;
    }
    Ok(())
}

/// A head that is larger than may be, or has more fields.
async fn flood(port: u16, is_large: bool) -> anyhow::Result<()> {
    let mut stream = connect(port).await?;
    let head = format!("GET {READ} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n");
    let fields = match is_large {
        true => format!("X-Large: {}\r\n\r\n", "x".repeat(1 << 20)),
        false => "X: y\r\n".repeat(1_000) + "\r\n",
    };
    stream.write_all((head + &fields).as_bytes()).await?;
    answer(&mut stream).await
}

/// Signals of endpoints that there are none of.
async fn invent(port: u16, key: String) -> anyhow::Result<()> {
    let mut stream = connect(port).await?;
    for batch in 0..INVENTED / BATCH {
        let signals: Vec<_> = (0..BATCH)
            .map(|one| {
                serde_json::json!({
                    "service_name": SERVICE,
                    "endpoint": format!("/invented{}/x", batch * BATCH + one),
                    "latency_ms": 1,
                    "status": "success",
                })
            })
            .collect();
        let body = serde_json::json!({ "signals": signals }).to_string();
        let request = format!(
            "POST /api/signals/batch HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await?;
        answer(&mut stream).await?;
    }
    Ok(())
}

/// Waits for a small answer, which comes in one piece.
async fn answer(stream: &mut TcpStream) -> anyhow::Result<()> {
    let mut piece = [0; 4_096];
    let read = timeout(Duration::from_secs(10), stream.read(&mut piece)).await??;
    anyhow::ensure!(read > 0, "it was sent away");
    Ok(())
}
