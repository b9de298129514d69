//! Reads a log from standard input and counts its requests: what merely parsing it costs.

use std::time::Instant;

use larder_logs::{Line, LogReader};

fn main() -> std::io::Result<()> {
    let began = Instant::now();
    let mut log = LogReader::new(std::io::stdin().lock());
    let (mut requests, mut bytes) = (0_u64, 0_u64);
    while let Some(line) = log.next_line()? {
        if let Line::Request(request) = line {
            requests += 1;
            bytes = bytes.saturating_add(request.bytes);
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let rate = requests as f64 / seconds;
    println!("{requests} requests, {bytes} bytes, in {seconds:.2} s: {rate:.0} lines/s");
    Ok(())
}
