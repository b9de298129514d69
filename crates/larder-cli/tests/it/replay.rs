//! `larder replay`: the figures of known logs, in every form, and what made-up and hostile ones do.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use flate2::Compression;
use flate2::read::{GzDecoder, MultiGzDecoder};
use flate2::write::GzEncoder;
use serde_json::Value;
use tempfile::TempDir;

use crate::running::{Answer, larder, run, until};

fn nasa() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/nasa_1995-08-01.csv.gz")
}

fn nasa_plain() -> String {
    let packed = std::fs::read(nasa()).unwrap();
    let mut plain = String::new();
    GzDecoder::new(&*packed).read_to_string(&mut plain).unwrap();
    plain
}

/// A folder for a replay: `tmp` in it is where its store goes.
fn place() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("tmp")).unwrap();
    folder
}

fn replay_command(folder: &TempDir, args: &[&str]) -> Command {
    let mut command = larder(folder.path());
    command
        .args(["replay"])
        .args(args)
        .env("TMPDIR", folder.path().join("tmp"))
        .stdin(Stdio::null());
    command
}

fn replay(folder: &TempDir, args: &[&str]) -> Answer {
    let answer: Answer = replay_command(folder, args).output().unwrap().into();
    assert_eq!(left(folder), 0, "nothing of the store is left");
    answer
}

/// The report as JSON, without what it took.
fn report(folder: &TempDir, args: &[&str]) -> Value {
    let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
    let answer = replay(folder, &args);
    assert_eq!(answer.code, 0, "{}", answer.err);
    let mut report: Value = serde_json::from_str(&answer.out).unwrap();
    report.as_object_mut().unwrap().remove("elapsed_seconds");
    report
}

/// What lies in the folder for temporary files.
fn left(folder: &TempDir) -> usize {
    std::fs::read_dir(folder.path().join("tmp"))
        .unwrap()
        .count()
}

fn write(folder: &TempDir, name: &str, text: impl AsRef<[u8]>) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn number(report: &Value, pointer: &str) -> u64 {
    report
        .pointer(pointer)
        .and_then(Value::as_u64)
        .unwrap_or_else(|| panic!("{pointer}: {report}"))
}

/// What a cache of any size with this TTL does to a CSV log: counted with a map, beside the engine.
fn counted(log: &str, ttl_ms: u64) -> (u64, u64) {
    let mut stored = std::collections::HashMap::new();
    let (mut hits, mut misses) = (0, 0);
    for line in log.lines().skip(1).filter(|line| line.contains(",GET,")) {
        let at: u64 = line.split(',').next().unwrap().parse().unwrap();
        // What is between the method and the last two fields.
        let url = line
            .split_once(",GET,")
            .unwrap()
            .1
            .rsplitn(3, ',')
            .last()
            .unwrap();
        match stored.get(url) {
            Some(since) if at < since + ttl_ms => hits += 1,
            _ => {
                misses += 1;
                stored.insert(url, at);
            }
        }
    }
    (hits, misses)
}

#[test]
fn the_nasa_log_without_expiry_has_the_hit_ratio_that_no_cache_can_exceed() {
    let folder = place();
    let report = report(&folder, &[nasa().to_str().unwrap(), "--ttl", "none"]);
    let (hits, misses) = counted(&nasa_plain(), u64::MAX / 2);
    assert_eq!(number(&report, "/total/hits"), hits);
    assert_eq!(number(&report, "/total/misses"), misses);
    let ratio = report["total"]["hit_ratio"].as_f64().unwrap();
    assert!((ratio - 0.932).abs() < 0.0005, "{ratio}");
    assert_eq!(number(&report, "/store/evictions"), 0);
    assert_eq!(number(&report, "/store/entries"), misses);
}

#[test]
fn the_nasa_log_with_a_ttl_of_300_s_has_5815_hits_of_10000() {
    let folder = place();
    let report = report(&folder, &[nasa().to_str().unwrap()]);
    let (hits, misses) = counted(&nasa_plain(), 300_000);
    assert_eq!(number(&report, "/total/hits"), hits);
    assert_eq!(number(&report, "/total/misses"), misses);
    let ratio = report["total"]["hit_ratio"].as_f64().unwrap();
    assert!((ratio - 0.5815).abs() < 0.001, "{ratio}");
}

#[test]
fn every_figure_adds_up() {
    let folder = place();
    let report = report(&folder, &[nasa().to_str().unwrap(), "--ttl", "60"]);
    assert_eq!(number(&report, "/total/requests"), 30_873);
    assert_eq!(number(&report, "/log/other_methods"), 96);
    for part in ["/endpoints", "/over_time"] {
        let rows = report.pointer(part).unwrap().as_array().unwrap();
        for field in [
            "requests",
            "hits",
            "misses",
            "origin_calls",
            "hit_bytes",
            "origin_bytes",
        ] {
            let sum: u64 = rows.iter().map(|row| row[field].as_u64().unwrap()).sum();
            assert_eq!(
                sum,
                number(&report, &format!("/total/{field}")),
                "{part} {field}"
            );
        }
    }
    // Each load stored an entry, that has expired, was overwritten or is still there.
    assert_eq!(
        number(&report, "/total/origin_calls"),
        number(&report, "/total/misses")
    );
    let gone = number(&report, "/store/expired") + number(&report, "/store/entries");
    assert!(gone <= number(&report, "/total/misses"), "{report}");
}

#[test]
fn gzip_plain_and_standard_input_give_the_same() {
    let folder = place();
    let plain = write(&folder, "nasa.csv", nasa_plain());
    let packed = report(&folder, &[nasa().to_str().unwrap()]);
    assert_eq!(report(&folder, &[&plain]), packed);
    let mut command = replay_command(&folder, &["-", "--json"]);
    command.stdin(std::fs::File::open(nasa()).unwrap());
    let answer: Answer = command.output().unwrap().into();
    let mut piped: Value = serde_json::from_str(&answer.out).unwrap();
    piped.as_object_mut().unwrap().remove("elapsed_seconds");
    assert_eq!(piped, packed);
}

/// The same requests in all formats.
#[test]
fn the_formats_give_the_same() {
    let folder = place();
    let (mut csv, mut common, mut combined, mut json) = (
        "ts_ms,client,method,url,status,bytes,latency_ms\n".to_owned(),
        String::new(),
        String::new(),
        String::new(),
    );
    for index in 0..2_000_u64 {
        let second = index / 2;
        let at = 971_211_336 + second;
        let (minute, rest) = ((55 * 60 + 36 + second) / 60 % 60, (36 + second) % 60);
        let hour = 13 + (55 * 60 + 36 + second) / 3_600;
        let time = format!("10/Oct/2000:{hour:02}:{minute:02}:{rest:02} -0700");
        let target = format!("/products/{}?q=a,b", index * index % 97);
        writeln!(csv, "{at}000,7,GET,\"{target}\",200,{index},1.5").unwrap();
        let line = format!("10.0.0.1 - - [{time}] \"GET {target} HTTP/1.1\" 200 {index}");
        writeln!(common, "{line}").unwrap();
        writeln!(combined, "{line} \"-\" \"an agent\"").unwrap();
        writeln!(json, r#"{{"time":"{time}","request":"GET {target} HTTP/1.1","status":"200","body_bytes_sent":{index}}}"#).unwrap();
    }
    let mut reports = [
        ("csv", csv),
        ("common", common),
        ("combined", combined),
        ("json", json),
    ]
    .map(|(name, text)| {
        let path = write(&folder, name, text);
        let mut report = report(&folder, &[&path, "--ttl", "100"]);
        report["log"].as_object_mut().unwrap().remove("format");
        // The header of the CSV is a line too.
        report["log"].as_object_mut().unwrap().remove("lines");
        report
    })
    .into_iter();
    let first = reports.next().unwrap();
    assert_eq!(number(&first, "/total/requests"), 2_000);
    assert!(number(&first, "/total/hits") > 500, "{first}");
    assert_eq!(first["log"]["from"], "2000-10-10T20:55:36Z");
    assert_eq!(first["endpoints"][0]["endpoint"], "/products/{id}");
    reports.for_each(|report| assert_eq!(report, first));
}

/// `GET` lines, one a second, at a path and with a status.
fn log(requests: impl IntoIterator<Item = (u64, String, u16, u64)>) -> String {
    let mut log = "ts_ms,client,method,url,status,bytes\n".to_owned();
    for (at, url, status, bytes) in requests {
        writeln!(
            log,
            "{},1,GET,{url},{status},{bytes}",
            1_000_000_000_000 + at * 1_000
        )
        .unwrap();
    }
    log
}

#[test]
fn the_query_paths_and_statuses_are_chosen() {
    let folder = place();
    let requests = (0..300).map(|index| {
        let status = if index % 3 == 0 { 404 } else { 200 };
        let path = if index % 2 == 0 {
            "products/7"
        } else {
            "search"
        };
        (index, format!("/{path}?n={index}"), status, 100)
    });
    let path = write(&folder, "log.csv", log(requests));
    let all = report(&folder, &[&path]);
    assert_eq!(
        (number(&all, "/total/requests"), number(&all, "/total/hits")),
        (300, 0)
    );
    let plain = report(&folder, &[&path, "--ignore-query", "--ttl", "none"]);
    assert_eq!(number(&plain, "/total/hits"), 298);
    let template = report(
        &folder,
        &[
            &path,
            "--ignore-query",
            "--ttl",
            "none",
            "--include",
            "/products/{id}",
        ],
    );
    assert_eq!(
        (
            number(&template, "/total/hits"),
            number(&template, "/log/not_included")
        ),
        (149, 150)
    );
    let glob = report(
        &folder,
        &[&path, "--include", "/sea*", "--status", "200,304"],
    );
    assert_eq!(
        (
            number(&glob, "/total/requests"),
            number(&glob, "/log/other_statuses")
        ),
        (100, 100)
    );
}

#[test]
fn the_clock_never_goes_back_and_says_how_often_it_should_have() {
    let folder = place();
    let requests = [(1_000, 0), (1_010, 1), (900, 0), (1_011, 0)];
    let requests = requests.map(|(at, url)| (at, format!("/{url}"), 200, 10));
    let path = write(&folder, "log.csv", log(requests));
    let report = report(&folder, &[&path, "--ttl", "50"]);
    assert_eq!(
        (
            number(&report, "/log/went_back"),
            number(&report, "/total/hits")
        ),
        (1, 2)
    );
    assert_eq!(report["log"]["to"], "2001-09-09T02:03:31Z");
}

#[test]
fn lines_that_are_none_are_counted_and_the_first_is_shown() {
    let folder = place();
    let good = log([(0, "/a".to_owned(), 200, 10), (1, "/a".to_owned(), 200, 10)]);
    let path = write(
        &folder,
        "log.csv",
        format!("# a comment\n{good}\nwhat is this\n1,2,3\n"),
    );
    let answer = replay(&folder, &[&path]);
    assert_eq!(answer.code, 0, "{}", answer.err);
    assert!(answer.out.contains("3 are no log lines"), "{}", answer.out);
    assert!(
        answer
            .out
            .contains("the first is line 1 (it is not in the log's format): # a comment")
    );
    let report = report(&folder, &[&path]);
    assert_eq!(
        (
            number(&report, "/log/unreadable"),
            number(&report, "/total/hits")
        ),
        (3, 1)
    );
}

#[test]
fn a_store_that_is_too_small_evicts_and_stays_within_its_size() {
    let folder = place();
    // 2,000 pages of 4 KiB, of which the last 200 are asked for again and again.
    let requests = (0..20_000_u64).map(|index| {
        let page = if index % 2 == 0 {
            index % 2_000
        } else {
            1_800 + index * 7 % 200
        };
        (index / 100, format!("/page-{page}"), 200, 4_000)
    });
    let path = write(&folder, "log.csv", log(requests));
    let small = report(&folder, &[&path, "--ttl", "none", "--max-bytes", "4MiB"]);
    let large = report(&folder, &[&path, "--ttl", "none"]);
    assert!(number(&small, "/store/evictions") > 1_000, "{small}");
    assert!(number(&small, "/store/used_bytes") <= 4 << 20);
    assert_eq!(number(&large, "/store/evictions"), 0);
    let ratio = |report: &Value| report["total"]["hit_ratio"].as_f64().unwrap();
    assert!(
        ratio(&small) > 0.4 && ratio(&small) + 0.2 < ratio(&large),
        "{} {}",
        ratio(&small),
        ratio(&large)
    );
    let evictions = small["over_time"].as_array().unwrap().iter();
    let evictions: u64 = evictions
        .map(|row| row["evictions"].as_u64().unwrap())
        .sum();
    assert_eq!(evictions, number(&small, "/store/evictions"));
}

#[test]
fn an_answer_larger_than_an_eighth_of_the_store_is_not_stored_and_said() {
    let folder = place();
    let requests = (0..4).map(|at| (at, "/video".to_owned(), 200, 3_u64 << 40));
    let path = write(&folder, "log.csv", log(requests));
    let report = report(&folder, &[&path, "--max-bytes", "16MiB"]);
    assert_eq!(
        (
            number(&report, "/store/too_large"),
            number(&report, "/total/hits")
        ),
        (4, 0)
    );
}

/// ESC, a title by OSC, CSI in one byte, right-to-left override, DEL; and markup.
const CANARY: &str =
    "\u{1b}[31m\u{1b}]0;t\u{7}\u{9b}2J\u{202e}\u{7f}<script>alert('1')</script>&\"";

fn steers(text: &str) -> bool {
    text.chars().any(|character| {
        (character.is_control() && character != '\n')
            || ('\u{202a}'..='\u{202e}').contains(&character)
    })
}

#[test]
fn names_from_the_log_are_escaped_in_tables_json_and_pictures() {
    let folder = place();
    let target = CANARY.replace('"', "\\\"");
    let line = |target: &str| {
        format!("h - - [10/Oct/2000:13:55:36 -0700] \"GET /{target} HTTP/1.1\" 200 5\n")
    };
    let text = format!(
        "{CANARY}\n{}{}",
        line(&target),
        line("<script>alert(2)</script>")
    );
    assert!(steers(&text), "the naive form would steer a terminal");
    let name = format!("{CANARY}.log").replace('/', "-");
    let path = write(&folder, &name, text);
    let picture = folder.path().join("picture.svg");
    let picture = picture.to_str().unwrap();
    for args in [&[&*path, "--svg", picture][..], &[&path, "--json"]] {
        let answer = replay(&folder, args);
        assert_eq!(answer.code, 0, "{}", answer.err);
        assert!(
            !steers(&answer.out) && !steers(&answer.err),
            "{}",
            answer.out
        );
        assert!(answer.out.contains("script"), "{}", answer.out);
    }
    let svg = std::fs::read_to_string(picture).unwrap();
    assert!(
        !steers(&svg) && !svg.contains("<script") && !svg.contains("&<"),
        "{svg}"
    );
    assert!(
        svg.contains("&lt;script&gt;alert(2)&lt;/script&gt;"),
        "{svg}"
    );
    let missing = replay(&folder, &[&format!("/none/{CANARY}")]);
    assert_eq!(missing.code, 3);
    assert!(!steers(&missing.err), "{}", missing.err);
}

/// Memory of its own that a child held at most, in bytes: what it mapped of the store's file is not counted, which
/// `--max-bytes` bounds.
fn peak_memory(
    command: &mut Command,
    watch: impl FnOnce(&mut std::process::Child),
) -> (Answer, u64) {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let watcher = std::thread::spawn(move || {
        let mut peak = 0;
        while let Ok(status) = std::fs::read_to_string(&status) {
            let line = status.lines().find(|line| line.starts_with("RssAnon:"));
            let Some(line) = line else { break };
            let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
            peak = peak.max(kib << 10);
            std::thread::sleep(Duration::from_millis(2));
        }
        peak
    });
    watch(&mut child);
    let answer: Answer = child.wait_with_output().unwrap().into();
    (answer, watcher.join().unwrap())
}

/// 10 GiB in one line, of 160 members of 64 MiB.
#[test]
fn a_gzip_bomb_of_one_line_takes_no_memory() {
    const MEMBERS: usize = 160;
    const MEMBER_BYTES: usize = 64 << 20;
    let folder = place();
    let pack = |bytes: &[u8]| {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(bytes).unwrap();
        packed.finish().unwrap()
    };
    let member = pack(&vec![b'['; MEMBER_BYTES]);
    let mut bomb = member.repeat(MEMBERS);
    let request = log([(0, "/a".to_owned(), 200, 10)]);
    bomb.extend(pack(format!("\n{request}").as_bytes()));
    assert!(bomb.len() < 64 << 20, "{} bytes", bomb.len());

    let mut naive = Vec::new();
    let unpacked = MultiGzDecoder::new(&*bomb).take(4 * MEMBER_BYTES as u64);
    BufReader::new(unpacked)
        .read_until(b'\n', &mut naive)
        .unwrap();
    assert_eq!(naive.len(), 4 * MEMBER_BYTES, "the naive form holds it all");
    drop(naive);

    let path = write(&folder, "bomb.gz", bomb);
    let mut command = replay_command(&folder, &[&path]);
    let (answer, peak) = peak_memory(&mut command, |_| ());
    assert_eq!(answer.code, 0, "{}", answer.err);
    let words = "it is longer than 64 KiB";
    assert!(answer.out.contains(words), "{}", answer.out);
    assert!(answer.out.contains("\nrequests     1\n"), "{}", answer.out);
    assert!(peak < 64 << 20, "{} MiB", peak >> 20);
}

/// A twentieth of them are told apart. (A million are found in the unit test of the endpoints.)
#[test]
fn two_hundred_thousand_templates_take_no_more_memory_than_ten_thousand() {
    const TEMPLATES: u64 = 200_000;
    let folder = place();
    let args = ["-", "--json", "--max-bytes", "8MiB", "--ttl", "1"];
    let mut command = replay_command(&folder, &args);
    command.stdin(Stdio::piped());
    let (answer, peak) = peak_memory(&mut command, |child| {
        let mut out = std::io::BufWriter::new(child.stdin.take().unwrap());
        out.write_all(b"ts_ms,method,url,status,bytes\n").unwrap();
        for index in 0..TEMPLATES {
            let at = 1_000_000_000_000 + index / 1_000 * 1_000;
            writeln!(out, "{at},GET,/page-{index}/x,200,9").unwrap();
        }
    });
    assert_eq!(answer.code, 0, "{}", answer.err);
    let report: Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!(number(&report, "/total/requests"), TEMPLATES);
    assert_eq!(report["endpoints"].as_array().unwrap().len(), 10_001);
    assert_eq!(report["endpoints"][0]["endpoint"], "(others)");
    assert!(peak < 128 << 20, "{} MiB", peak >> 20);
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    let folder = place();
    let mut command = replay_command(&folder, &["-"]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin
        .write_all(log([(0, "/a".to_owned(), 200, 10)]).as_bytes())
        .unwrap();
    until("the store is there", Duration::from_secs(30), || {
        let mut folders = std::fs::read_dir(folder.path().join("tmp")).unwrap();
        folders.any(|entry| entry.unwrap().path().join("store/data.mdb").exists())
    });
    Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(left(&folder), 0);
    drop(stdin);
}

#[test]
fn a_log_without_a_request_exits_with_1_and_one_that_can_not_be_read_with_3() {
    let folder = place();
    for text in [
        "",
        "\n\n",
        "what is this\n",
        "ts_ms,method,url,status,bytes\n",
    ] {
        let path = write(&folder, "log", text);
        let answer = replay(&folder, &[&path]);
        assert_eq!(
            (answer.code, answer.err.contains("no request")),
            (1, true),
            "{text}"
        );
    }
    let whole = std::fs::read(nasa()).unwrap();
    let cut = write(&folder, "cut.gz", &whole[..whole.len() / 2]);
    let answer = replay(&folder, &[&cut]);
    assert_eq!(answer.code, 3);
    assert!(answer.err.contains("is it whole?"), "{}", answer.err);
    let answer = replay(&folder, &[folder.path().to_str().unwrap()]);
    assert!(
        answer.code == 3 && answer.err.contains("is a folder"),
        "{}",
        answer.err
    );
}

#[test]
fn wrong_options_exit_with_2() {
    let folder = place();
    for (args, words) in [
        (["--ttl", "0"], "or none"),
        (["--ttl", "-1"], "or none"),
        (["--max-bytes", "1KiB"], "1MiB"),
        (["--max-bytes", "64MB"], "64MiB"),
        (["--status", "2xx"], "2xx"),
        (["--include", "POST /a/{id}"], "only GETs"),
        (["--include", "/a{id}"], "not a parameter"),
    ] {
        let answer = run(folder.path(), &["replay", "log", args[0], args[1]]);
        assert_eq!(answer.code, 2, "{args:?}");
        assert!(answer.err.contains(words), "{args:?}: {}", answer.err);
    }
}
