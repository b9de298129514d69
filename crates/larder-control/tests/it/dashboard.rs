//! The dashboard: pages for people, which show what others said as text, and run nothing but their own script.

use crate::browser::dump_dom;
use crate::{Answer, Running};

/// What somebody may put where text is shown.
pub(crate) const HOSTILE: &str =
    r#"</code><img src=x onerror="document.title='run'"><script>document.title='run'</script>"#;

impl Running {
    pub(crate) async fn page(&self, path: &str) -> Answer {
        self.send("GET", path, &[("Accept", "text/html,*/*")], "")
            .await
    }
}

/// A control plane with a policy, an override with a hostile reason, and a request that was measured.
async fn used() -> Running {
    let control = Running::start().await;
    let policy = r#"{"mode":"on","ttl_seconds":60,"tags":["catalogue"]}"#;
    control.put("/api/policies/svc/products", policy).await;
    let auto = r#"{"mode":"auto"}"#;
    control.put("/api/policies/svc/items/%7Bid%7D", auto).await;
    let over = serde_json::json!({
        "service_name": "svc", "endpoint": "/products", "policy": {"mode": "off"}, "reason": HOSTILE, "author": HOSTILE,
        "duration_seconds": 600,
    });
    let begun = control.post("/api/overrides", &over.to_string()).await;
    assert_eq!(begun.status, 201, "{begun:?}");
    let signal =
        r#"{"service_name":"svc","endpoint":"/products","latency_ms":800,"status":"success"}"#;
    control.post("/api/signals", signal).await;
    control
}

const PAGES: [&str; 10] = [
    "/",
    "/ui/services/svc",
    "/ui/services/svc/products",
    "/ui/services/svc/items/%7Bid%7D",
    "/ui/over-time/svc",
    "/ui/history/svc",
    "/ui/history/svc?of=3",
    "/ui/overrides",
    "/ui/instances",
    "/ui/audit",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_shows_what_is_so_and_what_others_said_as_text() {
    let control = used().await;
    for path in PAGES {
        let page = control.page(path).await;
        assert_eq!(page.status, 200, "{path}: {page:?}");
        let form = page.header("content-type").unwrap();
        assert!(form.starts_with("text/html"), "{path}: {form}");
        let policy = page.header("content-security-policy").unwrap();
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self'"),
            "{path}: {policy}"
        );
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        let body = page.body.to_lowercase();
        for markup in ["<img", "onerror=\"", "<script>", " style="] {
            assert!(!body.contains(markup), "{path}: {markup} in {body}");
        }
        assert_eq!(body.matches("<script").count(), 1, "{path}: its own");
    }
    let endpoint = control.page("/ui/services/svc/products").await.body;
    for words in ["800 ms", "mode <strong>off", "End it now", "catalogue"] {
        assert!(endpoint.contains(words), "{words}: {endpoint}");
    }
    let left_to_the_engine = control.page("/ui/services/svc/items/%7Bid%7D").await.body;
    assert!(left_to_the_engine.contains("left to the engine"));
    let diff = control.page("/ui/history/svc?of=1").await.body;
    for words in ["/products", "Back to revision 1", "policy set"] {
        assert!(diff.contains(words), "{words}: {diff}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_is_a_page_that_says_so_and_programs_get_text() {
    let control = Running::start().await;
    let empty = control.page("/").await;
    assert!(empty.body.contains("No service has reported yet"));
    for path in [
        "/ui/services/none",
        "/ui/history/none?of=7",
        "/ui/assets/none.js",
    ] {
        let page = control.page(path).await;
        assert_eq!(page.status, 404, "{page:?}");
        assert!(page.body.contains("Back to the fleet"), "{page:?}");
    }
    for path in [
        "/ui/services/s%20vc",
        "/ui/history/svc?of=x",
        "/ui/audit?before=-1",
    ] {
        control.page(path).await.is_problem(400);
    }
    let text = control.get("/").await;
    assert!(text.body.starts_with("Larder's control plane"), "{text:?}");
    let style = empty.body.split("href=\"/ui/assets/").nth(1).unwrap();
    let style = style.split('"').next().unwrap();
    let style = control.get(&format!("/ui/assets/{style}")).await;
    assert!(
        style
            .header("content-type")
            .unwrap()
            .starts_with("text/css")
    );
    assert!(style.header("cache-control").unwrap().contains("immutable"));
}

/// In a real Chromium the script runs, under the policy that keeps everything else from it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_browser_its_own_script_runs_and_nothing_else() {
    let control = used().await;
    for path in ["/", "/ui/services/svc/products", "/ui/overrides"] {
        let output = dump_dom(&format!("http://127.0.0.1:{}{path}", control.port)).await;
        let seen = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            seen.contains("<span class=\"say\">live</span>"),
            "{seen} {said}"
        );
        assert!(!seen.contains("<title>run</title>"), "{seen}");
    }
}
