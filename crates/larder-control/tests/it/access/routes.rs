//! Every route of the specification, with every role, for the services of the key and for others.

use larder_model::api::KeyRole::{self, Admin, Read, Report};
use serde_json::{Value, json};

use super::Keyed;
use crate::Running;
use crate::followers::Follower;

/// Who may use a route, and what it is about. A new route belongs in here.
struct Expected {
    roles: &'static [KeyRole],
    about: About,
}

#[derive(Clone, Copy, PartialEq)]
enum About {
    /// Open to all.
    Nobody,
    Nothing,
    Service,
    /// Lists: they take `?service=`.
    List,
    Whole,
}

fn expected(method: &str, path: &str) -> Expected {
    let all: &[KeyRole] = &[Report, Read, Admin];
    let (roles, about) = match (method, path) {
        ("get", "/healthz" | "/readyz") => (all, About::Nobody),
        (
            "get",
            "/api/config/{service}"
            | "/api/config/{service}/{endpoint}"
            | "/api/stream/{service}"
            | "/api/invalidated/{service}",
        ) => (all, About::Service),
        ("post", "/api/signals" | "/api/signals/batch" | "/api/instances") => {
            (&[Report, Admin][..], About::Service)
        }
        ("get", "/metrics") => (&[Read, Admin][..], About::Whole),
        ("get", "/api/audit/head" | "/api/events") => (&[Read, Admin][..], About::Nothing),
        ("get" | "post", "/api/api-keys" | "/api/users")
        | ("delete", "/api/api-keys/{id}")
        | ("put" | "delete", "/api/users/{name}") => (&[Admin][..], About::Whole),
        // Of all services, those that the key is for.
        ("get", "/api/services") => (&[Read, Admin][..], About::Nothing),
        (
            "get",
            "/api/endpoints" | "/api/instances" | "/api/overrides" | "/api/audit"
            | "/api/invalidations",
        ) => (&[Read, Admin][..], About::List),
        (
            "get",
            "/api/policies/{service}"
            | "/api/policies/{service}/{endpoint}"
            | "/api/revisions/{service}"
            | "/api/revisions/{service}/diff"
            | "/api/revisions/{service}/{number}"
            | "/api/rollups/{service}"
            | "/api/explain/{service}/{endpoint}"
            | "/api/overrides/{id}"
            | "/api/invalidations/{id}"
            | "/api/keys/{service}"
            | "/api/entries",
        ) => (&[Read, Admin][..], About::Service),
        (
            "put" | "delete",
            "/api/policies/{service}"
            | "/api/policies/{service}/{endpoint}"
            | "/api/overrides/{id}",
        )
        | (
            "post",
            "/api/overrides" | "/api/invalidate" | "/api/revisions/{service}/{number}/rollback",
        ) => (&[Admin][..], About::Service),
        other => panic!("{other:?}: who may use this route, of which services?"),
    };
    Expected { roles, about }
}

/// What is asked of a route for a service.
async fn request(
    control: &Running,
    admin: &str,
    route: (&str, &str),
    service: &str,
) -> (String, String) {
    let (method, path) = route;
    if path == "/api/policies/{service}/{endpoint}" {
        let path = format!("/api/policies/{service}/a");
        let put = control.with(Some(admin), "PUT", &path, "{}").await;
        assert_eq!(put.status, 200, "{put:?}");
    }
    let mut url = path
        .replace("{service}", service)
        .replace("{endpoint}", "a")
        .replace("{name}", "n")
        .replace("{number}", "1");
    if url.contains("{id}") {
        let id = match path {
            "/api/api-keys/{id}" => "0123456789abcdef".to_owned(),
            "/api/invalidations/{id}" => an_invalidation(control, admin, service).await,
            _ => an_override(control, admin, service).await,
        };
        url = url.replace("{id}", &id);
    }
    if method == "get" && expected(method, path).about == About::List {
        url.push_str(&format!("?service={service}"));
    }
    if path == "/api/entries" {
        url.push_str(&format!("?key=cache:{service}:/a"));
    }
    let signal =
        json!({"service_name": service, "endpoint": "/a", "latency_ms": 1, "status": "success"});
    let body = match (method, path) {
        ("post", "/api/signals") => signal,
        ("post", "/api/signals/batch") => json!({ "signals": [signal] }),
        ("post", "/api/instances") => {
            json!({"service_name": service, "instance": "i", "via": "poll"})
        }
        ("post", "/api/invalidate") => json!({"service_name": service, "wait_seconds": 0}),
        ("post", "/api/overrides") => json!({
            "service_name": service, "endpoint": "/b", "policy": {"mode": "off"}, "reason": "r", "duration_seconds": 60,
        }),
        ("post", "/api/api-keys") => json!({"name": "n", "role": "read", "services": ["x"]}),
        ("put", "/api/policies/{service}") => {
            json!({"policies": [{"endpoint": "/a", "policy": {}}]})
        }
        ("post", "/api/users") => {
            json!({"name": "n", "role": "viewer", "services": ["x"], "password": "a long password"})
        }
        ("put", "/api/users/{name}") => json!({"role": "viewer", "services": ["x"]}),
        ("put" | "post", _) => json!({}),
        _ => Value::Null,
    };
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    (url, body)
}

/// One of a tag.
async fn an_invalidation(control: &Running, admin: &str, service: &str) -> String {
    let id = format!("of-{service}");
    let asked = json!({"service_name": service, "tag": "a", "id": id, "wait_seconds": 0});
    let done = control
        .with(Some(admin), "POST", "/api/invalidate", &asked.to_string())
        .await;
    assert!(done.status < 300, "{done:?}");
    id
}

/// One that is in force, for `/a`.
async fn an_override(control: &Running, admin: &str, service: &str) -> String {
    let list = format!("/api/overrides?service={service}");
    let list = control.with(Some(admin), "GET", &list, "").await.json();
    let mut known = list["overrides"].as_array().unwrap().iter();
    if let Some(known) = known.find(|one| one["endpoint"] == "/a") {
        return known["id"].as_str().unwrap().to_owned();
    }
    let new = json!({
        "service_name": service, "endpoint": "/a", "policy": {"mode": "off"}, "reason": "r", "duration_seconds": 600,
    });
    let begun = control
        .with(Some(admin), "POST", "/api/overrides", &new.to_string())
        .await;
    assert_eq!(begun.status, 201, "{begun:?}");
    begun.json()["id"].as_str().unwrap().to_owned()
}

/// Streams have no end: of them the head is all that is asked for.
async fn status(control: &Running, key: Option<&str>, method: &str, url: &str, body: &str) -> u16 {
    if url.starts_with("/api/stream/") {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", control.port)).await;
        let header = key.map_or_else(String::new, |key| {
            format!("Authorization: Bearer {key}\r\n")
        });
        let service = url.rsplit('/').next().unwrap();
        let follower = Follower::open_over(stream.unwrap(), control.port, service, &header);
        return follower.await.status;
    }
    if url == "/api/events" {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", control.port)).await;
        let authorization = key.map_or_else(String::new, |key| {
            format!("Authorization: Bearer {key}\r\n")
        });
        return head_of(stream.unwrap(), control.port, url, &authorization).await;
    }
    let method = method.to_uppercase();
    control.with(key, &method, url, body).await.status
}

/// The status of an answer without an end.
async fn head_of(mut stream: tokio::net::TcpStream, port: u16, url: &str, headers: &str) -> u16 {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let request = format!("GET {url} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    std::str::from_utf8(&head[9..]).unwrap().parse().unwrap()
}

/// That a status is that of a request which got through. What names no service may name what is not there; of a service a 404
/// would say that it is not the caller's.
fn got_through(status: u16, about: About) -> bool {
    (200..300).contains(&status) || (about == About::Whole && matches!(status, 404 | 409))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_asks_for_its_role_and_its_service() {
    let mut keyed = Keyed::new().await;
    let root = keyed.key(Admin, &["*"]).await.secret;
    let revoked = keyed.key(Admin, &["*"]).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let soon = now.unwrap().as_secs() + 1;
    let expired = keyed.key_until(Admin, &["*"], Some(soon)).await.secret;
    let mut own = Vec::new();
    let mut of_all = Vec::new();
    for role in [Report, Read, Admin] {
        own.push((role, keyed.key(role, &["own"]).await.secret));
        of_all.push((role, keyed.key(role, &["*"]).await.secret));
    }
    assert!(keyed.revoke(&revoked.key.id).await);
    let folder = tempfile::tempdir().unwrap();
    let shared = crate::shared::Shared::open(folder.path(), None);
    let control = keyed
        .start_with(|settings| settings.store = Some(shared.of_plane()))
        .await;
    crate::until("the key is over", async || {
        status(&control, Some(&expired), "get", "/api/services", "").await == 401
    })
    .await;

    for service in ["own", "other"] {
        for path in ["a", "b"] {
            let path = format!("/api/policies/{service}/{path}");
            let put = control.with(Some(&root), "PUT", &path, "{}").await;
            assert_eq!(put.status, 200, "{put:?}");
        }
    }
    let document = control.with(Some(&root), "GET", "/openapi.json", "").await;
    let paths = document.json()["paths"].as_object().unwrap().clone();
    let mut routes = 0;
    for (path, item) in &paths {
        for method in item.as_object().unwrap().keys() {
            let route = (method.as_str(), path.as_str());
            let Expected { roles, about } = expected(method, path);
            routes += 1;
            let (url, body) = request(&control, &root, route, "own").await;
            for key in [
                None,
                Some(&*revoked.secret),
                Some(&*expired),
                Some("lrd_0_0"),
            ] {
                let status = status(&control, key, method, &url, &body).await;
                let is_open = about == About::Nobody;
                assert_eq!(status == 200, is_open, "{method} {url} {key:?}: {status}");
                // Who shows too many that are none is slowed down.
                let is_refused = status == 401 || (status == 429 && key.is_some());
                assert_eq!(is_refused, !is_open, "{method} {url} {key:?}: {status}");
            }
            if about == About::Nobody {
                continue;
            }
            for (role, key) in &own {
                for service in ["own", "other"] {
                    let (url, body) = request(&control, &root, route, service).await;
                    let status = status(&control, Some(key), method, &url, &body).await;
                    let what = format!("{role:?} {method} {url}: {status}");
                    match (roles.contains(role), about) {
                        (false, _) | (true, About::Whole) => assert_eq!(status, 403, "{what}"),
                        (true, About::Nothing) => assert_eq!(status, 200, "{what}"),
                        (true, _) if service == "other" => assert_eq!(status, 404, "{what}"),
                        (true, _) => assert!((200..300).contains(&status), "{what}"),
                    }
                }
            }
            for (role, key) in &of_all {
                let (url, body) = request(&control, &root, route, "other").await;
                let status = status(&control, Some(key), method, &url, &body).await;
                let what = format!("{role:?} {method} {url}: {status}");
                match roles.contains(role) {
                    true => assert!(got_through(status, about), "{what}"),
                    false => assert_eq!(status, 403, "{what}"),
                }
            }
        }
    }
    assert!(routes >= 30, "{routes}");
}

/// What was not there before a test, and what it names.
const SEEN: [&str; 9] = [
    "/api/services",
    "/api/endpoints",
    "/api/instances",
    "/api/overrides",
    "/api/audit",
    "/api/invalidations",
    "/ui/instances",
    "/",
    "/ui/audit",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_and_pages_show_the_services_of_the_key_alone() {
    let mut keyed = Keyed::new().await;
    let root = keyed.key(Admin, &["*"]).await.secret;
    let own = keyed.key(Admin, &["own-service", "own-too"]).await.secret;
    let control = keyed.start().await;
    for service in ["own-service", "own-too", "foreign"] {
        let signal = json!({"service_name": service, "endpoint": "/a", "latency_ms": 1, "status": "success"});
        let report = json!({"service_name": service, "instance": "i", "via": "poll"});
        let over = json!({
            "service_name": service, "endpoint": "/a", "policy": {"mode": "off"}, "reason": "r", "duration_seconds": 600,
        });
        let invalidated = json!({"service_name": service, "wait_seconds": 0});
        for (path, body) in [
            ("/api/signals", signal),
            ("/api/instances", report),
            ("/api/overrides", over),
            ("/api/invalidate", invalidated),
        ] {
            let answer = control
                .with(Some(&root), "POST", path, &body.to_string())
                .await;
            assert!(answer.status < 300, "{answer:?}");
        }
    }
    for path in SEEN {
        let page = |key: &str| {
            let bearer = format!("Bearer {key}");
            let (control, path) = (&control, path);
            async move {
                let headers = [("Authorization", bearer.as_str()), ("Accept", "text/html")];
                control.send("GET", path, &headers, "").await
            }
        };
        let all = page(&root).await.body;
        for name in ["own-service", "own-too", "foreign"] {
            assert!(all.contains(name), "{path}: {name} in {all}");
        }
        let seen = page(&own).await;
        assert_eq!(seen.status, 200, "{seen:?}");
        assert!(
            seen.body.contains("own-service") && seen.body.contains("own-too"),
            "{path}"
        );
        assert!(!seen.body.contains("foreign"), "{path}: {}", seen.body);
    }
    for path in [
        "/ui/services/foreign",
        "/ui/services/foreign/a",
        "/ui/over-time/foreign",
        "/ui/history/foreign",
        "/ui/keys/foreign",
    ] {
        assert_eq!(
            control.with(Some(&own), "GET", path, "").await.status,
            404,
            "{path}"
        );
        assert_eq!(
            control.with(Some(&root), "GET", path, "").await.status,
            200,
            "{path}"
        );
    }
    // A batch that names one foreign service is refused whole.
    let both = json!({"signals": [
        {"service_name": "own-service", "endpoint": "/new", "latency_ms": 1, "status": "success"},
        {"service_name": "foreign", "endpoint": "/new", "latency_ms": 1, "status": "success"},
    ]});
    let sent = control
        .with(Some(&own), "POST", "/api/signals/batch", &both.to_string())
        .await;
    assert_eq!(sent.status, 404, "{sent:?}");
    let measured = control
        .with(Some(&root), "GET", "/api/endpoints", "")
        .await
        .body;
    assert!(!measured.contains("/new"), "{measured}");
}
