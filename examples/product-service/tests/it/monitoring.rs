//! The files in `deploy/` for Prometheus and Grafana are right by Prometheus' own tool, and name only what is really there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use larder::Settings;
use serde_json::{Value, json};

use crate::decides::start_control;
use crate::{PATIENCE, QUICK, Running, send};

fn deploy(file: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.join("deploy").join(file)
}

/// Runs Prometheus' tool on a file, beside which others that it names are.
fn promtool(words: &[&str], file: &Path) {
    let output = Command::new("promtool")
        .args(words)
        .arg(file.file_name().unwrap())
        .current_dir(file.parent().unwrap())
        .output()
        .expect("promtool, of Debian's package prometheus");
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?} {file:?}: {said}");
}

fn grafana() -> Value {
    let text = std::fs::read_to_string(deploy("grafana/larder.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Every query of the dashboard, its variables replaced.
fn queries(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array());
    let queries = targets
        .flatten()
        .map(|target| target["expr"].as_str().unwrap());
    let plain = |query: &str| {
        query
            .replace("$service", "shop")
            .replace("$__rate_interval", "5m")
            .replace("$__interval", "1m")
    };
    queries.map(plain).collect()
}

/// The metrics of Larder that a text names.
fn named(text: &str) -> BTreeSet<String> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let words = text.split(|letter: char| !is_part(letter));
    words
        .filter(|word| word.starts_with("larder_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_rules_fire_where_they_should_and_only_there() {
    promtool(&["check", "config"], &deploy("prometheus/prometheus.yml"));
    promtool(&["check", "rules"], &deploy("prometheus/larder-rules.yml"));
    promtool(
        &["test", "rules"],
        &deploy("prometheus/larder-rules.test.yml"),
    );
}

#[test]
fn the_dashboards_queries_are_well_formed_and_its_panels_apart() {
    let dashboard = grafana();
    let queries = queries(&dashboard);
    assert!(queries.len() > 20, "{queries:?}");
    let rules: Vec<Value> = queries
        .iter()
        .enumerate()
        .map(|(number, query)| json!({"record": format!("panel:{number}"), "expr": query}))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    // JSON is YAML.
    let file = folder.path().join("queries.yml");
    let group = json!({"groups": [{"name": "queries", "rules": rules}]});
    std::fs::write(&file, group.to_string()).unwrap();
    promtool(&["check", "rules"], &file);

    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<i64> = panels
        .iter()
        .map(|panel| panel["id"].as_i64().unwrap())
        .collect();
    assert_eq!(ids.len(), panels.len());
    let side = |panel: &Value, name: &str| panel["gridPos"][name].as_i64().unwrap();
    for (number, one) in panels.iter().enumerate() {
        assert!(side(one, "x") + side(one, "w") <= 24, "{one}");
        assert!(
            one["type"] == "row" || one["description"].is_string(),
            "{one}"
        );
        for other in &panels[..number] {
            let meets = |place: &str, size: &str| {
                side(one, place) < side(other, place) + side(other, size)
                    && side(other, place) < side(one, place) + side(one, size)
            };
            assert!(!(meets("x", "w") && meets("y", "h")), "{one} {other}");
        }
    }
}

#[tokio::test]
async fn what_they_name_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store").display().to_string();
    let set = |name: &str| (name == "LARDER_DIR").then(|| path.clone());
    let settings = Settings::read(set, folder.path()).unwrap();
    let store = Arc::new(larder::open_embedded(&settings).unwrap());
    let database = folder.path().join("products.db");
    let service = Running::start(&database, QUICK, store).await;
    let control = start_control(folder.path(), PATIENCE).await;
    // What it answered is counted then.
    send(control, "GET", "/healthz", "", "").await;
    let (_, of_service) = service.get("/metrics").await;
    let (_, of_control) = send(control, "GET", "/metrics", "", "").await;
    let there = named(&of_service);
    let there: BTreeSet<String> = there.union(&named(&of_control)).cloned().collect();
    let rules = std::fs::read_to_string(deploy("prometheus/larder-rules.yml")).unwrap();
    let asked = named(&(rules + &queries(&grafana()).join("\n")));
    assert!(asked.len() > 20, "{asked:?}");
    let missing: Vec<&String> = asked.difference(&there).collect();
    assert!(missing.is_empty(), "{missing:?} of {there:?}");
}
