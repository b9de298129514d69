//! Every change is a revision: who, why, and all that held; what differs between two, and back to one.

use serde_json::{Value, json};

use crate::{Running, places};

async fn revisions(control: &Running, query: &str) -> Value {
    let path = format!("/api/revisions/svc{query}");
    let answer = control.get(&path).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn numbers(list: &Value) -> Vec<u64> {
    let revisions = list["revisions"].as_array().unwrap().iter();
    revisions
        .map(|revision| revision["number"].as_u64().unwrap())
        .collect()
}

#[tokio::test]
async fn each_change_is_kept_with_who_made_it_and_why_across_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("control.db");
    let control = Running::start_on(&database).await;
    control
        .put(
            "/api/policies/svc/a?author=alice&reason=the%20origin%20is%20slow%20%E2%9C%93",
            r#"{"ttl_seconds":60}"#,
        )
        .await;
    control
        .put("/api/policies/svc/b", r#"{"mode":"off"}"#)
        .await;
    control
        .delete("/api/policies/svc/a?author=bob&reason=no+more")
        .await;
    control.put("/api/policies/other/a", "{}").await;
    control.stop().await;

    let control = Running::start_on(&database).await;
    let list = revisions(&control, "").await;
    let all = list["revisions"].as_array().unwrap();
    let said: Vec<_> = all
        .iter()
        .map(|one| {
            let text = |field: &str| one[field].as_str().unwrap().to_owned();
            (
                one["number"].as_u64().unwrap(),
                text("action"),
                text("author"),
                text("reason"),
            )
        })
        .collect();
    let expected = [
        (3, "policy_removed", "bob", "no more"),
        (2, "policy_set", "local", ""),
        (1, "policy_set", "alice", "the origin is slow ✓"),
    ];
    let expected = expected.map(|(number, action, author, reason)| {
        (
            number,
            action.to_owned(),
            author.to_owned(),
            reason.to_owned(),
        )
    });
    assert_eq!(said, expected);
    assert!(all.iter().all(|one| one["author_verified"] == false));
    assert!(
        all.iter().all(|one| one.get("snapshot").is_none()),
        "{list}"
    );
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let age = now.unwrap().as_secs() - all[0]["at_seconds"].as_u64().unwrap();
    assert!(age < 60, "{list}");

    let second = control.get("/api/revisions/svc/2").await.json();
    assert_eq!(
        second["snapshot"]["policies"],
        json!([{"endpoint": "/a", "policy": {"ttl_seconds": 60}}, {"endpoint": "/b", "policy": {"mode": "off"}}])
    );
    control.get("/api/revisions/svc/9").await.is_problem(404);
    control.get("/api/revisions/svc/x").await.is_problem(400);
    control.get("/api/revisions/sv%20c").await.is_problem(400);
}

#[tokio::test]
async fn the_same_state_has_the_same_hash_and_it_is_that_of_the_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("control.db");
    let control = Running::start_on(&database).await;
    for ttl in [1, 2, 1] {
        let policy = json!({ "ttl_seconds": ttl }).to_string();
        control.put("/api/policies/svc/a", &policy).await;
    }
    let list = revisions(&control, "").await;
    let hash = |at: usize| list["revisions"][at]["sha256"].clone();
    assert_eq!(hash(0), hash(2));
    assert_ne!(hash(0), hash(1));
    control.stop().await;
    let snapshot = places::sql(&database, "SELECT snapshot FROM revisions WHERE number = 3");
    let snapshot = snapshot.await.unwrap();
    let by_hand = ring::digest::digest(&ring::digest::SHA256, snapshot.as_bytes());
    let by_hand: String = by_hand
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(hash(0), by_hand);
    let changed = places::sql(&database, "UPDATE revisions SET reason = 'another'").await;
    assert!(changed.is_err(), "a revision is never changed");
}

#[tokio::test]
async fn the_list_comes_in_pages() {
    let control = Running::start().await;
    for ttl in 1..=7 {
        let policy = json!({ "ttl_seconds": ttl }).to_string();
        control.put("/api/policies/svc/a", &policy).await;
    }
    let mut seen = Vec::new();
    let mut query = "?limit=3".to_owned();
    loop {
        let page = revisions(&control, &query).await;
        let on_page = numbers(&page);
        assert!(on_page.len() <= 3);
        seen.extend(on_page);
        let Some(before) = page["next_before"].as_u64() else {
            break;
        };
        query = format!("?limit=3&before={before}");
    }
    assert_eq!(seen, [7, 6, 5, 4, 3, 2, 1]);
    let none = control.get("/api/revisions/nothing").await.json();
    assert_eq!(
        (numbers(&none).len(), &none["next_before"]),
        (0, &Value::Null)
    );
    control
        .get("/api/revisions/svc?limit=many")
        .await
        .is_problem(400);
}

#[tokio::test]
async fn what_differs_between_two_revisions_is_told() {
    let control = Running::start().await;
    control
        .put("/api/policies/svc/a", r#"{"ttl_seconds":60}"#)
        .await;
    control
        .put("/api/policies/svc/b", r#"{"mode":"off"}"#)
        .await;
    control
        .put("/api/policies/svc/a", r#"{"ttl_seconds":5}"#)
        .await;
    let diff = async |query: &str| {
        let path = format!("/api/revisions/svc/diff{query}");
        control.get(&path).await.json()
    };
    let a = json!({"kind": "policy", "endpoint": "/a", "before": {"ttl_seconds": 60}, "after": {"ttl_seconds": 5}});
    let b = json!({"kind": "policy", "endpoint": "/b", "before": null, "after": {"mode": "off"}});
    let last = diff("").await;
    assert_eq!((&last["from"], &last["to"]), (&2.into(), &3.into()));
    assert_eq!(last["changes"], json!([a]));
    assert_eq!(diff("?from=1&to=3").await["changes"], json!([a, b]));
    assert_eq!(diff("?to=2").await["changes"], json!([b]));
    let first = diff("?to=1").await;
    assert_eq!(
        (&first["from"], &first["changes"][0]["before"]),
        (&0.into(), &Value::Null)
    );
    assert_eq!(diff("?from=3&to=3").await["changes"], json!([]));
    control
        .get("/api/revisions/svc/diff?from=9")
        .await
        .is_problem(404);
}

#[tokio::test]
async fn a_rollback_brings_policies_back_as_a_new_revision() {
    let control = Running::start().await;
    control
        .put("/api/policies/svc/a", r#"{"ttl_seconds":60}"#)
        .await;
    control
        .put("/api/policies/svc/b", r#"{"mode":"off"}"#)
        .await;
    control.delete("/api/policies/svc/a").await;
    control.put("/api/policies/svc/c", "{}").await;
    let before = control.get("/api/config/svc").await;
    let etag = control
        .get("/api/policies/svc")
        .await
        .header("etag")
        .unwrap()
        .to_owned();

    let tried = control
        .post("/api/revisions/svc/2/rollback?dry_run=true", "{}")
        .await;
    assert_eq!(tried.status, 200, "{tried:?}");
    assert_eq!(
        (&tried.json()["dry_run"], &tried.json()["version"]),
        (&true.into(), &4.into())
    );
    assert_eq!(
        tried.json()["changes"].as_array().unwrap().len(),
        2,
        "{tried:?}"
    );
    assert_eq!(control.get("/api/config/svc").await.body, before.body);

    let body = r#"{"author":"alice","reason":"it was better before"}"#;
    let done = control.post("/api/revisions/svc/2/rollback", body).await;
    assert_eq!(
        (done.status, &done.json()["version"]),
        (200, &5.into()),
        "{done:?}"
    );
    assert_eq!(done.json()["changes"], tried.json()["changes"]);
    let list = control.get("/api/policies/svc").await.json();
    let endpoints: Vec<_> = list["policies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["endpoint"])
        .collect();
    assert_eq!(endpoints, ["/a", "/b"]);
    let config = control.get("/api/config/svc/a").await.json();
    assert_eq!(
        (&config["ttl_seconds"], &config["version"]),
        (&60.into(), &5.into())
    );
    let newest = revisions(&control, "?limit=1").await["revisions"][0].clone();
    assert_eq!(
        (&newest["action"], &newest["author"]),
        (&"rolled_back".into(), &"alice".into())
    );
    let second = control.get("/api/revisions/svc/2").await.json();
    assert_eq!(newest["sha256"], second["sha256"]);

    let again = control
        .post("/api/revisions/svc/2/rollback", "{}")
        .await
        .json();
    assert_eq!(
        (&again["changes"], &again["version"]),
        (&json!([]), &5.into()),
        "nothing changed, so no revision"
    );
    let headers = [
        ("Content-Type", "application/json"),
        ("If-Match", etag.as_str()),
    ];
    control
        .send("POST", "/api/revisions/svc/4/rollback", &headers, "{}")
        .await
        .is_problem(412);
    control
        .post("/api/revisions/svc/99/rollback", "{}")
        .await
        .is_problem(404);
    let bad = json!({"reason": "r".repeat(501)}).to_string();
    control
        .post("/api/revisions/svc/1/rollback", &bad)
        .await
        .is_problem(422);
}

#[tokio::test]
async fn automatic_decisions_are_revisions_and_old_ones_of_them_are_not_kept_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("control.db");
    let control = Running::start_on(&database).await;
    control.put("/api/policies/svc/first", "{}").await;
    control.stop().await;
    // As a thousand decisions would have left them.
    for statement in [
        "WITH RECURSIVE numbers (number) AS (SELECT 2 UNION ALL SELECT number + 1 FROM numbers WHERE number < 1101) \
         INSERT INTO revisions SELECT 'svc', number, 0, 'decided', 'larder', true, '', '', '{\"policies\":[],\"overrides\":[],\"decisions\":[]}' FROM numbers",
        "UPDATE services SET version = 1101",
    ] {
        places::sql(&database, statement).await.unwrap();
    }

    let control = Running::start_on(&database).await;
    let auto = crate::automatic::slow(&control, "slow").await;
    assert_eq!(auto["cache_enabled"], true);
    let newest = revisions(&control, "").await;
    let decided = newest["revisions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["action"] == "decided")
        .unwrap();
    assert_eq!(
        (&decided["author"], &decided["author_verified"]),
        (&"larder".into(), &true.into())
    );
    assert!(
        decided["reason"].as_str().unwrap().starts_with("/slow: "),
        "{decided}"
    );
    let oldest = revisions(&control, "?before=150").await;
    assert_eq!(
        numbers(&oldest)[..2],
        [149, 148],
        "the latest thousand are there"
    );
    assert_eq!(
        numbers(&revisions(&control, "?before=100").await),
        [1],
        "and what somebody set"
    );
}

also_over_postgres!(
    each_change_is_kept_with_who_made_it_and_why_across_a_restart,
    the_same_state_has_the_same_hash_and_it_is_that_of_the_snapshot,
    the_list_comes_in_pages,
    what_differs_between_two_revisions_is_told,
    a_rollback_brings_policies_back_as_a_new_revision,
    automatic_decisions_are_revisions_and_old_ones_of_them_are_not_kept_for_ever,
);
