//! What a web page can send to loopback, or make its own name resolve to, gets nowhere. Each request is written as
//! bytes, since no HTTP client would send some of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use axum::Router;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::Running;

const BODY: &str = r#"{"mode":"off"}"#;
const JSON: &str = "Content-Type: application/json\r\n";

/// What is sent, and what must come of it. `PORT` is the port.
struct Case(&'static str, &'static str, u16);

/// With JSON and a body, unless the request line is a GET's.
const ATTACKS: &[Case] = &[
    Case("no Host", "PUT /api/policies/svc/a HTTP/1.1\r\n<JSON>", 400),
    Case(
        "no Host, HTTP/1.0",
        "PUT /api/policies/svc/a HTTP/1.0\r\n<JSON>",
        400,
    ),
    Case(
        "empty Host",
        "PUT /api/policies/svc/a HTTP/1.1\r\nHost: \r\n<JSON>",
        400,
    ),
    Case(
        "two Hosts",
        "PUT /api/policies/svc/a HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nHost: evil.example\r\n<JSON>",
        400,
    ),
    Case(
        "two equal Hosts",
        "PUT /api/policies/svc/a HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nHost: 127.0.0.1:PORT\r\n<JSON>",
        400,
    ),
    Case(
        "a rebinding name",
        "PUT /api/policies/svc/a HTTP/1.1\r\nHost: evil.example:PORT\r\n<JSON>",
        421,
    ),
    Case(
        "a rebinding name that holds an address",
        "PUT /api/policies/svc/a HTTP/1.1\r\nHost: 127.0.0.1.nip.io:PORT\r\n<JSON>",
        421,
    ),
    Case(
        "a name that ends in localhost",
        "PUT /api/policies/svc/a HTTP/1.1\r\nHost: evil.localhost:PORT\r\n<JSON>",
        421,
    ),
    Case(
        "a dot at the end",
        "PUT /api/policies/svc/a HTTP/1.1\r\nHost: localhost.:PORT\r\n<JSON>",
        421,
    ),
    Case(
        "0.0.0.0",
        "PUT /api/policies/svc/a HTTP/1.1\r\nHost: 0.0.0.0:PORT\r\n<JSON>",
        421,
    ),
    Case(
        "the any address",
        "PUT /api/policies/svc/a HTTP/1.1\r\nHost: [::]:PORT\r\n<JSON>",
        421,
    ),
    Case(
        "another writing of 127.0.0.1",
        "PUT /api/policies/svc/a HTTP/1.1\r\nHost: 2130706433:PORT\r\n<JSON>",
        421,
    ),
    Case(
        "no port",
        "PUT /api/policies/svc/a HTTP/1.1\r\nHost: 127.0.0.1\r\n<JSON>",
        421,
    ),
    Case(
        "another port",
        "PUT /api/policies/svc/a HTTP/1.1\r\nHost: 127.0.0.1:1\r\n<JSON>",
        421,
    ),
    Case(
        "a user in Host",
        "PUT /api/policies/svc/a HTTP/1.1\r\nHost: x@127.0.0.1:PORT\r\n<JSON>",
        400,
    ),
    Case(
        "a path in Host",
        "PUT /api/policies/svc/a HTTP/1.1\r\nHost: 127.0.0.1:PORT/x\r\n<JSON>",
        400,
    ),
    Case(
        "an absolute URI of another host",
        "PUT http://evil.example/api/policies/svc/a HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n<JSON>",
        400,
    ),
    Case(
        "an absolute URI, Host of another",
        "PUT http://127.0.0.1:PORT/api/policies/svc/a HTTP/1.1\r\nHost: evil.example\r\n<JSON>",
        400,
    ),
    Case(
        "Origin null",
        "PUT /api/policies/svc/a HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nOrigin: null\r\n<JSON>",
        403,
    ),
    Case(
        "Origin of another site",
        "PUT /api/policies/svc/a HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nOrigin: https://evil.example\r\n<JSON>",
        403,
    ),
    Case(
        "Origin of another port",
        "PUT /api/policies/svc/a HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nOrigin: http://127.0.0.1:3000\r\n<JSON>",
        403,
    ),
    Case(
        "Origin of another name of ours",
        "PUT /api/policies/svc/a HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nOrigin: http://localhost:PORT\r\n<JSON>",
        403,
    ),
    Case(
        "Origin without a scheme",
        "PUT /api/policies/svc/a HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nOrigin: 127.0.0.1:PORT\r\n<JSON>",
        403,
    ),
    Case(
        "two Origins",
        "PUT /api/policies/svc/a HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nOrigin: http://127.0.0.1:PORT\r\nOrigin: https://evil.example\r\n<JSON>",
        403,
    ),
    Case(
        "an Origin that begins like ours",
        "PUT /api/policies/svc/a HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nOrigin: http://127.0.0.1:PORT.evil.example\r\n<JSON>",
        403,
    ),
    Case(
        "cross-site",
        "PUT /api/policies/svc/a HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nSec-Fetch-Site: cross-site\r\n<JSON>",
        403,
    ),
    Case(
        "same-site",
        "PUT /api/policies/svc/a HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nSec-Fetch-Site: same-site\r\n<JSON>",
        403,
    ),
    Case(
        "a cross-site read",
        "GET /api/services HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n",
        403,
    ),
    Case(
        "a cross-site navigation to the API",
        "GET /api/services HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n",
        403,
    ),
    Case(
        "the log-in in a frame",
        "GET /ui/login HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: iframe\r\n",
        403,
    ),
    Case(
        "the page in a frame",
        "GET / HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: iframe\r\n",
        403,
    ),
    Case(
        "text/plain",
        "PUT /api/policies/svc/a HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nContent-Type: text/plain\r\n",
        415,
    ),
    Case(
        "a form",
        "POST /api/signals HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nContent-Type: application/x-www-form-urlencoded\r\n",
        415,
    ),
    Case(
        "multipart",
        "POST /api/signals HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nContent-Type: multipart/form-data; boundary=x\r\n",
        415,
    ),
    Case(
        "no type",
        "POST /api/signals HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n",
        415,
    ),
    Case(
        "JSON named beside text",
        "POST /api/signals HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nContent-Type: text/plain; application/json\r\n",
        415,
    ),
    Case(
        "two types",
        "POST /api/signals HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nContent-Type: text/plain\r\nContent-Type: application/json\r\n",
        415,
    ),
    Case(
        "a DELETE with a form",
        "DELETE /api/policies/svc/keep HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nContent-Type: text/plain\r\n",
        415,
    ),
    Case(
        "a preflight",
        "OPTIONS /api/policies/svc/a HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nOrigin: https://evil.example\r\nAccess-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: content-type\r\n",
        403,
    ),
    Case(
        "TRACE",
        "TRACE /api/policies/svc/a HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n",
        405,
    ),
];

const ALLOWED: &[Case] = &[
    Case(
        "a tool",
        "PUT /api/policies/svc/a HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n<JSON>",
        200,
    ),
    Case(
        "by name",
        "PUT /api/policies/svc/a HTTP/1.1\r\nHost: LocalHost:PORT\r\n<JSON>",
        200,
    ),
    Case(
        "by IPv6",
        "PUT /api/policies/svc/a HTTP/1.1\r\nHost: [::1]:PORT\r\n<JSON>",
        200,
    ),
    Case(
        "an absolute URI",
        "PUT http://127.0.0.1:PORT/api/policies/svc/a HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n<JSON>",
        200,
    ),
    Case(
        "HTTP/1.0 with Host",
        "GET /api/services HTTP/1.0\r\nHost: 127.0.0.1:PORT\r\n",
        200,
    ),
    Case(
        "a type with parameters",
        "PUT /api/policies/svc/a HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nContent-Type: Application/JSON; charset=utf-8\r\n",
        200,
    ),
    Case(
        "a page of its own",
        "PUT /api/policies/svc/a HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nOrigin: http://127.0.0.1:PORT\r\nSec-Fetch-Site: same-origin\r\n<JSON>",
        200,
    ),
    Case(
        "typed by the user",
        "GET /api/services HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nSec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\n",
        200,
    ),
    Case(
        "the log-in, to which a link to the page led",
        "GET /ui/login?then=/ HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n",
        200,
    ),
    Case(
        "a link to the page",
        "GET / HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n",
        200,
    ),
];

impl Case {
    fn bytes(&self, port: u16) -> String {
        let head = self
            .1
            .replace("<JSON>", JSON)
            .replace("PORT", &port.to_string());
        let body = if head.starts_with("GET") || head.starts_with("TRACE") {
            ""
        } else {
            BODY
        };
        format!(
            "{head}Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}

#[tokio::test]
async fn no_attack_gets_in_and_every_tool_does() {
    let control = Running::start().await;
    control.put("/api/policies/svc/keep", BODY).await;
    for case in ATTACKS {
        let answer = control.raw(case.bytes(control.port).as_bytes()).await;
        assert_eq!(answer.status, case.2, "{}: {answer:?}", case.0);
        assert!(
            !answer.head.to_lowercase().contains("access-control"),
            "{}",
            case.0
        );
    }
    let list = control.get("/api/policies/svc").await.json();
    assert_eq!(
        (&list["version"], list["policies"].as_array().unwrap().len()),
        (&1.into(), 1),
        "{list}"
    );
    for case in ALLOWED {
        let answer = control.raw(case.bytes(control.port).as_bytes()).await;
        assert_eq!(answer.status, case.2, "{}: {answer:?}", case.0);
        assert!(
            !answer.head.to_lowercase().contains("access-control"),
            "{}",
            case.0
        );
    }
}

/// The attacks bite: a router without a gate lets nearly all of them through.
#[tokio::test]
async fn a_router_without_a_gate_is_open_to_them() {
    let reached = Arc::new(AtomicU16::new(0));
    let counter = Arc::clone(&reached);
    let naive = Router::new().fallback(async move || {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move { axum::serve(listener, naive).await.unwrap() });
    for case in ATTACKS {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(case.bytes(port).as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
    }
    server.abort();
    assert!(
        usize::from(reached.load(Ordering::Relaxed)) >= ATTACKS.len() - 2,
        "{reached:?}"
    );
}

/// Pages, and what is in no specification.
const PAGES: [&str; 12] = [
    "/",
    "/openapi.json",
    "/nothing",
    "/ui/overrides",
    "/ui/instances",
    "/ui/keys/svc",
    "/ui/keys/svc/entry?key=cache:svc:/a",
    "/ui/audit",
    "/ui/login",
    "/ui/services/svc",
    "/ui/services/svc/a",
    "/ui/history/svc",
];

/// Every route of the specification by every method that it takes, and every page; well answered or not.
#[tokio::test]
async fn every_answer_says_how_it_may_be_used() {
    let control = Running::start().await;
    let document = control.get("/openapi.json").await.json();
    let mut asked: Vec<(String, String)> = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let path = ["{service}", "{endpoint}", "{id}", "{name}", "{number}"]
                .iter()
                .fold(path.clone(), |path, part| path.replace(part, "1"));
            // Those have no end.
            if !path.starts_with("/api/stream/") && path != "/api/events" {
                asked.push((method.to_uppercase(), path));
            }
        }
    }
    asked.extend(PAGES.map(|path| ("GET".to_owned(), path.to_owned())));
    assert!(asked.len() > 40, "{asked:?}");
    for (method, path) in asked {
        let json = [
            ("Content-Type", "application/json"),
            ("Accept", "text/html"),
        ];
        let body = if method == "GET" { "" } else { "{}" };
        let answer = control.send(&method, &path, &json, body).await;
        let what = format!("{method} {path}: {answer:?}");
        let is = |name: &str, value: &str| assert_eq!(answer.header(name), Some(value), "{what}");
        is("x-content-type-options", "nosniff");
        is("cross-origin-opener-policy", "same-origin");
        is("cross-origin-resource-policy", "same-origin");
        is(
            "referrer-policy",
            if path == "/ui/login" {
                "same-origin"
            } else {
                "no-referrer"
            },
        );
        let is_config = path.starts_with("/api/config") && answer.status == 200;
        is(
            "cache-control",
            if is_config {
                "private, no-cache"
            } else {
                "no-store"
            },
        );
        // Over plain HTTP a browser would not heed it.
        assert_eq!(answer.header("strict-transport-security"), None, "{what}");
        let policy = answer.header("content-security-policy").unwrap();
        assert!(
            policy.contains("default-src 'none'") && !policy.contains("unsafe"),
            "{what}"
        );
        for word in ["frame-ancestors 'none'", "base-uri 'none'"] {
            assert!(policy.contains(word), "{what}");
        }
        for told in ["server", "x-powered-by", "access-control-allow-origin"] {
            assert_eq!(answer.header(told), None, "{what}");
        }
        if answer.status >= 400 {
            let body = answer.body.to_lowercase();
            for inside in ["sqlx", "select ", ".rs:", "src/", "panicked", "sqlite"] {
                assert!(!body.contains(inside), "{what}");
            }
        }
    }
}

#[tokio::test]
async fn the_specification_names_every_route() {
    let control = Running::start().await;
    let document = control.get("/openapi.json").await.json();
    let paths = document["paths"].as_object().unwrap();
    for (path, method) in [
        ("/api/config/{service}", "get"),
        ("/api/config/{service}/{endpoint}", "get"),
        ("/api/policies/{service}", "get"),
        ("/api/policies/{service}", "put"),
        ("/api/revisions/{service}", "get"),
        ("/api/revisions/{service}/diff", "get"),
        ("/api/revisions/{service}/{number}", "get"),
        ("/api/revisions/{service}/{number}/rollback", "post"),
        ("/api/overrides", "get"),
        ("/api/overrides", "post"),
        ("/api/overrides/{id}", "get"),
        ("/api/overrides/{id}", "delete"),
        ("/api/audit", "get"),
        ("/api/audit/head", "get"),
        ("/api/policies/{service}/{endpoint}", "put"),
        ("/api/policies/{service}/{endpoint}", "delete"),
        ("/api/signals", "post"),
        ("/api/signals/batch", "post"),
        ("/api/services", "get"),
        ("/api/endpoints", "get"),
        ("/api/instances", "get"),
        ("/api/instances", "post"),
        ("/api/stream/{service}", "get"),
        ("/api/invalidate", "post"),
        ("/api/invalidations", "get"),
        ("/api/invalidations/{id}", "get"),
        ("/api/invalidated/{service}", "get"),
        ("/api/keys/{service}", "get"),
        ("/api/entries", "get"),
        ("/api/events", "get"),
        ("/healthz", "get"),
        ("/readyz", "get"),
        ("/metrics", "get"),
    ] {
        assert!(
            paths
                .get(path)
                .is_some_and(|item| item.get(method).is_some()),
            "{method} {path}"
        );
    }
    assert!(
        document["components"]["schemas"]["PolicyPatch"]["properties"]["ttl_seconds"].is_object()
    );
}
