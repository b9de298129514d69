//! Keys: made, shown, revoked.

use std::time::{Duration, Instant};

use larder_control::{AuditKeyPlace, ControlPlane, RunError, Settings};
use larder_model::Secret;
use larder_model::api::KeyRole::{Admin, Read, Report};
use larder_testing::process::PATIENCE;
use serde_json::json;
use tokio::net::TcpListener;

use super::Keyed;
use crate::followers::Follower;
use crate::{Running, places, until};

#[tokio::test]
async fn a_key_is_told_once_and_only_its_hash_is_kept() {
    let mut keyed = Keyed::new().await;
    let admin = keyed.key(Admin, &["*"]).await.secret;
    let control = keyed.start().await;
    let new =
        json!({"name": "ci", "role": "report", "services": ["svc"], "reason": "a new pipeline"});
    let made = control
        .with(Some(&admin), "POST", "/api/api-keys", &new.to_string())
        .await;
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(made.header("cache-control"), Some("no-store"));
    let made = made.json();
    let (id, secret) = (
        made["id"].as_str().unwrap(),
        made["secret"].as_str().unwrap(),
    );
    assert!(secret.starts_with(&format!("lrd_{id}_")) && secret.len() == 85);
    assert_eq!(
        control
            .with(Some(secret), "GET", "/api/config/svc", "")
            .await
            .status,
        200
    );

    let listed = control.with(Some(&admin), "GET", "/api/api-keys", "").await;
    let of_secret = &secret[22..];
    assert!(
        listed.body.contains(id) && !listed.body.contains(of_secret),
        "{listed:?}"
    );
    let keys = listed.json()["keys"].as_array().unwrap().clone();
    let used = keys.iter().find(|key| key["id"] == id).unwrap();
    let used_at = used["used_at_seconds"].as_u64().unwrap();
    assert_eq!(used_at % 300, 0, "coarse: {used_at}");
    let trail = control
        .with(Some(&admin), "GET", "/api/audit", "")
        .await
        .body;
    assert!(trail.contains("key_created") && trail.contains("a new pipeline"));
    assert!(!trail.contains(of_secret));
    control.stop().await;
    for file in std::fs::read_dir(keyed.database().parent().unwrap()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains(of_secret), "the database holds a secret");
    }
}

#[tokio::test]
async fn what_can_be_no_key_is_refused() {
    let mut keyed = Keyed::new().await;
    let admin = keyed.key(Admin, &["*"]).await.secret;
    let control = keyed.start().await;
    for new in [
        json!({"name": "", "role": "read", "services": ["a"]}),
        json!({"name": "a\nb", "role": "read", "services": ["a"]}),
        json!({"name": "n".repeat(65), "role": "read", "services": ["a"]}),
        json!({"name": "n", "role": "root", "services": ["a"]}),
        json!({"name": "n", "role": "read", "services": []}),
        json!({"name": "n", "role": "read", "services": ["*", "a"]}),
        json!({"name": "n", "role": "read", "services": ["a b"]}),
        json!({"name": "n", "role": "read"}),
        json!({"name": "n", "role": "read", "services": ["a"], "expires_at_seconds": 7}),
    ] {
        let answer = control
            .with(Some(&admin), "POST", "/api/api-keys", &new.to_string())
            .await;
        answer.is_problem(422);
    }
    let keys = control
        .with(Some(&admin), "GET", "/api/api-keys", "")
        .await
        .json();
    assert_eq!(keys["keys"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn only_a_header_shows_a_key_and_only_one() {
    let mut keyed = Keyed::new().await;
    let key = keyed.key(Admin, &["*"]).await.secret;
    let control = keyed.start().await;
    let answer = |authorization: String| {
        let control = &control;
        async move {
            let head = format!(
                "GET /api/services HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n{authorization}\r\n",
                control.port
            );
            control.raw(head.as_bytes()).await
        }
    };
    for good in [
        format!("Authorization: Bearer {key}\r\n"),
        format!("authorization: bearer  {key}\r\n"),
    ] {
        assert_eq!(answer(good).await.status, 200);
    }
    for bad in [
        format!("Authorization: {key}\r\n"),
        format!("Authorization: Basic {key}\r\n"),
        format!("Authorization: Bearer {key}x\r\n"),
        format!("Authorization: Bearer {}\r\n", key.to_uppercase()),
        format!("Authorization: Bearer {key}\r\nAuthorization: Bearer {key}\r\n"),
        format!("X-Api-Key: {key}\r\n"),
        format!("Cookie: key={key}\r\n"),
        String::new(),
    ] {
        let refused = answer(bad.clone()).await;
        refused.is_problem(401);
        let scheme = refused.header("www-authenticate");
        assert_eq!(scheme, Some("Bearer realm=\"larder\""), "{bad}");
        assert!(refused.body.contains("larder key create"), "{refused:?}");
    }
    // In a URL it would be in every log on the way, so that it is refused, and not written down here either.
    for path in [
        format!("/api/services?key={key}"),
        format!("/api/policies/{key}/a"),
        format!("/api/services?token={}", key.replace('_', "%5F")),
    ] {
        let refused = control.with(Some(&key), "DELETE", &path, "").await;
        refused.is_problem(400);
        assert!(refused.body.contains("revoke this one") && !refused.body.contains(&key));
    }
    let trail = control.with(Some(&key), "GET", "/api/audit", "").await.body;
    assert!(trail.contains("a URL with an API key in it"), "{trail}");
    assert!(!trail.contains(&key[22..]), "{trail}");
}

/// Reads a stream to its end.
async fn ends(follower: &mut Follower) {
    let end = async { while follower.next().await.is_some() {} };
    let ended = tokio::time::timeout(PATIENCE, end).await;
    ended.expect("the stream ends");
}

#[tokio::test]
async fn a_revoked_key_ends_at_once_and_so_do_its_streams() {
    let mut keyed = Keyed::new().await;
    let admin = keyed.key(Admin, &["*"]).await.secret;
    let here = keyed.key(Report, &["svc"]).await;
    let elsewhere = keyed.key(Report, &["svc"]).await;
    let stays = keyed.key(Report, &["svc"]).await;
    let reads = keyed.key(Read, &["svc"]).await;
    let control = keyed.start().await;
    let follow = async |secret: &str| {
        let header = format!("Authorization: Bearer {secret}\r\n");
        let mut follower = Follower::open(control.port, &header).await;
        assert_eq!(follower.status, 200);
        follower.event_of("policies").await;
        follower
    };
    let mut of_here = follow(&here.secret).await;
    let mut of_elsewhere = follow(&elsewhere.secret).await;
    let mut of_stays = follow(&stays.secret).await;
    let header = format!("Authorization: Bearer {}\r\n", reads.secret);
    let mut looks = Follower::open_at(control.port, "/api/events", &header).await;
    assert_eq!(looks.status, 200);
    assert!(keyed.revoke(&reads.key.id).await);

    let path = format!("/api/api-keys/{}", here.key.id);
    assert_eq!(
        control.with(Some(&admin), "DELETE", &path, "").await.status,
        204
    );
    let began = Instant::now();
    ends(&mut of_here).await;
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    control
        .with(Some(&here.secret), "GET", "/api/config/svc", "")
        .await
        .is_problem(401);
    control
        .with(Some(&admin), "DELETE", &path, "")
        .await
        .is_problem(404);

    // By another process, over the database.
    assert!(keyed.revoke(&elsewhere.key.id).await);
    let began = Instant::now();
    ends(&mut of_elsewhere).await;
    ends(&mut looks).await;
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    control
        .with(Some(&elsewhere.secret), "GET", "/api/config/svc", "")
        .await
        .is_problem(401);

    // What another process wrote into the trail is gone on with.
    let put = control
        .with(Some(&admin), "PUT", "/api/policies/svc/a", "{}")
        .await;
    assert_eq!(put.status, 200, "{put:?}");
    assert!(
        of_stays
            .event_of("policies")
            .await
            .data
            .contains("\"version\":1")
    );
    control.stop().await;
    let settings = places::settings(&keyed.database());
    let verified =
        larder_control::verify_audit(&settings.database, &settings.audit_key, None).await;
    assert_eq!(verified.unwrap().entries, 11);
}

#[tokio::test]
async fn a_key_that_was_tried_before_it_was_made_works_as_soon_as_it_is() {
    let mut keyed = Keyed::new().await;
    let admin = keyed.key(Admin, &["*"]).await.secret;
    let control = keyed.start().await;
    // One of another database, which is then brought here with its row.
    let mut other = Keyed::new().await;
    let made = other.key(Read, &["svc"]).await;
    for _ in 0..3 {
        control
            .with(Some(&made.secret), "GET", "/api/services", "")
            .await
            .is_problem(401);
    }
    let attach = format!("ATTACH '{}' AS other", other.database().display());
    super::tamper_with(
        &keyed.database(),
        &[
            &attach,
            "INSERT INTO api_keys SELECT * FROM other.api_keys",
            "UPDATE access SET version = version + 1",
        ],
    )
    .await;
    until("the key works", async || {
        let tried = control
            .with(Some(&made.secret), "GET", "/api/services", "")
            .await;
        tried.status == 200
    })
    .await;
    // A new one works at its first use, whoever made it.
    let new = keyed.key(Read, &["svc"]).await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(
        control
            .with(Some(&new.secret), "GET", "/api/services", "")
            .await
            .status,
        200
    );
    assert_eq!(
        control
            .with(Some(&admin), "GET", "/api/api-keys", "")
            .await
            .status,
        200
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_keys_at_full_speed_are_slowed_down_and_the_right_one_is_not() {
    let mut keyed = Keyed::new().await;
    let report = keyed.key(Report, &["svc"]).await.secret;
    let control = keyed.start().await;
    let mut statuses = std::collections::BTreeMap::new();
    for number in 0..200_u64 {
        let wrong = format!("{}{number:016x}", &report[..report.len() - 16]);
        let answer = control
            .with(Some(&wrong), "GET", "/api/config/svc", "")
            .await;
        if answer.status == 429 {
            let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=60).contains(&after), "{after}");
        }
        *statuses.entry(answer.status).or_insert(0) += 1;
        if number % 10 == 0 {
            let right = control
                .with(Some(&report), "GET", "/api/config/svc", "")
                .await;
            assert_eq!(right.status, 200, "{right:?}");
        }
    }
    let (refused, slowed) = (statuses[&401], statuses[&429]);
    assert!(refused >= 60 && slowed >= 20, "{statuses:?}");
}

#[tokio::test]
async fn who_did_it_is_the_key_whatever_he_says() {
    let mut keyed = Keyed::new().await;
    let admin = keyed.key(Admin, &["*"]).await;
    let read = keyed.key(Read, &["svc"]).await;
    let control = keyed.start().await;
    let path = "/api/policies/svc/a?author=somebody&reason=because";
    assert_eq!(
        control
            .with(Some(&admin.secret), "PUT", path, "{}")
            .await
            .status,
        200
    );
    assert_eq!(
        control
            .with(Some(&read.secret), "PUT", path, "{}")
            .await
            .status,
        403
    );
    let trail = control
        .with(Some(&admin.secret), "GET", "/api/audit", "")
        .await
        .json();
    let entries = trail["entries"].as_array().unwrap();
    let by = |key: &larder_model::api::MadeApiKey| format!("key {} (a test's)", key.key.id);
    let (refused, set) = (&entries[0], &entries[1]);
    assert_eq!(set["action"], "policy_set", "{trail}");
    assert_eq!(
        (&set["actor"], &set["actor_verified"]),
        (&by(&admin).into(), &true.into())
    );
    assert_eq!(set["reason"], "because");
    assert_eq!(
        (&refused["action"], &refused["after"]["status"]),
        (&"refused".into(), &403.into())
    );
    assert_eq!(
        (&refused["actor"], &refused["actor_verified"]),
        (&by(&read).into(), &true.into())
    );
    assert_eq!(refused["address"], "127.0.0.1");
}

#[tokio::test]
async fn who_has_another_key_of_the_audit_trail_changes_nothing_beside_a_control_plane() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("control.db");
    let mut settings = Settings::new(&file);
    settings.audit_key = AuditKeyPlace::Given(Secret::new("5ea1".repeat(16)));
    let control = Running::start_as(settings).await;
    // The operator's shell does not have it, and there is no file.
    let refused = larder_control::Keyring::open(&Settings::new(&file)).await;
    let refused = refused.expect_err("it would write with a key of its own");
    assert!(
        refused.to_string().contains("LARDER_AUDIT_KEY"),
        "{refused}"
    );
    assert_eq!(
        control
            .put("/api/policies/svc/a", r#"{"mode":"off"}"#)
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn without_keys_it_is_on_this_machine_alone() {
    let folder = tempfile::tempdir().unwrap();
    let settings = || Settings::new(folder.path().join("control.db"));
    let run = async || {
        let control = ControlPlane::open(settings()).await.unwrap();
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        control.run(listener, std::future::ready(())).await
    };
    let refused = run().await.unwrap_err();
    assert!(matches!(refused, RunError::Bind(_)), "{refused}");
    assert!(
        refused.to_string().contains("larder key create"),
        "{refused}"
    );
    let keys = larder_control::Keyring::open(&settings()).await.unwrap();
    let new = larder_model::api::NewApiKey {
        name: "first".to_owned(),
        role: Admin,
        services: vec!["*".to_owned()],
        expires_at_seconds: None,
        reason: None,
    };
    let made = keys.create(&new, None).await.unwrap();
    assert!(run().await.is_ok());
    // That it is revoked opens nothing.
    assert!(keys.revoke(&made.key.id, None, None).await.unwrap());
    let control = Running::start_on(&folder.path().join("control.db")).await;
    control.get("/api/services").await.is_problem(401);
}

#[tokio::test]
async fn keys_that_cannot_be_read_let_nobody_in() {
    let mut keyed = Keyed::new().await;
    let admin = keyed.key(Admin, &["*"]).await.secret;
    let damage = ["UPDATE api_keys SET role = 'root'"];
    super::tamper_with(&keyed.database(), &damage).await;
    let control = keyed.start().await;
    for key in [None, Some(admin.as_str())] {
        let answer = control.with(key, "GET", "/api/services", "").await;
        answer.is_problem(503);
        assert_eq!(answer.header("retry-after"), Some("2"));
    }
    assert_eq!(control.get("/healthz").await.status, 200);
    let mend = ["UPDATE api_keys SET role = 'admin'"];
    super::tamper_with(&keyed.database(), &mend).await;
    until("the keys are read", async || {
        control
            .with(Some(&admin), "GET", "/api/services", "")
            .await
            .status
            == 200
    })
    .await;
}

also_over_postgres!(
    a_key_is_told_once_and_only_its_hash_is_kept,
    what_can_be_no_key_is_refused,
    only_a_header_shows_a_key_and_only_one,
    a_revoked_key_ends_at_once_and_so_do_its_streams,
    wrong_keys_at_full_speed_are_slowed_down_and_the_right_one_is_not,
    who_did_it_is_the_key_whatever_he_says,
);
