//! The dashboard's pages of the store and the instances; and that they follow what is so.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::browser::dump_dom;
use crate::dashboard::HOSTILE;
use crate::shared::Shared;
use crate::{Running, until};

/// A control plane with an embedded store in which a service has entries: one with a hostile value, one under a hostile key.
async fn stored() -> (Running, Shared, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let shared = Shared::open(folder.path(), None);
    let control = Running::start_with(|settings| settings.store = Some(shared.of_plane())).await;
    shared.fill(&["/plain/1", "/plain/2"], &[]).await;
    shared.fill(&["/tagged"], &["catalogue"]).await;
    let cache = shared.cache("svc", larder::PolicyPatch::default());
    let value = format!("{HOSTILE}\u{1b}[31m\u{202e}{{{{7*7}}}}${{alert(1)}}");
    for endpoint in ["/hostile/value", hostile_key()] {
        let key = larder::Key::new("svc", endpoint).unwrap();
        store(&cache, &key, &value).await;
    }
    let large = "x".repeat(100_000);
    let key = larder::Key::new("svc", "/large").unwrap();
    store(&cache, &key, &large).await;
    (control, shared, folder)
}

/// A store that has much else to do may not take it in time.
async fn store(cache: &larder::Cache, key: &larder::Key, value: &str) {
    until("it is stored", async || {
        let written = cache.set(key, value, Duration::from_secs(600)).await;
        written.is_stored()
    })
    .await;
}

/// What a client may have put into a path and a query.
fn hostile_key() -> &'static str {
    "/'><img src=x onerror=document.title='run'>?hx-get=/api/services&a=${alert(1)}&b=%1b[31m\"><script>"
}

fn key_of(endpoint: &str) -> String {
    larder::Key::new("svc", endpoint)
        .unwrap()
        .as_str()
        .to_owned()
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn entry(endpoint: &str) -> String {
    format!("/ui/keys/svc/entry?key={}", encoded(&key_of(endpoint)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_browsed_by_prefix_a_page_at_a_time() {
    let (control, _shared, _folder) = stored().await;
    let list = control.get("/api/keys/svc").await.json();
    assert_eq!(list["keys"].as_array().unwrap().len(), 6, "{list}");
    for (prefix, count) in [
        ("/plain", 2),
        ("cache:svc:/plain/1", 1),
        ("/tagged", 1),
        ("/none", 0),
        ("*", 0),
        ("/plain/?", 0),
    ] {
        let path = format!("/api/keys/svc?prefix={}", encoded(prefix));
        let list = control.get(&path).await.json();
        assert_eq!(
            list["keys"].as_array().unwrap().len(),
            count,
            "{prefix}: {list}"
        );
    }
    let (mut after, mut seen) = (String::new(), Vec::new());
    for _ in 0..20 {
        let path = format!("/api/keys/svc?limit=2&after={}", encoded(&after));
        let page = control.get(&path).await.json();
        let keys = page["keys"].as_array().unwrap();
        assert!(keys.len() <= 2, "{page}");
        seen.extend(
            keys.iter()
                .map(|one| one["key"].as_str().unwrap().to_owned()),
        );
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut after),
            None => break,
        }
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 6, "{seen:?}");
    let page = control.page("/ui/keys/svc?prefix=/plain").await.body;
    assert!(
        page.contains("cache:svc:/plain/1") && !page.contains("/tagged"),
        "{page}"
    );
    let none = control.page("/ui/keys/svc?prefix=/none").await.body;
    assert!(
        none.contains("Nothing is stored under this prefix"),
        "{none}"
    );
    for (path, status) in [
        ("/api/keys/s%20vc", 400),
        ("/api/keys/svc?limit=x", 400),
        ("/api/keys/svc?before=1", 400),
        ("/api/keys/svc?prefix=%1b", 422),
        ("/api/entries?key=products", 422),
        ("/api/entries", 400),
        ("/ui/keys/other/entry?key=cache%3Asvc%3A%2Fa", 400),
    ] {
        control.get(path).await.is_problem(status);
    }
    let long = "a".repeat(2_000);
    control
        .get(&format!("/api/keys/svc?prefix={long}"))
        .await
        .is_problem(422);
    control
        .get(&format!("/api/keys/svc?after={long}{long}{long}"))
        .await
        .is_problem(400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_says_its_form_its_age_and_what_a_lookup_would_do() {
    let (control, shared, _folder) = stored().await;
    let api = async |endpoint: &str| {
        let path = format!("/api/entries?key={}", encoded(&key_of(endpoint)));
        control.get(&path).await.json()
    };
    let framed = api("/tagged").await;
    assert_eq!(
        (&framed["lookup"], &framed["entry"]["form"]),
        (&"hit".into(), &"framed".into()),
        "{framed}"
    );
    let stamps = framed["entry"]["stamps"].as_array().unwrap();
    let tag = stamps
        .iter()
        .find(|one| one["name"] == "tag:catalogue")
        .unwrap();
    assert_eq!(tag["state"], "same");
    let none = api("/none").await;
    assert_eq!(
        (&none["lookup"], &none["entry"]),
        (&"load".into(), &Value::Null),
        "{none}"
    );
    let large = api("/large").await;
    assert_eq!(large["entry"]["value_bytes"], 100_002);
    assert!(
        large["entry"]["value"].as_str().unwrap().len() < 4_200,
        "it is cut"
    );
    let asked = json!({"service_name": "svc", "tag": "catalogue"});
    control.invalidate(asked).await;
    let dead = api("/tagged").await;
    assert_eq!(
        (&dead["lookup"], &dead["rule"]),
        (&"load".into(), &"dead".into()),
        "{dead}"
    );
    let page = control.page(&entry("/tagged")).await.body;
    assert!(
        page.contains("invalidated since") && page.contains("Delete"),
        "{page}"
    );

    let off = control
        .put("/api/policies/svc/plain/%7Bid%7D", r#"{"mode":"off"}"#)
        .await;
    assert_eq!(off.status, 200);
    assert_eq!(api("/plain/1").await["rule"], "policy_off");
    assert!(shared.has("/plain/1").await, "looking changes nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_values_from_outside_are_text_on_every_page() {
    let (control, _shared, _folder) = stored().await;
    let paths = [
        "/ui/keys/svc".to_owned(),
        format!("/ui/keys/svc?prefix={}", encoded(HOSTILE)),
        format!("/ui/keys/svc?after={}", encoded(HOSTILE)),
        entry("/hostile/value"),
        entry(hostile_key()),
        format!("/ui/keys/svc/entry?key={}", encoded(HOSTILE)),
        "/ui/instances".to_owned(),
        format!("/ui/instances?service={}", "svc"),
    ];
    let report = json!({"service_name": "svc", "instance": "a", "via": "poll", "rejected": {"tag": "db-1", "reason": HOSTILE}});
    control.post("/api/instances", &report.to_string()).await;
    let asked = json!({"service_name": "svc", "tag": "<b>", "reason": HOSTILE, "author": HOSTILE, "wait_seconds": 0});
    assert!(control.invalidate(asked).await.status < 300);
    for path in paths
        .iter()
        .map(String::as_str)
        .chain(["/ui/services/svc", "/ui/audit"])
    {
        let page = control.page(path).await;
        assert_eq!(page.status, 200, "{path}: {page:?}");
        let body = page.body.to_lowercase();
        for markup in [
            "<img",
            "onerror=\"",
            "<script>",
            " style=",
            "<b>",
            "\u{1b}",
            "\u{202e}",
        ] {
            assert!(!body.contains(markup), "{path}: {markup:?} in {body}");
        }
        assert_eq!(body.matches("<script").count(), 1, "{path}: its own");
    }
    let value = control.page(&entry("/hostile/value")).await.body;
    assert!(
        value.contains("onerror=") && value.contains("{{7*7}}"),
        "shown, as text: {value}"
    );
    for path in [&paths[0], &paths[3], &paths[4]] {
        let output = dump_dom(&format!("http://127.0.0.1:{}{path}", control.port)).await;
        let seen = String::from_utf8_lossy(&output.stdout).into_owned();
        // A page of keys stays as it is.
        let is_live = seen.contains("<span class=\"say\">live</span>");
        assert_eq!(is_live, path.contains("/entry"), "{seen}");
        assert!(!seen.contains("<title>run</title>"), "{seen}");
    }
}

#[tokio::test]
async fn without_a_store_the_pages_say_what_to_do_next() {
    let control = Running::start().await;
    for path in ["/ui/keys/svc".to_owned(), entry("/a")] {
        let page = control.page(&path).await;
        assert_eq!(page.status, 200);
        assert!(
            page.body.contains("This control plane has no store")
                && page.body.contains("REDIS_URL="),
            "{page:?}"
        );
    }
    for path in ["/api/keys/svc", "/api/entries?key=cache%3Asvc%3A%2Fa"] {
        control.get(path).await.is_problem(404);
    }
    let none = control.page("/ui/instances").await.body;
    assert!(none.contains("No instance was heard of"), "{none}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_away_is_said_and_nothing_else_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let mut redis = larder_testing::redis::RedisServer::start();
    let shared = Shared::open_within(folder.path(), Some(redis.url()), Duration::from_millis(100));
    until("the store answers", async || {
        shared.store.stats().await.is_ok()
    })
    .await;
    let control = Running::start_with(|settings| settings.store = Some(shared.of_plane())).await;
    assert!(control.page("/").await.body.contains("Entries"));
    redis.kill();
    for path in ["/ui/keys/svc".to_owned(), entry("/a")] {
        let page = control.page(&path).await;
        assert_eq!(page.status, 200, "{page:?}");
        assert!(
            page.body.contains("can't be shown") && page.body.contains("larder doctor"),
            "{page:?}"
        );
    }
    control.get("/api/keys/svc").await.is_problem(503);
    assert!(control.page("/").await.body.contains("does not answer"));
}

/// What a stream of the dashboard says, until it has said so many events.
async fn events(control: &Running, count: usize) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", control.port))
        .await
        .unwrap();
    let request = format!(
        "GET /api/events HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n",
        control.port
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    hear(&mut stream, count).await;
    stream
}

async fn hear(stream: &mut TcpStream, count: usize) -> String {
    let mut heard = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&heard);
        if text.matches("event: changed").count() >= count {
            return text.into_owned();
        }
        let read = tokio::time::timeout(
            larder_testing::process::PATIENCE,
            stream.read_buf(&mut heard),
        );
        assert!(
            read.await.unwrap().unwrap() > 0,
            "{:?}",
            String::from_utf8_lossy(&heard)
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_looks_hears_of_a_change_within_some_seconds_and_of_the_end() {
    let control = Running::start().await;
    let mut stream = events(&control, 1).await;
    let mut times = Vec::new();
    for ttl in 1..4 {
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        let began = Instant::now();
        control
            .put("/api/policies/svc/a", &format!("{{\"ttl_seconds\":{ttl}}}"))
            .await;
        hear(&mut stream, 1).await;
        times.push(began.elapsed());
    }
    assert!(
        times.iter().all(|took| *took < Duration::from_secs(8)),
        "not by the beat: {times:?}"
    );
    let mut rest = Vec::new();
    let ((), read) = tokio::join!(control.stop(), stream.read_to_end(&mut rest));
    read.unwrap();
}
