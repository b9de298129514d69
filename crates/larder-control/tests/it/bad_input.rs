//! Whatever is sent, the answer is a 4xx that says what is wrong, and nothing changes.

use serde_json::{Value, json};

use crate::Running;

#[tokio::test]
async fn bad_policies_are_refused_with_a_reason() {
    let control = Running::start().await;
    let long = format!("/api/policies/svc/{}", "a".repeat(9_000));
    let many = format!(r#"{{"vary":[{}"x"]}}"#, r#""x","#.repeat(100));
    let deep = "[".repeat(100_000);
    let nested = r#"{"vary":"#.repeat(100_000);
    for (path, body, status) in [
        ("/api/policies/svc/a", r#"{"ttl_seconds":-1}"#, 422),
        ("/api/policies/svc/a", r#"{"ttl_seconds":31536001}"#, 422),
        (
            "/api/policies/svc/a",
            r#"{"ttl_seconds":18446744073709551615}"#,
            422,
        ),
        ("/api/policies/svc/a", r#"{"ttl_seconds":"60"}"#, 422),
        ("/api/policies/svc/a", r#"{"tll_seconds":60}"#, 422),
        ("/api/policies/svc/a", r#"{"mode":"maybe"}"#, 422),
        ("/api/policies/svc/a", r#"{"jitter":2}"#, 422),
        ("/api/policies/svc/a", r#"{"load_timeout_seconds":0}"#, 422),
        ("/api/policies/svc/a", r#"{"max_value_bytes":-5}"#, 422),
        (
            "/api/policies/svc/a",
            r#"{"max_value_bytes":99999999999}"#,
            422,
        ),
        (
            "/api/policies/svc/a",
            r#"{"include_query":["\u001b"]}"#,
            422,
        ),
        ("/api/policies/svc/a", &many, 422),
        ("/api/policies/svc/a", r#"[1]"#, 422),
        ("/api/policies/svc/a", r#"{"ttl_seconds":NaN}"#, 400),
        ("/api/policies/svc/a", r#"{"ttl_seconds":1e999}"#, 400),
        ("/api/policies/svc/a", "", 400),
        ("/api/policies/svc/a", "ttl=60", 400),
        ("/api/policies/svc/a", &deep, 422),
        ("/api/policies/svc/a", &nested, 422),
        ("/api/policies/svc/%zz", "{}", 400),
        ("/api/policies/svc/a/../b", "{}", 400),
        ("/api/policies/svc/a%7B", "{}", 400),
        ("/api/policies/svc/%7B*x%7D/b", "{}", 400),
        ("/api/policies/sv%20c/a", "{}", 400),
        ("/api/policies/svc/a?method=G%1bT", "{}", 400),
        ("/api/policies/svc/a?methd=GET", "{}", 400),
        ("/api/policies/svc/a?method=GET&method=PUT", "{}", 400),
        (&long, "{}", 400),
    ] {
        let answer = control.put(path, body).await;
        let shown: String = body.chars().take(60).collect();
        assert_eq!(answer.status, status, "{path:.60} {shown} {answer:?}");
        answer.is_problem(status);
    }
    let services = control.get("/api/services").await.json();
    assert_eq!(
        services["services"].as_array().unwrap().len(),
        0,
        "{services}"
    );
}

#[tokio::test]
async fn the_field_that_is_wrong_is_named() {
    let control = Running::start().await;
    let signal = |latency: Value| json!({"service_name": "svc", "endpoint": "/a", "latency_ms": latency, "status": "success"});
    let batch = json!({"signals": [signal(1.into()), signal("slow".into())]});
    let answer = control.post("/api/signals/batch", &batch.to_string()).await;
    answer.is_problem(422);
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("signals[1].latency_ms"), "{detail}");
}

#[tokio::test]
async fn what_is_too_large_is_refused_however_it_is_sent() {
    let control = Running::start().await;
    let large = format!(r#"{{"vary":["{}"]}}"#, "x".repeat(2 << 20));
    control
        .put("/api/policies/svc/a", &large)
        .await
        .is_problem(413);
    let chunk = format!("{:x}\r\n{large}\r\n0\r\n\r\n", large.len());
    let head = format!(
        "PUT /api/policies/svc/a HTTP/1.1\r\nHost: localhost:{}\r\nContent-Type: application/json\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n",
        control.port
    );
    control
        .raw(format!("{head}{chunk}").as_bytes())
        .await
        .is_problem(413);
}

#[tokio::test]
async fn unknown_routes_and_methods_are_problems_too() {
    let control = Running::start().await;
    control.get("/api/nothing").await.is_problem(404);
    control.delete("/api/services").await.is_problem(405);
    control.get("/api/signals").await.is_problem(405);
    control
        .get("/api/endpoints?service=a%20b")
        .await
        .is_problem(400);
    control.get("/api/endpoints?sevice=a").await.is_problem(400);
    control.get("/api/config/a%20b").await.is_problem(400);
    control
        .send("OPTIONS", "/api/policies/svc/a", &[], "")
        .await
        .is_problem(405);
}

#[tokio::test]
async fn quotes_and_sql_in_names_are_only_names() {
    let control = Running::start().await;
    for path in [
        "a';DROP%20TABLE%20policies;--",
        "%22%20OR%201=1",
        "a%00b",
        "%27%29%3B",
    ] {
        let put = control
            .put(&format!("/api/policies/svc/{path}"), r#"{"ttl_seconds":7}"#)
            .await;
        assert_eq!(put.status, 200, "{path}: {put:?}");
        let config = control.get(&format!("/api/config/svc/{path}")).await.json();
        assert_eq!(config["ttl_seconds"], 7, "{path}");
    }
    let list = control.get("/api/policies/svc").await.json();
    assert_eq!(list["policies"].as_array().unwrap().len(), 4);
}

/// A text as a part of a URL.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test]
async fn sql_in_any_text_is_only_text() {
    let control = Running::start().await;
    let texts = [
        "'; DROP TABLE policies; --",
        "\" OR 1=1 --",
        "'||(SELECT mac FROM audit LIMIT 1)||'",
        "') ON CONFLICT DO NOTHING; COMMIT; DELETE FROM audit; --",
        "\\'; SELECT pg_sleep(30); --",
        "$1 ?1 :a @b",
        "x'; NOTIFY larder, 'y",
        "%' LIKE '_",
    ];
    for (round, text) in texts.into_iter().enumerate() {
        let url = encoded(text);
        let put = format!("/api/policies/svc/a?author={url}&reason={url}");
        let answer = control
            .put(&put, &json!({ "ttl_seconds": round + 1 }).to_string())
            .await;
        assert_eq!(answer.status, 200, "{text}: {answer:?}");
        let over = json!({"service_name": "svc", "endpoint": "/a", "policy": {"mode": "off"},
            "reason": text, "author": text, "duration_seconds": 60});
        let answer = control.post("/api/overrides", &over.to_string()).await;
        assert_eq!(answer.status, 201, "{text}: {answer:?}");
        let id = answer.json()["id"].as_str().unwrap().to_owned();
        let ended = format!("/api/overrides/{id}?author={url}&reason={url}");
        assert_eq!(control.delete(&ended).await.status, 200, "{text}");
        let tags = json!({ "tags": [text], "include_query": [text] }).to_string();
        for (method, path, body) in [
            ("GET", format!("/api/overrides/{url}"), ""),
            ("DELETE", format!("/api/overrides/{url}"), ""),
            ("GET", format!("/api/audit?service={url}"), ""),
            ("GET", format!("/api/audit?before={url}"), ""),
            ("GET", format!("/api/revisions/{url}"), ""),
            ("GET", format!("/api/revisions/svc?limit={url}"), ""),
            ("GET", format!("/api/revisions/svc/diff?from={url}"), ""),
            ("GET", format!("/api/explain/svc/{url}?method={url}"), ""),
            ("GET", format!("/api/config/{url}/a"), ""),
            ("PUT", format!("/api/policies/{url}/a"), "{}"),
            ("PUT", "/api/policies/svc/tagged".to_owned(), &tags),
        ] {
            let headers = [
                ("Content-Type", "application/json"),
                ("If-None-Match", text),
            ];
            let answer = control.send(method, &path, &headers, body).await;
            assert!(answer.status < 500, "{method} {path}: {answer:?}");
        }
        let revisions = control.get("/api/revisions/svc?limit=3").await.json();
        let newest = revisions["revisions"].as_array().unwrap();
        let is_it = |one: &Value| one["author"] == text && one["reason"] == text;
        assert!(
            newest.iter().filter(|one| is_it(one)).count() >= 2,
            "{newest:?}"
        );
    }
    let trail = control.get("/api/audit?limit=500").await.json();
    let trail = trail["entries"].as_array().unwrap();
    for text in texts {
        let of = trail.iter().filter(|one| one["actor"] == text).count();
        assert_eq!(of, 3, "{text}");
    }
}

#[tokio::test]
async fn errors_escape_what_they_quote() {
    let control = Running::start().await;
    let answer = control
        .put("/api/policies/svc/a", "{\"\\u001b[31m\\u202e\":1}")
        .await;
    answer.is_problem(422);
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(
        !detail
            .chars()
            .any(|char| char.is_control() || char == '\u{202e}'),
        "{detail:?}"
    );
}

also_over_postgres!(
    bad_policies_are_refused_with_a_reason,
    what_is_too_large_is_refused_however_it_is_sent,
    unknown_routes_and_methods_are_problems_too,
    quotes_and_sql_in_names_are_only_names,
    sql_in_any_text_is_only_text,
    errors_escape_what_they_quote,
);
