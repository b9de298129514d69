//! The control plane knows which version each instance has in force, and over what it came.

use serde_json::{Value, json};

use crate::{Control, SOON, client, ttl, until};

async fn instances(control: &Control) -> Vec<Value> {
    let list = control.get("/api/instances?service=svc").await;
    list["instances"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_instance_is_seen_from_its_start_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("control.db");
    let control = Control::start(&database, 0).await;
    control.put("/a", json!({"ttl_seconds": 60})).await;
    let state = folder.path().join("state");
    let one = client(control.port, Some(&state));
    let two = client(control.port, None);
    let all_at = async |version: u64| {
        let all = instances(&control).await;
        all.len() == 2
            && all.iter().all(|one| {
                one["state"] == "current" && one["version"] == version && one["via"] == "stream"
            })
    };
    until(SOON, "both are current", async || all_at(1).await).await;
    control.put("/a", json!({"ttl_seconds": 30})).await;
    until(SOON, "both have the next one", async || all_at(2).await).await;
    two.close().await;
    // Who ends says so; but for no longer than a second.
    let mut unsaid = instances(&control).await.len() - 1;
    while unsaid > 0 {
        let before = unsaid;
        let next = client(control.port, None);
        until(SOON, "it is there", async || {
            let all = instances(&control).await;
            let is_current = |one: &Value| one["state"] == "current" && one["via"] == "stream";
            all.len() == before + 2 && all.iter().all(is_current)
        })
        .await;
        next.close().await;
        match instances(&control).await.len() - 1 {
            left if left == before => break,
            left => unsaid = left,
        }
        assert!(unsaid < 5, "who ends says so");
    }
    one.close().await;
    let unsaid = instances(&control).await.len();

    // It starts while nothing has changed: what it had is confirmed.
    let again = client(control.port, Some(&state));
    assert_eq!(ttl(&again, "/a"), 30);
    until(SOON, "it is current", async || {
        let all = instances(&control).await;
        all.len() == unsaid + 1
            && all
                .iter()
                .all(|one| one["state"] == "current" && one["via"] == "stream")
    })
    .await;
    assert!(!again.status().from_disk);
}
