//! A steady load of requests, and how long their answers take.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// A client with one connection that stays.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
    /// What each request says besides its target.
    headers: String,
}

impl Client {
    pub(crate) fn connect(port: u16) -> anyhow::Result<Self> {
        Self::with_key(port, None)
    }

    /// With an API key of the control plane.
    pub(crate) fn with_key(port: u16, key: Option<&str>) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut headers = format!("Host: 127.0.0.1:{port}\r\n");
        if let Some(key) = key {
            headers.push_str(&format!("Authorization: Bearer {key}\r\n"));
        }
        Ok(Self {
            stream: BufReader::new(stream),
            headers,
        })
    }

    /// The answer's body; an error where its status is not 200.
    pub(crate) fn get(&mut self, target: &str) -> anyhow::Result<Vec<u8>> {
        let request = format!("GET {target} HTTP/1.1\r\n{}\r\n", self.headers);
        self.stream.get_mut().write_all(request.as_bytes())?;
        let status = self.line()?;
        anyhow::ensure!(status.starts_with("HTTP/1.1 200 "), "{target}: {status}");
        let mut length = 0;
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse()?;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok(body)
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let line = line.strip_suffix("\r\n").context("the answer is cut")?;
        Ok(line.to_owned())
    }
}

/// So many requests a second, from as many clients, each with a pace of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load<'a> {
    pub(crate) port: u16,
    pub(crate) clients: u32,
    pub(crate) per_second: u32,
    /// The API key that each shows.
    pub(crate) key: Option<&'a str>,
}

impl Load<'_> {
    /// What each answer took; `target` is asked with a number that is another for each request.
    pub(crate) fn run(
        self,
        length: Duration,
        target: impl Fn(u32) -> String + Sync,
    ) -> anyhow::Result<Vec<Duration>> {
        let every = Duration::from_secs(1) * self.clients / self.per_second;
        let begin = Instant::now();
        let target = &target;
        let measured = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..self.clients)
                .map(|client| {
                    scope.spawn(move || {
                        // Not all at once.
                        let first = begin + every * client / self.clients;
                        let numbers = (client..).step_by(self.clients as usize);
                        self.ask(first, every, begin + length, numbers.map(target))
                    })
                })
                .collect();
            clients
                .into_iter()
                .map(|client| {
                    client
                        .join()
                        .map_err(|_| anyhow::anyhow!("a client died"))?
                })
                .collect::<anyhow::Result<Vec<_>>>()
        });
        Ok(measured?.concat())
    }

    fn ask(
        self,
        first: Instant,
        every: Duration,
        end: Instant,
        targets: impl Iterator<Item = String>,
    ) -> anyhow::Result<Vec<Duration>> {
        let mut client = Client::with_key(self.port, self.key)?;
        let mut took = Vec::new();
        let mut at = first;
        for target in targets {
            if at >= end {
                break;
            }
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            let begin = Instant::now();
            client.get(&target)?;
            took.push(begin.elapsed());
            at += every;
        }
        Ok(took)
    }
}

/// How many requests a second a run of `wrk` had answered.
pub(crate) fn wrk_says(wrk: &mut Command) -> anyhow::Result<f64> {
    let output = wrk
        .output()
        .context("wrk is needed (scripts/bench installs it)")?;
    let text = String::from_utf8_lossy(&output.stdout);
    anyhow::ensure!(!text.contains("Non-2xx"), "{text}");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Requests/sec:"));
    Ok(line.context("wrk says nothing")?.trim().parse()?)
}

/// What all but one in a hundred stay below, in microseconds.
pub(crate) fn p99_micros(took: &[Duration]) -> f64 {
    let mut sorted = took.to_vec();
    sorted.sort_unstable();
    let at = sorted.len() * 99 / 100;
    sorted
        .get(at)
        .map_or(f64::NAN, |took| took.as_secs_f64() * 1e6)
}
