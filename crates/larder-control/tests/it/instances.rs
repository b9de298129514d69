//! Each instance says which version it has in force, and how it stands is told.

use serde_json::{Value, json};

use crate::Running;

fn report(instance: &str, tag: Option<&str>) -> Value {
    let mut report = json!({"service_name": "svc", "instance": instance, "via": "stream"});
    if let Some(tag) = tag {
        let version = tag.rsplit_once('-').unwrap().1;
        report["tag"] = tag.into();
        report["version"] = version.parse::<u64>().unwrap().into();
        report["activated_ago_ms"] = 3_000.into();
    }
    report
}

async fn states(control: &Running, query: &str) -> Vec<(String, String)> {
    let list = control.get(&format!("/api/instances{query}")).await.json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let all = list["instances"].as_array().unwrap().iter();
    all.map(|one| (text(&one["instance"]), text(&one["state"])))
        .collect()
}

async fn tag(control: &Running) -> String {
    let config = control.get("/api/config/svc").await;
    config.header("etag").unwrap().trim_matches('"').to_owned()
}

#[tokio::test]
async fn an_instance_is_current_until_the_policies_change() {
    let control = Running::start().await;
    let old = tag(&control).await;
    control.put("/api/policies/svc/a", "{}").await;
    let new = tag(&control).await;
    let mut parked = report("c", Some(&old));
    parked["rejected"] = json!({"tag": new, "reason": "a ttl\u{1b}", "ago_ms": 1_000});
    for report in [
        report("a", Some(&new)),
        report("b", Some(&old)),
        parked,
        report("d", None),
    ] {
        let answer = control.post("/api/instances", &report.to_string()).await;
        assert_eq!(
            (answer.status, &answer.json()["status"]),
            (200, &"received".into())
        );
    }
    let named =
        |states: [(&str, &str); 4]| states.map(|(name, state)| (name.to_owned(), state.to_owned()));
    let expected = named([
        ("a", "current"),
        ("b", "stale"),
        ("c", "rejected"),
        ("d", "stale"),
    ]);
    assert_eq!(states(&control, "").await, expected);
    assert_eq!(states(&control, "?service=svc").await, expected);
    assert!(states(&control, "?service=other").await.is_empty());
    let list = control.get("/api/instances").await.json();
    let first = &list["instances"][0];
    assert_eq!(
        (&first["version"], &first["current_version"], &first["via"]),
        (&1.into(), &1.into(), &"stream".into())
    );
    assert!(first["activated_seconds_ago"].as_u64().unwrap() >= 3);
    assert_eq!(list["instances"][2]["rejected"]["tag"], new);
    let stale = "larder_control_instances{state=\"stale\"}";
    assert_eq!(control.metric(stale).await, 2);

    control
        .put("/api/policies/svc/a", "{\"mode\":\"off\"}")
        .await;
    let expected = named([
        ("a", "stale"),
        ("b", "stale"),
        ("c", "stale"),
        ("d", "stale"),
    ]);
    assert_eq!(states(&control, "").await, expected);

    let mut leaving = report("a", None);
    leaving["leaving"] = true.into();
    control.post("/api/instances", &leaving.to_string()).await;
    assert_eq!(states(&control, "").await.len(), 3);
}

#[tokio::test]
async fn what_no_instance_says_is_refused() {
    let control = Running::start().await;
    let with = |field: &str, value: Value| {
        let mut report = report("a", Some("db-1"));
        report[field] = value;
        report
    };
    let long = "x".repeat(200);
    for bad in [
        with("instance", "".into()),
        with("instance", "a b".into()),
        with("instance", long.as_str().into()),
        with("service_name", "no service".into()),
        with("tag", long.as_str().into()),
        with("tag", "a\r\nb".into()),
        with("via", "pigeon".into()),
        with("version", (-1).into()),
        with("unknown", 1.into()),
        with("rejected", json!({"tag": long, "reason": ""})),
        json!([]),
    ] {
        control
            .post("/api/instances", &bad.to_string())
            .await
            .is_problem(422);
    }
    control.post("/api/instances", "{").await.is_problem(400);
    control
        .get("/api/instances?service=no+service")
        .await
        .is_problem(400);
    control.get("/api/instances?x=1").await.is_problem(400);
    assert!(states(&control, "").await.is_empty());
}
