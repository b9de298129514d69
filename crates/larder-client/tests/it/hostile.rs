//! A control plane that lies changes nothing and takes no memory.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder_testing::alone::{is_alone, resident};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::{client, is_on, ttl, until};

/// A server that gives this answer to everything, and how often it was asked.
struct Liar {
    port: u16,
    asked: Arc<AtomicUsize>,
    /// The last request for policies.
    last: Arc<Mutex<String>>,
    task: JoinHandle<()>,
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a liar says.
#[derive(Clone)]
enum Lie {
    Bytes(Vec<u8>),
    /// A body without an end.
    Endless,
}

impl Liar {
    async fn start(lie: Lie) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        let last = Arc::new(Mutex::new(String::new()));
        let latest = Arc::clone(&last);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(
                    stream,
                    lie.clone(),
                    Arc::clone(&counter),
                    Arc::clone(&latest),
                ));
            }
        });
        Self {
            port,
            asked,
            last,
            task,
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn answer(
    mut stream: TcpStream,
    lie: Lie,
    asked: Arc<AtomicUsize>,
    last: Arc<Mutex<String>>,
) {
    let mut request = [0; 4_096];
    let Ok(read @ 1..) = stream.read(&mut request).await else {
        return;
    };
    // Neither reports nor streams are what is asked here.
    if request[..read].starts_with(b"GET /api/config/") {
        *last.lock().unwrap() = String::from_utf8_lossy(&request[..read]).into_owned();
        asked.fetch_add(1, Ordering::SeqCst);
    }
    match lie {
        Lie::Bytes(bytes) => {
            let _ = stream.write_all(&bytes).await;
        }
        Lie::Endless => {
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[")
                .await;
            let spaces = vec![b' '; 1 << 20];
            for _ in 0..1_024 {
                if stream.write_all(&spaces).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn ok(body: &str) -> Lie {
    let length = body.len();
    Lie::Bytes(format!("HTTP/1.1 200 OK\r\nETag: \"e\"\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes())
}

fn policy(changes: Value) -> Value {
    let mut policy = json!({
        "service_name": "svc", "endpoint": "/a", "method": "GET", "cache_enabled": false, "mode": "off", "ttl_seconds": 5,
        "jitter": 0, "negative_ttl_seconds": 0, "load_timeout_seconds": 30, "max_value_bytes": 1024, "include_query": null,
        "vary": [], "circuit_breaker": false, "reason": "r", "source": "policy", "version": 1
    });
    for (field, value) in changes.as_object().unwrap() {
        policy[field] = value.clone();
    }
    policy
}

/// A good policy for `/good` comes with it: an answer is taken whole or not at all.
fn config(changes: Value) -> Lie {
    let good = policy(json!({"endpoint": "/good"}));
    ok(
        &json!({"service_name": "svc", "version": 1, "policies": [good, policy(changes)]})
            .to_string(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lying_server_changes_nothing() {
    let redirected = Liar::start(config(json!({}))).await;
    let redirect = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:{}/api/config/svc\r\nContent-Length: 0\r\n\r\n",
        redirected.port
    );
    let many: Vec<_> = (0..2_001)
        .map(|index| policy(json!({"endpoint": format!("/{index}")})))
        .collect();
    let lies = [
        ("garbage", Lie::Bytes(vec![0xff; 10_000])),
        ("no JSON", ok("<html>")),
        ("another document", ok("[]")),
        ("deep", ok(&"[".repeat(1_000_000))),
        (
            "cut",
            ok(
                &json!({"service_name": "svc", "version": 1, "policies": [policy(json!({}))]})
                    .to_string()[..80],
            ),
        ),
        (
            "another service's",
            ok(
                &json!({"service_name": "other", "version": 1, "policies": [policy(json!({}))]})
                    .to_string(),
            ),
        ),
        (
            "too many",
            ok(&json!({"service_name": "svc", "version": 1, "policies": many}).to_string()),
        ),
        ("ttl 1e18", config(json!({"ttl_seconds": 1e18}))),
        ("ttl -1", config(json!({"ttl_seconds": -1}))),
        ("no endpoint", config(json!({"endpoint": "/../x"}))),
        ("no method", config(json!({"method": "G T"}))),
        ("jitter 7", config(json!({"jitter": 7}))),
        ("a huge value", config(json!({"max_value_bytes": u64::MAX}))),
        (
            "error",
            Lie::Bytes(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n".to_vec()),
        ),
        (
            "unchanged, unasked",
            Lie::Bytes(b"HTTP/1.1 304 Not Modified\r\n\r\n".to_vec()),
        ),
        (
            "1 GiB, said so",
            Lie::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n".to_vec()),
        ),
        ("redirect", Lie::Bytes(redirect.into_bytes())),
    ];
    let mut clients = Vec::new();
    for (name, lie) in lies {
        let liar = Liar::start(lie).await;
        clients.push((name, client(liar.port, None), liar));
    }
    for (name, client, liar) in &clients {
        until(Duration::from_secs(20), name, async || {
            client.status().trouble.is_some() && liar.asked() >= 1
        })
        .await;
        for endpoint in ["/a", "/good", "/1"] {
            assert_eq!(
                (ttl(client, endpoint), is_on(client, endpoint)),
                (77, true),
                "{name}"
            );
        }
        assert_eq!(client.status().version, None, "{name}");
    }
    assert_eq!(redirected.asked(), 0, "the client goes nowhere else");
}

/// The lies bite: the same answer without the lie is put in force.
#[tokio::test]
async fn the_same_answer_without_the_lie_is_put_in_force() {
    let honest = Liar::start(config(json!({"a field of a later version": 1}))).await;
    let client = client(honest.port, None);
    until(Duration::from_secs(5), "in force", async || {
        !is_on(&client, "/a") && !is_on(&client, "/good")
    })
    .await;
}

/// What could not be put in force is not fetched again and again: the client says that it has it.
#[tokio::test]
async fn a_parked_answer_is_not_asked_for_again() {
    let liar = Liar::start(config(json!({"ttl_seconds": -1}))).await;
    let client = client(liar.port, None);
    until(Duration::from_secs(20), "asked twice", async || {
        liar.asked() >= 2
    })
    .await;
    let request = liar.last.lock().unwrap().to_lowercase();
    assert!(request.contains("if-none-match: \"e\""), "{request}");
    assert!(client.status().trouble.unwrap().contains("ttl_seconds"));
}

#[tokio::test]
async fn unsafe_methods_are_never_cached_whatever_it_says() {
    use larder_core::{Governor as _, Key, Method, QueryRule, Service, Variant};
    let on = json!({"method": "POST", "mode": "on", "cache_enabled": true});
    let liar = Liar::start(config(on)).await;
    let client = client(liar.port, None);
    until(Duration::from_secs(5), "in force", async || {
        !is_on(&client, "/good")
    })
    .await;
    for (method, path) in [("POST", "/a"), ("DELETE", "/other")] {
        let variant = Variant::none().with_method(&Method::new(method).unwrap());
        let key = Key::with(
            &Service::new("svc").unwrap(),
            path,
            &QueryRule::All,
            &variant,
        )
        .unwrap();
        assert!(!client.gate(&key).cache_enabled, "{method}");
        assert_eq!(client.policy(&key).mode(), larder_core::Mode::Off);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endless_answer_takes_no_memory() {
    if !is_alone("hostile::an_endless_answer_takes_no_memory") {
        return;
    }
    let liar = Liar::start(Lie::Endless).await;
    let before = resident();
    let client = client(liar.port, None);
    until(Duration::from_secs(20), "given up", async || {
        client.status().trouble.is_some()
    })
    .await;
    assert!(client.status().trouble.unwrap().contains("8 MiB"));
    let grown = resident().saturating_sub(before);
    assert!(grown < 64 << 20, "grew by {grown} bytes");
    assert_eq!(ttl(&client, "/a"), 77);
}
