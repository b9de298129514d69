//! Who did what, and that nobody can change the tale of it without being found out (SECURITY SC-11).

use std::path::Path;

use larder_control::{AuditFault, Verified, VerifyError, verify_audit};
use larder_model::api::AuditHead;
use serde_json::{Value, json};

use crate::{Running, places};

async fn trail(control: &Running, query: &str) -> Vec<Value> {
    let list = control.get(&format!("/api/audit{query}")).await.json();
    list["entries"].as_array().unwrap().clone()
}

async fn head(control: &Running) -> AuditHead {
    serde_json::from_value(control.get("/api/audit/head").await.json()).unwrap()
}

async fn verified(database: &Path, head: Option<&AuditHead>) -> Result<Verified, VerifyError> {
    let settings = places::settings(database);
    verify_audit(&settings.database, &settings.audit_key, head).await
}

async fn fault(database: &Path, head: Option<&AuditHead>) -> AuditFault {
    match verified(database, head).await.unwrap_err() {
        VerifyError::Fault(fault) => fault,
        other => panic!("{other}"),
    }
}

/// Does something to the database that the control plane never would.
async fn tamper(database: &Path, statements: &[&'static str]) {
    let all = [&places::UNGUARD[..], statements].concat();
    let done = places::all_sql(database, &all).await;
    // Each of the guards is in one of the databases only.
    let mut done = done[places::UNGUARD.len()..].iter();
    assert!(done.all(Result::is_ok), "{done:?}");
}

/// A database with a trail of six entries, its key beside it, and its head.
async fn six_entries(folder: &Path) -> AuditHead {
    let control = Running::start_on(&folder.join("control.db")).await;
    for ttl in 1..=4 {
        let policy = json!({ "ttl_seconds": ttl }).to_string();
        control
            .put("/api/policies/svc/a?author=alice&reason=tuning", &policy)
            .await;
    }
    control.delete("/api/policies/svc/a?author=bob").await;
    let head = head(&control).await;
    assert_eq!(head.sequence, 6, "{head:?}");
    control.stop().await;
    head
}

/// The same database in a folder of its own.
fn copy(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(folder).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    copy
}

#[tokio::test]
async fn every_change_and_every_refused_one_is_in_the_trail() {
    let control = Running::start().await;
    control
        .put(
            "/api/policies/svc/a?author=alice&reason=slow",
            r#"{"ttl_seconds":60}"#,
        )
        .await;
    control
        .put("/api/policies/svc/a", r#"{"ttl_seconds":5}"#)
        .await;
    control
        .put("/api/policies/svc/a", r#"{"ttl_seconds":-1}"#)
        .await
        .is_problem(422);
    control
        .send(
            "PUT",
            "/api/policies/svc/a",
            &[("Content-Type", "text/plain")],
            "{}",
        )
        .await
        .is_problem(415);
    control
        .delete("/api/policies/svc/none")
        .await
        .is_problem(404);
    control.get("/api/policies/svc/none").await.is_problem(404);
    control.post("/api/signals", "{}").await.is_problem(422);
    let made = control.post("/api/overrides", r#"{"service_name":"svc","endpoint":"/a","policy":{"mode":"off"},"reason":"wrong","duration_seconds":60}"#).await.json();
    control
        .delete(&format!("/api/overrides/{}", made["id"].as_str().unwrap()))
        .await;
    control
        .post("/api/revisions/svc/1/rollback", r#"{"author":"bob"}"#)
        .await;
    control
        .put(
            "/api/policies/svc",
            r#"{"policies":[],"reason":"all away"}"#,
        )
        .await;

    let all = trail(&control, "").await;
    let actions: Vec<_> = all
        .iter()
        .rev()
        .map(|entry| entry["action"].as_str().unwrap())
        .collect();
    assert_eq!(
        actions,
        [
            "key_made",
            "policy_set",
            "policy_set",
            "refused",
            "refused",
            "refused",
            "override_began",
            "override_ended",
            "rolled_back",
            "policies_replaced"
        ]
    );
    let sequences: Vec<_> = all
        .iter()
        .rev()
        .map(|entry| entry["sequence"].as_u64().unwrap())
        .collect();
    assert_eq!(sequences, (1..=10).collect::<Vec<_>>());
    let second = &all[7];
    assert_eq!(
        (
            &second["before"],
            &second["after"]["is"],
            &second["after"]["revision"]["number"]
        ),
        (
            &json!({"ttl_seconds": 60}),
            &json!({"ttl_seconds": 5}),
            &2.into()
        )
    );
    let revision = control.get("/api/revisions/svc/2").await.json();
    assert_eq!(
        second["after"]["revision"]["sha256"], revision["sha256"],
        "so the revision can't be changed either"
    );
    let first = &all[8];
    assert_eq!(
        (
            &first["actor"],
            &first["actor_verified"],
            &first["address"],
            &first["target"],
            &first["reason"]
        ),
        (
            &"alice".into(),
            &false.into(),
            &"127.0.0.1".into(),
            &"/a".into(),
            &"slow".into()
        )
    );
    let refused = &all[6];
    assert_eq!(
        (
            &refused["target"],
            &refused["after"]["status"],
            &refused["address"]
        ),
        (
            &"PUT /api/policies/svc/a".into(),
            &422.into(),
            &"127.0.0.1".into()
        )
    );

    let page = trail(&control, "?limit=3&before=5").await;
    let page: Vec<_> = page
        .iter()
        .map(|entry| entry["sequence"].as_u64().unwrap())
        .collect();
    assert_eq!(page, [4, 3, 2]);
    control.put("/api/policies/other/a", "{}").await;
    let of_one = trail(&control, "?service=other").await;
    assert_eq!(of_one.len(), 1);
    control
        .get("/api/audit?service=o%20ther")
        .await
        .is_problem(400);
    let head = head(&control).await;
    assert_eq!(
        (head.sequence, &Value::from(head.mac.clone())),
        (11, &of_one[0]["mac"])
    );
}

#[tokio::test]
async fn a_flood_of_refused_requests_is_counted_and_does_not_fill_the_disk() {
    let control = Running::start().await;
    for _ in 0..80 {
        control
            .delete("/api/policies/svc/none")
            .await
            .is_problem(404);
    }
    assert_eq!(head(&control).await.sequence, 61);
    // What is taken is written all the same.
    control.put("/api/policies/svc/a", "{}").await;
    assert_eq!(head(&control).await.sequence, 62);
}

#[tokio::test]
async fn a_trail_that_nobody_touched_is_whole_also_while_it_is_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let published = six_entries(folder.path()).await;
    let database = folder.path().join("control.db");
    let whole = verified(&database, Some(&published)).await.unwrap();
    assert_eq!((whole.entries, &whole.head.mac), (6, &published.mac));
    let control = Running::start_on(&database).await;
    control.put("/api/policies/svc/b", "{}").await;
    let whole = verified(&database, Some(&published)).await.unwrap();
    assert_eq!(whole.head, head(&control).await);
    assert_eq!(whole.entries, 7);
}

#[tokio::test]
async fn an_entry_that_was_changed_removed_put_in_or_moved_is_found() {
    let folder = tempfile::tempdir().unwrap();
    six_entries(folder.path()).await;
    let edits = [
        "UPDATE audit SET at_seconds = at_seconds + 1 WHERE sequence = 3",
        "UPDATE audit SET actor = 'mallory' WHERE sequence = 3",
        "UPDATE audit SET actor_verified = 1 WHERE sequence = 3",
        "UPDATE audit SET address = NULL WHERE sequence = 3",
        "UPDATE audit SET address = '10.0.0.1' WHERE sequence = 3",
        "UPDATE audit SET action = 'policy_removed' WHERE sequence = 3",
        "UPDATE audit SET service = 'other' WHERE sequence = 3",
        "UPDATE audit SET target = '/b' WHERE sequence = 3",
        "UPDATE audit SET before_text = NULL WHERE sequence = 3",
        "UPDATE audit SET after_text = replace(after_text, '2', '9') WHERE sequence = 3",
        "UPDATE audit SET reason = '' WHERE sequence = 3",
        "UPDATE audit SET mac = '' WHERE sequence = 3",
        "UPDATE audit SET mac = CASE substr(mac, 1, 1) WHEN '0' THEN '1' ELSE '0' END || substr(mac, 2) WHERE sequence = 3",
        // From one field into its neighbour.
        "UPDATE audit SET service = 's', target = 'vc/a' WHERE sequence = 3",
    ];
    for edit in edits {
        let copy = copy(folder.path());
        let database = copy.path().join("control.db");
        tamper(&database, &[edit]).await;
        assert_eq!(
            fault(&database, None).await,
            AuditFault::Changed(3),
            "{edit}"
        );
    }
    let missing = AuditFault::Missing {
        expected: 3,
        found: 4,
    };
    let others: [(&[&'static str], AuditFault); 4] = [
        (&["DELETE FROM audit WHERE sequence = 3"], missing),
        (
            &[
                "DELETE FROM audit WHERE sequence = 3",
                "UPDATE audit SET sequence = -sequence WHERE sequence > 3",
                "UPDATE audit SET sequence = -sequence - 1 WHERE sequence < 0",
            ],
            AuditFault::Changed(3),
        ),
        (
            &[
                "UPDATE audit SET sequence = -sequence WHERE sequence > 2",
                "UPDATE audit SET sequence = -sequence + 1 WHERE sequence < 0",
                "INSERT INTO audit SELECT 3, at_seconds, 'mallory', actor_verified, address, action, service, target, before_text, after_text, reason, key_id, mac FROM audit WHERE sequence = 2",
            ],
            AuditFault::Changed(3),
        ),
        (
            &[
                "UPDATE audit SET sequence = 0 WHERE sequence = 3",
                "UPDATE audit SET sequence = 3 WHERE sequence = 4",
                "UPDATE audit SET sequence = 4 WHERE sequence = 0",
            ],
            AuditFault::Changed(3),
        ),
    ];
    for (statements, expected) in others {
        let copy = copy(folder.path());
        let database = copy.path().join("control.db");
        tamper(&database, statements).await;
        assert_eq!(fault(&database, None).await, expected, "{statements:?}");
    }
}

#[tokio::test]
async fn a_trail_whose_end_was_cut_is_found_by_a_head_that_was_kept() {
    let folder = tempfile::tempdir().unwrap();
    let published = six_entries(folder.path()).await;
    let database = folder.path().join("control.db");
    tamper(&database, &["DELETE FROM audit WHERE sequence > 3"]).await;
    // Without the head nothing can be seen.
    assert_eq!(verified(&database, None).await.unwrap().entries, 3);
    let cut = AuditFault::Cut { end: 3, head: 6 };
    assert_eq!(fault(&database, Some(&published)).await, cut);
    // Nor does it help to let the control plane write as many entries anew.
    let control = Running::start_on(&database).await;
    for _ in 0..4 {
        control.put("/api/policies/svc/b", "{}").await;
    }
    control.stop().await;
    assert_eq!(verified(&database, None).await.unwrap().entries, 7);
    assert_eq!(
        fault(&database, Some(&published)).await,
        AuditFault::OtherHead(6)
    );
    tamper(&database, &["DELETE FROM audit"]).await;
    assert_eq!(fault(&database, None).await, AuditFault::Empty);
}

#[tokio::test]
async fn an_entry_of_another_copy_of_the_trail_is_found() {
    let folder = tempfile::tempdir().unwrap();
    six_entries(folder.path()).await;
    let other = copy(folder.path());
    // Both go on, with the same key.
    for (folder, author) in [(folder.path(), "alice"), (other.path(), "bob")] {
        let control = Running::start_on(&folder.join("control.db")).await;
        for _ in 0..2 {
            let path = format!("/api/policies/svc/b?author={author}");
            control.put(&path, "{}").await;
        }
        control.stop().await;
    }
    let database = folder.path().join("control.db");
    assert_eq!(verified(&database, None).await.unwrap().entries, 8);
    let path = other.path().join("control.db");
    let attach: &'static str = format!("ATTACH DATABASE '{}' AS other", path.display()).leak();
    let swap = [
        attach,
        "DELETE FROM audit WHERE sequence = 8",
        "INSERT INTO audit SELECT * FROM other.audit WHERE sequence = 8",
    ];
    tamper(&database, &swap).await;
    assert_eq!(fault(&database, None).await, AuditFault::Changed(8));
}

#[tokio::test]
async fn what_is_cut_while_the_control_plane_runs_leaves_a_gap() {
    let folder = tempfile::tempdir().unwrap();
    six_entries(folder.path()).await;
    let database = folder.path().join("control.db");
    let control = Running::start_on(&database).await;
    tamper(&database, &["DELETE FROM audit WHERE sequence > 3"]).await;
    assert_eq!(head(&control).await.sequence, 6, "it goes by what it wrote");
    control.put("/api/policies/svc/b", "{}").await;
    let gap = AuditFault::Missing {
        expected: 4,
        found: 7,
    };
    assert_eq!(fault(&database, None).await, gap);
}

#[tokio::test]
async fn a_chain_that_was_made_anew_without_the_key_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let published = six_entries(folder.path()).await;
    let database = folder.path().join("control.db");
    let key = folder.path().join("audit.key");
    let theirs = folder.path().join("theirs");
    std::fs::rename(&key, &theirs).unwrap();
    // Who has the database, and not the key, has a whole chain of his own made.
    tamper(&database, &["DELETE FROM audit"]).await;
    let forged = six_entries(folder.path()).await;
    assert!(
        verified(&database, Some(&forged)).await.is_ok(),
        "under a key of his own"
    );
    std::fs::rename(&theirs, &key).unwrap();
    let other = AuditFault::OtherKey {
        sequence: 1,
        key_id: forged.key_id,
    };
    assert_eq!(fault(&database, None).await, other);
    // To write the right key's name on it does not help.
    let name: &'static str = format!("UPDATE audit SET key_id = '{}'", published.key_id).leak();
    tamper(&database, &[name]).await;
    assert_eq!(fault(&database, None).await, AuditFault::Changed(1));
}

#[tokio::test]
async fn a_key_that_was_lost_is_said_and_the_control_plane_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let published = six_entries(folder.path()).await;
    let database = folder.path().join("control.db");
    std::fs::remove_file(folder.path().join("audit.key")).unwrap();
    assert!(matches!(
        verified(&database, None).await,
        Err(VerifyError::Key(_))
    ));
    let control = Running::start_on(&database).await;
    let newest = trail(&control, "?limit=1").await[0].clone();
    assert_eq!(
        (&newest["sequence"], &newest["action"]),
        (&7.into(), &"key_made".into())
    );
    let other = AuditFault::OtherKey {
        sequence: 1,
        key_id: published.key_id,
    };
    assert_eq!(fault(&database, None).await, other);
}

#[tokio::test]
async fn the_control_plane_itself_only_adds_to_it() {
    let folder = tempfile::tempdir().unwrap();
    six_entries(folder.path()).await;
    let database = folder.path().join("control.db");
    for statement in ["UPDATE audit SET actor = 'x'", "DELETE FROM audit"] {
        let refused = places::sql(&database, statement).await;
        assert!(refused.unwrap_err().contains("never"), "{statement}");
    }
}

also_over_postgres!(
    every_change_and_every_refused_one_is_in_the_trail,
    a_trail_that_nobody_touched_is_whole_also_while_it_is_in_use,
    a_trail_whose_end_was_cut_is_found_by_a_head_that_was_kept,
    what_is_cut_while_the_control_plane_runs_leaves_a_gap,
    a_chain_that_was_made_anew_without_the_key_is_found,
    the_control_plane_itself_only_adds_to_it,
);
