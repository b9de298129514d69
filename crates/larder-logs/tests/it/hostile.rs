//! Inputs that are made to cost: time is linear in them, and memory is bounded (SECURITY SR-5).

use std::io::{self, Read};
use std::time::{Duration, Instant};

use larder_logs::{Flaw, Line, LogReader, MAX_LINE_BYTES, push_template};

use crate::log_checks::check_log;

/// A line of one byte, over and over, of this length; nobody holds it.
struct Endless {
    byte: u8,
    left: u64,
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(usize::try_from(self.left).unwrap());
        buffer[..count].fill(self.byte);
        self.left -= count as u64;
        Ok(count)
    }
}

#[test]
fn a_line_without_an_end_is_one_flaw() {
    let mut log = LogReader::new(Endless {
        byte: b'{',
        left: 1 << 30,
    });
    let line = log.next_line().unwrap();
    let Some(Line::Unreadable { text, flaw }) = line else {
        panic!("{line:?}");
    };
    assert!(flaw == Flaw::TooLong && text.len() < 1_024);
    assert_eq!(log.next_line().unwrap(), None);
}

/// Where a search begins anew at each bracket, quote or backslash, these take minutes.
#[test]
fn no_line_takes_long() {
    const TIME: &str = "h - - [10/Oct/2000:13:55:36 -0700] ";
    let long = |part: &str| part.repeat((MAX_LINE_BYTES - 100) / part.len());
    let lines = [
        long("["),
        long("[10/Oct/2000:13:55:36 -0700 "),
        format!("{TIME}\"GET /{}", long("\"")),
        format!("{TIME}\"GET /{}", long("\\")),
        format!("{TIME}\"GET /{}", long("\\\"")),
        format!("{TIME}\"GET /{}", long("\" 200")),
        format!("{TIME}\"GET {} HTTP/1.1\" 200 1", long(" HTTP/")),
        format!("{{\"a\":{}", long("[")),
        format!("{{\"{}\":1}}", long("\\u0041")),
        format!("ts_ms,{}", long(",")),
        format!(
            "ts_ms,method,url,status,bytes\n1,GET,\"{}\",200,1",
            long("\"\"")
        ),
    ];
    for line in lines {
        let began = Instant::now();
        for _ in 0..10 {
            check_log(line.as_bytes());
        }
        let elapsed = began.elapsed();
        let start = &line[..60.min(line.len())];
        assert!(elapsed < Duration::from_secs(5), "{start}: {elapsed:?}");
    }
}

#[test]
fn the_template_of_a_long_path_is_found_in_one_look() {
    for part in ["/", "/1", "/deadbeef0", "/a-"] {
        let path = part.repeat(4 << 20);
        let began = Instant::now();
        let mut template = String::new();
        push_template(&path, &mut template);
        assert!(began.elapsed() < Duration::from_secs(10), "{part}");
        assert!(template.len() >= path.len() / 3, "{part}");
    }
}
