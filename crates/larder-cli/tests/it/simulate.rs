//! `larder simulate`: what each TTL would have done with a log, by the figures of `larder replay`, and what was decided.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use crate::running::run;

fn report(folder: &Path, args: &[&str]) -> Value {
    let args: Vec<&str> = ["simulate"]
        .iter()
        .chain(args)
        .copied()
        .chain(["--json"])
        .collect();
    let answer = run(folder, &args);
    assert_eq!(answer.code, 0, "{}", answer.err);
    serde_json::from_str(&answer.out).unwrap()
}

fn of_ttl(rows: &Value, ttl: u64) -> Value {
    let rows = rows.as_array().unwrap();
    rows.iter()
        .find(|row| row["ttl_seconds"] == ttl)
        .unwrap()
        .clone()
}

#[test]
fn the_hits_of_a_ttl_are_those_of_a_replay() {
    let folder = tempfile::tempdir().unwrap();
    let log = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/nasa_1995-08-01.csv.gz");
    let log = log.to_str().unwrap();
    let simulated = report(folder.path(), &[log, "--svg", "ttls.svg"]);
    for ttl in ["60", "300"] {
        let replayed = run(folder.path(), &["replay", log, "--ttl", ttl, "--json"]);
        let replayed: Value = serde_json::from_str(&replayed.out).unwrap();
        let expected = replayed["total"]["hit_ratio"].as_f64().unwrap();
        let row = of_ttl(&simulated["total"], ttl.parse().unwrap());
        let hits = row["hit_ratio"].as_f64().unwrap();
        assert!(
            (hits - expected).abs() < 0.003,
            "{ttl} s: {hits}, replayed {expected}"
        );
    }
    let svg = std::fs::read_to_string(folder.path().join("ttls.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("polyline"));
}

#[test]
fn a_slow_endpoint_would_be_cached_and_a_volatile_one_would_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = "ts_ms,client,method,url,status,bytes,latency_ms\n".to_owned();
    for second in 0..1_800_u64 {
        let id = second % 10;
        let at_ms = 1_800_000_000_000 + second * 1_000;
        writeln!(log, "{at_ms},1,GET,/same/{id},200,100,500").unwrap();
        writeln!(log, "{at_ms},1,GET,/other/{id},200,{second},500").unwrap();
        writeln!(log, "{at_ms},1,GET,/unique/{second},200,100,500").unwrap();
    }
    std::fs::write(folder.path().join("log.csv"), log).unwrap();
    let report = report(folder.path(), &["log.csv"]);
    let endpoint = |name: &str| {
        let all = report["endpoints"].as_array().unwrap();
        all.iter()
            .find(|one| one["endpoint"] == name)
            .unwrap()
            .clone()
    };
    let same = endpoint("/same/{id}");
    assert_eq!(same["origin_seconds"], 900.0, "by the log's latency");
    assert_eq!(of_ttl(&same["ttls"], 3_600)["saved_seconds"], 895.0);
    assert_eq!(of_ttl(&same["ttls"], 3_600)["peak_bytes"], 1_000);
    assert_eq!(same["decided"]["flips"], 1);
    assert!(
        same["decided"]["hit_ratio"].as_f64().unwrap() > 0.7,
        "{same}"
    );
    let other = endpoint("/other/{id}");
    assert_eq!(of_ttl(&other["ttls"], 60)["stale_share"], 1.0);
    assert_eq!(other["decided"]["flips"], 0);
    let code = |one: &Value| {
        one["decided"]["decisions"]
            .as_array()
            .unwrap()
            .last()
            .unwrap()["code"]
            .clone()
    };
    assert_eq!(code(&other), "changes_too_often");
    assert_eq!(code(&endpoint("/unique/{id}")), "no_reuse");
    let table = run(folder.path(), &["simulate", "log.csv"]);
    assert!(table.out.contains("auto: on for"), "{}", table.out);
}

#[test]
fn a_log_without_a_request_is_said() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("log"), "nothing\n").unwrap();
    assert_eq!(run(folder.path(), &["simulate", "log"]).code, 1);
}
