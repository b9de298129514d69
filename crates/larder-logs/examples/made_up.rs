//! Writes a made-up access log in Combined Log Format, to measure with: `made_up LINES [URLS] [LINES_PER_SECOND]`.
//!
//! URLs are asked for by Zipf's law with exponent 1; each has a size of its own, 200 to 3,000 bytes. The same arguments make
//! the same log.

use std::io::{BufWriter, Write as _};

/// 2026-11-25T00:00:00Z.
const BEGIN_SECONDS: u64 = 1_795_564_800;
const AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let mut argument = |default| arguments.next().and_then(Result::ok).unwrap_or(default);
    let (lines, urls, per_second) = (argument(1_000_000), argument(50_000), argument(2_000));
    let sums: Vec<f64> = (1..=urls)
        .scan(0.0, |sum, rank| {
            *sum += 1.0 / rank as f64;
            Some(*sum)
        })
        .collect();
    let all = sums.last().copied().unwrap_or(0.0);
    let targets: Vec<(String, u64)> = (0..urls).map(target).collect();
    let mut out = BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
    let mut chance = 1_u64;
    for line in 0..lines {
        chance = next(chance);
        let at = (chance >> 11) as f64 / (1_u64 << 53) as f64 * all;
        let rank = sums.partition_point(|sum| *sum < at).min(targets.len() - 1);
        let (target, bytes) = &targets[rank];
        let seconds = BEGIN_SECONDS + line / per_second.max(1);
        let (day, hour) = (
            25 + seconds / 86_400 - BEGIN_SECONDS / 86_400,
            seconds / 3_600 % 24,
        );
        let (minute, second) = (seconds / 60 % 60, seconds % 60);
        writeln!(
            out,
            "10.{}.{}.{} - - [{day:02}/Nov/2026:{hour:02}:{minute:02}:{second:02} +0000] \"GET {target} HTTP/1.1\" 200 {bytes} \"-\" \"{AGENT}\"",
            chance >> 56,
            chance >> 48 & 255,
            chance >> 40 & 255,
        )?;
    }
    out.flush()
}

fn target(index: u64) -> (String, u64) {
    let mixed = next(index.wrapping_mul(2_654_435_761).wrapping_add(7));
    let target = match index % 4 {
        0 => format!("/products/{index}"),
        1 => format!(
            "/users/{:08x}-0000-4000-8000-{:012x}/orders",
            mixed >> 32,
            index
        ),
        2 => format!("/search?q=word{index}&page={}", mixed % 5),
        _ => format!("/files/{mixed:016x}/preview.json"),
    };
    (target, 200 + mixed % 2_801)
}

/// Knuth's linear congruential generator (MMIX).
fn next(chance: u64) -> u64 {
    chance
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407)
}
