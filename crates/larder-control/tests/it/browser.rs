//! A page of another origin, in a real Chromium, reads nothing and changes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::response::Html;
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::Running;

const PAGE: &str = r#"<!doctype html><title>elsewhere</title><pre id=out></pre>
<iframe name=frame></iframe>
<form id=form target=frame method=post enctype=text/plain action="TARGET/api/signals"><input name='{"service_name":"svc","endpoint":"/form","latency_ms":1,"status":"success","x":"' value='"}'></form>
<script>
const say = text => document.getElementById('out').textContent += text + ';';
const attempt = (name, path, options) => fetch('TARGET' + path, options)
  .then(async answer => say(name + (answer.type === 'opaque' ? ' sent' : ' read ' + await answer.text())), () => say(name + ' blocked'));
const signal = '{"service_name":"svc","endpoint":"/page","latency_ms":1,"status":"success"}';
(async () => {
  await attempt('get', '/api/services', {});
  await attempt('put', '/api/policies/svc/a', {method: 'PUT', headers: {'Content-Type': 'application/json'}, body: '{"mode":"off"}'});
  await attempt('delete', '/api/policies/svc/keep', {method: 'DELETE'});
  await attempt('opaque', '/api/signals', {method: 'POST', mode: 'no-cors', headers: {'Content-Type': 'text/plain'}, body: signal});
  await attempt('untyped', '/api/signals', {method: 'POST', mode: 'no-cors', body: new Blob([signal])});
  navigator.sendBeacon('TARGET/api/signals', signal);
  document.getElementById('form').submit();
  say('done');
})();
</script>"#;

/// What Chromium makes of a page, once its script has run for a while.
pub(crate) async fn dump_dom(url: &str) -> std::process::Output {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new("chromium")
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
        ])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ])
        .args([
            "--disable-dev-shm-usage",
            "--timeout=20000",
            "--virtual-time-budget=8000",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(["--dump-dom", url])
        .kill_on_drop(true)
        .output();
    tokio::time::timeout(Duration::from_secs(60), output)
        .await
        .expect("chromium ends")
        .expect("chromium is installed: scripts/test installs it")
}

/// What the page could tell, once it has tried everything against this target.
async fn visit(target: u16) -> String {
    let page = Html(PAGE.replace("TARGET", &format!("http://127.0.0.1:{target}")));
    let router = Router::new().fallback(async move || page.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let output = dump_dom(&format!("http://127.0.0.1:{port}/")).await;
    server.abort();
    let seen = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        seen.contains("done;"),
        "{seen} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_another_origin_reads_and_changes_nothing() {
    // The attack bites: a router without a gate takes what the page sends.
    let reached = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&reached);
    let naive = Router::new().route(
        "/api/signals",
        axum::routing::post(async move || {
            counter.fetch_add(1, Ordering::Relaxed);
        }),
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move { axum::serve(listener, naive).await.unwrap() });
    visit(port).await;
    server.abort();
    assert!(reached.load(Ordering::Relaxed) >= 2, "{reached:?}");

    let control = Running::start().await;
    control.put("/api/policies/svc/keep", "{}").await;
    let seen = visit(control.port).await;
    for name in ["get", "put", "delete"] {
        assert!(seen.contains(&format!("{name} blocked;")), "{seen}");
    }
    let services = control.get("/api/services").await.json();
    assert_eq!(services["services"][0]["version"], 1, "{services}");
    assert_eq!(services["services"][0]["endpoints"], 0, "{services}");
    let metrics = control.get("/metrics").await.body;
    let refused = metrics
        .lines()
        .find(|line| line.starts_with("larder_control_refused_total"))
        .unwrap();
    assert_ne!(
        refused, "larder_control_refused_total 0",
        "the page did send something"
    );
}
