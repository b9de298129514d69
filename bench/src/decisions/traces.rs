//! Real request traces, as workloads of one endpoint.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::Context as _;
use larder_decide::simulation::Request;
use larder_decide::simulation::workload::{Random, hash};
use larder_logs::{Line, LogReader};

use super::Workload;

const NASA: &str = "nasa_1995-08-01.csv.gz";
const NASA_OF_TESTS: &str = "../crates/larder-cli/tests/data";
const NOVA: &str = "openstack_nova_2017-05-16_latency.csv.gz";
const SEMICOMPLETE: &str = "semicomplete_2015-05.csv.gz";
const WEB07: &str = "web07.trace.xz";
/// Requests a second, where a trace tells their order alone.
const SEMICOMPLETE_RATE: f64 = 1.0;
const WEB07_RATE: f64 = 5.0;
/// The mean of latencies, in milliseconds, where no trace tells any.
const ORIGIN_MS: f64 = 300.0;
/// A 304 says that nothing has changed.
const NOT_MODIFIED: u16 = 304;

/// How long an origin takes: as one did that was measured, else by chance.
#[derive(Clone)]
struct Latencies(Arc<[f64]>);

impl Latencies {
    fn draw(&self, random: &mut Random) -> f64 {
        match self.0.len() {
            0 => random.lognormal(ORIGIN_MS, 0.5),
            count => self.0[(random.next_number() % count as u64) as usize],
        }
    }
}

pub(super) fn all(folder: Option<&Path>) -> anyhow::Result<Vec<Workload>> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join(NASA_OF_TESTS);
    let find = |name: &str| {
        folder
            .map(|folder| folder.join(name))
            .filter(|path| path.exists())
    };
    let nova = find(NOVA).map(|path| read(&path)).transpose()?;
    let latencies = nova.iter().flatten().map(|request| request.latency_ms);
    let latencies = Latencies(latencies.collect());
    let mut all = Vec::new();
    let nasa = read(&find(NASA).unwrap_or_else(|| tests.join(NASA)))?;
    all.push(logged("NASA, whole", nasa.clone(), &latencies));
    let mut same = nasa;
    same.iter_mut().for_each(|request| request.body = 0);
    all.push(logged("NASA, answers that stay", same, &latencies));
    if let Some(nova) = nova {
        all.push(Workload::new("Nova, as it was", move |_| {
            nova.clone().into_iter()
        }));
    }
    if let Some(path) = find(SEMICOMPLETE) {
        let requests = read(&path)?;
        all.push(paced(
            "semicomplete, its order at 1/s",
            requests,
            SEMICOMPLETE_RATE,
            &latencies,
        ));
    }
    if let Some(path) = find(WEB07) {
        let requests = keys(&path)?;
        all.push(paced(
            "web07, its order at 5/s",
            requests,
            WEB07_RATE,
            &latencies,
        ));
    }
    Ok(all)
}

/// With the arrivals of the trace, and latencies of another.
fn logged(name: &str, requests: Vec<Request>, latencies: &Latencies) -> Workload {
    let (requests, latencies): (Arc<[Request]>, _) = (requests.into(), latencies.clone());
    Workload::new(name, move |seed| {
        let (requests, latencies) = (Arc::clone(&requests), latencies.clone());
        let mut random = Random(seed);
        (0..requests.len()).map(move |at| Request {
            latency_ms: latencies.draw(&mut random),
            ..requests[at]
        })
    })
}

/// The order of the trace, with arrivals by Poisson.
fn paced(name: &str, requests: Vec<Request>, rate: f64, latencies: &Latencies) -> Workload {
    let (requests, latencies): (Arc<[Request]>, _) = (requests.into(), latencies.clone());
    Workload::new(name, move |seed| {
        let (requests, latencies) = (Arc::clone(&requests), latencies.clone());
        let mut random = Random(seed);
        let mut now = 0.0;
        (0..requests.len()).map(move |at| {
            now += random.exponential() / rate;
            Request {
                at_ms: (now * 1_000.0) as u64,
                latency_ms: latencies.draw(&mut random),
                ..requests[at]
            }
        })
    })
}

/// The requests of a log that a cache may answer. What an answer was is told by its size and status.
fn read(path: &Path) -> anyhow::Result<Vec<Request>> {
    let file = File::open(path).with_context(|| format!("can't read {}", path.display()))?;
    let mut log = LogReader::new(file);
    let mut requests = Vec::new();
    let (mut begin, mut latest) = (None, 0);
    let mut bodies: HashMap<u32, u32> = HashMap::new();
    while let Some(line) = log.next_line()? {
        let Line::Request(logged) = line else {
            continue;
        };
        if logged.method != larder_logs::Method::Get {
            continue;
        }
        let key = hash(fnv(logged.target.as_bytes()));
        let said = logged.bytes as u32 ^ (u32::from(logged.status) << 16);
        let body = match logged.status {
            NOT_MODIFIED => bodies.get(&key).copied().unwrap_or(said),
            _ => said,
        };
        bodies.insert(key, body);
        latest = logged.at_ms.max(latest);
        let begin = *begin.get_or_insert(latest);
        requests.push(Request {
            at_ms: latest - begin,
            key,
            body,
            latency_ms: logged
                .latency_micros
                .map_or(0.0, |micros| micros as f64 / 1_000.0),
            is_error: logged.status >= 500,
        });
    }
    Ok(requests)
}

/// Keys alone: a number of 32 bits for each request. What is asked for stays the same.
fn keys(path: &Path) -> anyhow::Result<Vec<Request>> {
    let unpacked = Command::new("xz").arg("-dc").arg(path).output();
    let unpacked = unpacked.context("xz is needed (Debian: xz-utils)")?;
    anyhow::ensure!(
        unpacked.status.success(),
        "{} can't be unpacked",
        path.display()
    );
    let (numbers, _) = unpacked.stdout.as_chunks::<4>();
    let request = |number: &[u8; 4]| Request {
        at_ms: 0,
        key: hash(u64::from(u32::from_be_bytes(*number))),
        body: 0,
        latency_ms: 0.0,
        is_error: false,
    };
    Ok(numbers.iter().map(request).collect())
}

/// FNV-1a.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}
