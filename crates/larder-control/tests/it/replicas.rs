//! Several control planes over one PostgreSQL: one state, one history, one that decides.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_control::{AuditKeyPlace, ControlPlane, Keyring, OpenError, Settings, verify_audit};
use larder_model::api::{KeyRole, NewApiKey};
use larder_testing::certificates::Authority;
use larder_testing::postgres::PostgresServer;
use larder_testing::process::{Process, listen, role, say};
use larder_testing::stalls::Stalls;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::automatic::{report, window};
use crate::followers::Follower;
use crate::{Running, places, until};

/// One PostgreSQL, and a folder with the key of the audit trail.
struct Shared {
    server: Arc<PostgresServer>,
    url: String,
    folder: tempfile::TempDir,
}

impl Shared {
    fn new() -> Self {
        let server = PostgresServer::shared();
        Self {
            url: server.database(),
            server,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn settings(&self) -> Settings {
        settings(self.folder.path(), &self.url)
    }

    async fn start(&self) -> Running {
        Running::start_as(self.settings()).await
    }

    async fn two(&self) -> [Running; 2] {
        [self.start().await, self.start().await]
    }

    async fn verified(&self) -> u64 {
        verified(self.folder.path(), &self.url).await
    }
}

/// Those of a control plane with its files there, and its state here.
pub(crate) fn settings(folder: &Path, url: &str) -> Settings {
    let mut settings = Settings::new(folder.join("control.db"));
    settings.database = places::place(url);
    settings.tick = Duration::from_millis(100);
    settings
}

/// That the audit trail is whole; how many entries it has.
pub(crate) async fn verified(folder: &Path, url: &str) -> u64 {
    let settings = settings(folder, url);
    let verified = verify_audit(&settings.database, &settings.audit_key, None).await;
    verified.unwrap().entries
}

async fn etag(control: &Running) -> String {
    let answer = control.get("/api/config/svc").await;
    answer.header("etag").unwrap().to_owned()
}

async fn leads(control: &Running) -> bool {
    control.metric("larder_control_leader ").await == 1
}

/// Waits until one of them leads; which.
async fn leader(replicas: &[Running]) -> usize {
    let mut found = None;
    until("one leads", async || {
        for (at, control) in replicas.iter().enumerate() {
            if leads(control).await {
                found = Some(at);
            }
        }
        found.is_some()
    })
    .await;
    found.unwrap()
}

#[tokio::test]
async fn a_change_at_one_acts_at_the_clients_of_another() {
    let shared = Shared::new();
    let [one, other] = shared.two().await;
    let mut follower = Follower::open(other.port, "").await;
    follower.event_of("policies").await;
    let mut took = Vec::new();
    let stalls = Stalls::watch();
    for ttl in 1..=20 {
        let begun = Instant::now();
        let policy = json!({ "ttl_seconds": ttl }).to_string();
        let put = one.put("/api/policies/svc/a", &policy).await;
        assert_eq!(put.status, 200, "{put:?}");
        let told = follower.event_of("policies").await;
        took.push(begun.elapsed());
        let document: Value = serde_json::from_str(&told.data).unwrap();
        assert_eq!(document["policies"][0]["ttl_seconds"], f64::from(ttl));
    }
    println!("a change at one acts at a client of another within {took:?}");
    // They are told. What is not is found by looking, each 5 s.
    let most = Duration::from_secs(3) + stalls.end();
    assert!(took.iter().all(|took| *took < most), "{took:?} {most:?}");
    assert_eq!(etag(&one).await, etag(&other).await);
    let read = other.get("/api/config/svc/a").await.json();
    assert_eq!(read["ttl_seconds"], 20.0);
}

#[tokio::test]
async fn what_could_not_be_told_is_found() {
    let shared = Shared::new();
    let [one, other] = shared.two().await;
    let listening = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'";
    until("both listen", async || {
        shared.server.sql(&shared.url, listening) == "2"
    })
    .await;
    // What is said from now on nobody hears.
    one.put("/api/policies/svc/a", "{}").await;
    shared
        .server
        .sql(&shared.url, "UPDATE services SET version = version + 1");
    until("both have found it", async || {
        let versions = [&one, &other].map(|control| async { etag(control).await });
        let [one, other] = versions;
        one.await.ends_with("-2\"") && other.await.ends_with("-2\"")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_at_once_at_both_lose_nothing() {
    const EACH: usize = 20;
    let shared = Shared::new();
    let replicas = shared.two().await.map(Arc::new);
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..6 {
        let control = Arc::clone(&replicas[task % 2]);
        tasks.spawn(async move {
            for index in 0..EACH {
                let path = format!("/api/policies/svc/e{task}/{index}");
                let put = control.put(&path, r#"{"ttl_seconds":5}"#).await;
                assert_eq!(put.status, 200, "{put:?}");
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let wanted: BTreeSet<String> = (0..6)
        .flat_map(|task| (0..EACH).map(move |index| format!("/e{task}/{index}")))
        .collect();
    for control in &replicas {
        until("it has all of them", async || {
            let list = control.get("/api/policies/svc").await.json();
            let all = list["policies"].as_array().unwrap().iter();
            let found = all.map(|one| one["endpoint"].as_str().unwrap().to_owned());
            found.collect::<BTreeSet<_>>() == wanted
        })
        .await;
    }
    let numbers = shared.server.sql(
        &shared.url,
        "SELECT count(*), min(number), max(number) FROM revisions",
    );
    assert_eq!(numbers, "120|1|120", "each change is one revision");
    // And the first entry, which says that the key was made.
    assert_eq!(shared.verified().await, 121);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_who_change_what_they_both_read_one_is_refused() {
    let shared = Shared::new();
    let replicas = shared.two().await.map(Arc::new);
    replicas[0].put("/api/policies/svc/a", "{}").await;
    for round in 0..10 {
        let tag = replicas[0].get("/api/policies/svc/a").await;
        let tag = tag.header("etag").unwrap().to_owned();
        let tries = [0, 1].map(|at| {
            let (control, tag) = (Arc::clone(&replicas[at]), tag.clone());
            tokio::spawn(async move {
                let headers = [("Content-Type", "application/json"), ("If-Match", &tag)];
                let policy = json!({"ttl_seconds": 1 + 2 * round + at}).to_string();
                let put = control.send("PUT", "/api/policies/svc/a", &headers, &policy);
                put.await.status
            })
        });
        let [one, other] = tries;
        let mut answers = [one.await.unwrap(), other.await.unwrap()];
        answers.sort_unstable();
        assert_eq!(answers, [200, 412], "round {round}");
    }
}

#[tokio::test]
async fn one_decides_from_what_the_other_was_told_and_both_show_it() {
    let shared = Shared::new();
    let replicas = shared.two().await;
    let follows = &replicas[1 - leader(&replicas).await];
    assert!(!leads(follows).await, "two lead");
    follows
        .put("/api/policies/svc/a", r#"{"mode":"auto","ttl_seconds":30}"#)
        .await;
    let sent = window("/a", 800, 1, false);
    report(follows, vec![sent.clone()]).await;
    for control in &replicas {
        until("it was decided", async || {
            let config = control.get("/api/config/svc/a").await.json();
            config["cache_enabled"] == true && config["source"] == "auto"
        })
        .await;
        // Through whichever it comes again: it counts once.
        report(control, vec![sent.clone()]).await;
        let requests = async || {
            let list = control.get("/api/endpoints?service=svc").await.json();
            list["endpoints"][0]["window"]["bypasses"].clone()
        };
        assert_eq!(requests().await, sent["window"]["bypasses"]);
    }
    let instance = json!({"service_name": "svc", "instance": "i-1", "via": "stream"}).to_string();
    follows.post("/api/instances", &instance).await;
    for control in &replicas {
        until("it knows the instance", async || {
            let list = control.get("/api/instances").await.json();
            list["instances"].as_array().unwrap().len() == 1
        })
        .await;
    }
}

#[tokio::test]
async fn an_override_ends_once_wherever_it_was_begun() {
    let shared = Shared::new();
    let replicas = shared.two().await;
    let follows = &replicas[1 - leader(&replicas).await];
    let over = json!({"service_name": "svc", "endpoint": "/a", "policy": {"mode": "off"}, "reason": "x", "duration_seconds": 1});
    let begun = follows.post("/api/overrides", &over.to_string()).await;
    assert_eq!(begun.status, 201, "{begun:?}");
    for control in &replicas {
        until("it is over", async || {
            let list = control.get("/api/overrides").await.json();
            list["overrides"].as_array().unwrap().is_empty()
                && etag(control).await.ends_with("-2\"")
        })
        .await;
    }
    let actions = "SELECT string_agg(action, ' ' ORDER BY number) FROM revisions";
    let actions = shared.server.sql(&shared.url, actions);
    assert_eq!(actions, "override_began override_expired");
}

#[test]
fn serves_in_a_process_of_its_own() {
    let Some(folder) = role("replica") else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let url = std::fs::read_to_string(folder.join("url")).unwrap();
        let mut settings = settings(&folder, &url);
        // As in production: who begins to lead does not wait for it.
        settings.tick = Duration::from_secs(10);
        let control = ControlPlane::open(settings).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        say(&listener.local_addr().unwrap().port().to_string());
        let stopped = async {
            tokio::task::spawn_blocking(listen).await.unwrap();
        };
        control.run(listener, stopped).await.unwrap();
    });
}

fn process(shared: &Shared) -> (Process, Running) {
    std::fs::write(shared.folder.path().join("url"), &shared.url).unwrap();
    let test = "replicas::serves_in_a_process_of_its_own";
    let mut process = Process::start(test, "replica", shared.folder.path());
    let port = process.hear().unwrap().parse().unwrap();
    (process, Running::at(port))
}

/// When an endpoint was last decided, in seconds since 1970.
async fn decided_at(control: &Running) -> Option<u64> {
    let explained = control.get("/api/explain/svc/a").await.json();
    explained["decision"]["at_seconds"].as_u64()
}

#[tokio::test]
async fn when_the_leader_is_killed_the_other_decides_within_ten_seconds() {
    let shared = Shared::new();
    let (mut first, one) = process(&shared);
    until("the first leads", async || leads(&one).await).await;
    let (_second, other) = process(&shared);
    one.put("/api/policies/svc/a", r#"{"mode":"auto","ttl_seconds":30}"#)
        .await;
    report(&one, vec![window("/a", 800, 1, false)]).await;
    until("it was decided", async || {
        let config = other.get("/api/config/svc/a").await.json();
        config["cache_enabled"] == true && config["source"] == "auto"
    })
    .await;
    assert!(!leads(&other).await);
    let before = decided_at(&other).await.unwrap();
    first.signal(rustix::process::Signal::KILL);
    first.wait();
    let killed = Instant::now();
    until("the other decides", async || {
        decided_at(&other).await.is_some_and(|at| at > before)
    })
    .await;
    let took = killed.elapsed();
    println!("the other decided {took:?} after the leader was killed");
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(leads(&other).await);
    let put = other.put("/api/policies/svc/b", "{}").await;
    assert_eq!(put.status, 200, "{put:?}");
    shared.verified().await;
}

/// Looks for this long, and never sees two lead: one that leads before and after the other one was seen to lead leads with it.
async fn never_two([one, other]: &[Running; 2], time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        let before = leads(one).await;
        let both = leads(other).await && before && leads(one).await;
        assert!(!both, "two lead, {:?} after the loss", begun.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_loses_the_connection_leads_no_more_and_never_do_two() {
    let shared = Shared::new();
    let replicas = shared.two().await;
    let lost = "SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    for _ in 0..3 {
        leader(&replicas).await;
        // The server ends the leader's session: it hears of that with the next word, and asks again like the other.
        assert_eq!(shared.server.sql(&shared.url, lost), "1");
        never_two(&replicas, Duration::from_secs(4)).await;
    }
    until("only one leads", async || {
        let [one, other] = [leads(&replicas[0]).await, leads(&replicas[1]).await];
        one != other
    })
    .await;
}

#[tokio::test]
async fn all_need_the_same_audit_key_unless_it_is_lost() {
    let shared = Shared::new();
    let first = shared.start().await;
    first.put("/api/policies/svc/a", "{}").await;
    let elsewhere = tempfile::tempdir().unwrap();
    let mut there = settings(elsewhere.path(), &shared.url);
    let missing = ControlPlane::open(there.clone())
        .await
        .unwrap_err()
        .to_string();
    assert!(missing.contains("LARDER_AUDIT_KEY"), "{missing}");
    assert_eq!(
        std::fs::read_dir(elsewhere.path()).unwrap().count(),
        0,
        "none is made"
    );

    let key = |digit: &str| AuditKeyPlace::Given(larder_model::Secret::new(digit.repeat(64)));
    there.audit_key = key("a");
    let error = ControlPlane::open(there.clone()).await.unwrap_err();
    let OpenError::OtherKey { written, .. } = &error else {
        panic!("{error}");
    };
    assert!(
        error
            .to_string()
            .contains(&format!("--lost-audit-key {written}"))
    );

    // The same key, given as text.
    let text = std::fs::read_to_string(shared.folder.path().join("audit.key")).unwrap();
    there.audit_key = AuditKeyPlace::Given(larder_model::Secret::new(text));
    let second = Running::start_as(there.clone()).await;
    assert_eq!(second.put("/api/policies/svc/b", "{}").await.status, 200);
    second.stop().await;

    // Lost: it goes on with another, and those who still have the old one are told.
    there.audit_key = key("a");
    there.lost_audit_key = Some(written.clone());
    let third = Running::start_as(there).await;
    assert_eq!(third.put("/api/policies/svc/c", "{}").await.status, 200);
    let refused = first.put("/api/policies/svc/d", "{}").await;
    refused.is_problem(500);
    assert!(
        refused.body.contains("another") || refused.body.contains("key"),
        "{refused:?}"
    );
    let list = third.get("/api/policies/svc").await.json();
    let list: &Vec<Value> = list["policies"].as_array().unwrap();
    assert_eq!(list.len(), 3);
}

#[tokio::test]
async fn a_key_that_is_revoked_at_one_is_refused_by_the_other_within_ten_seconds() {
    let shared = Shared::new();
    let keys = Keyring::open(&shared.settings()).await.unwrap();
    let new = |role: KeyRole| NewApiKey {
        name: "a test's".to_owned(),
        role,
        services: vec!["*".to_owned()],
        expires_at_seconds: None,
        reason: None,
    };
    let admin = keys
        .create(&new(KeyRole::Admin), None)
        .await
        .unwrap()
        .secret;
    let made = keys.create(&new(KeyRole::Read), None).await.unwrap();
    let [one, other] = shared.two().await;
    let status = async || {
        let read = other.with(Some(&made.secret), "GET", "/api/services", "");
        read.await.status
    };
    assert_eq!(status().await, 200);
    let path = format!("/api/api-keys/{}", made.key.id);
    let revoked = one.with(Some(&admin), "DELETE", &path, "").await;
    assert!((200..300).contains(&revoked.status), "{revoked:?}");
    let at = Instant::now();
    until("it is refused", async || status().await == 401).await;
    assert!(at.elapsed() < Duration::from_secs(10), "{:?}", at.elapsed());
}

#[tokio::test]
async fn what_it_needs_of_postgresql_is_said() {
    let server = PostgresServer::shared();
    let url = server.database();
    let name = url.rsplit('/').next().unwrap().to_owned();
    server.sql(
        "postgres",
        "DO $$ BEGIN CREATE ROLE poor LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
    );
    let folder = tempfile::tempdir().unwrap();
    let poor = url.replace("larder@", "poor:canary@");
    let error = ControlPlane::open(settings(folder.path(), &poor))
        .await
        .unwrap_err();
    let said = error.to_string();
    assert!(matches!(error, OpenError::Postgres { .. }), "{said}");
    assert!(
        said.contains("poor@") && said.contains("schema larder"),
        "{said}"
    );
    assert!(!said.contains("canary") && !error.is_temporary());
    // Who was given the schema needs no more.
    server.sql(&name, "CREATE SCHEMA larder AUTHORIZATION poor");
    let control = Running::start_as(settings(folder.path(), &poor)).await;
    assert_eq!(control.put("/api/policies/svc/a", "{}").await.status, 200);
    control.stop().await;
    // And the trail is not his to change.
    for statement in [
        "DELETE FROM larder.audit",
        "UPDATE larder.audit SET actor = 'x'",
        "TRUNCATE larder.audit",
    ] {
        let refused = server.try_sql(&name, &format!("SET ROLE poor; {statement}"));
        assert!(
            refused.unwrap_err().contains("permission denied"),
            "{statement}"
        );
    }
    let none = url.replace(&name, "no_such_database");
    let error = ControlPlane::open(settings(folder.path(), &none))
        .await
        .unwrap_err();
    assert!(matches!(error, OpenError::Postgres { .. }), "{error}");
}

#[tokio::test]
async fn many_that_start_at_once_make_one_database() {
    let shared = Shared::new();
    let starts = (0..5).map(|_| ControlPlane::open(shared.settings()));
    let opened = futures_util::future::join_all(starts).await;
    assert!(
        opened.iter().all(Result::is_ok),
        "{:?}",
        opened.iter().find_map(|one| one.as_ref().err())
    );
    assert_eq!(shared.verified().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_waits_for_nobody_who_changes_something() {
    let shared = Shared::new();
    let first = shared.start().await;
    first.put("/api/policies/svc/a", "{}").await;
    let (server, url) = (Arc::clone(&shared.server), shared.url.clone());
    let changing = tokio::task::spawn_blocking(move || {
        let statement = "BEGIN; UPDATE larder.identity SET database_id = database_id; SELECT pg_sleep(60); COMMIT";
        server.try_sql(&url, statement)
    });
    until("somebody changes something", async || {
        let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
        shared.server.sql(&shared.url, sleeping) == "1"
    })
    .await;
    let second = shared.start().await;
    assert!(!changing.is_finished(), "it waited");
    assert_eq!(etag(&second).await, etag(&first).await);
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
    assert_eq!(shared.server.sql(&shared.url, end), "1");
    assert!(changing.await.unwrap().is_err(), "it changed all the while");
}

/// The database's session ends when a change is to be made, so that nobody hears whether it was.
const ENDS_AT_THE_COMMIT: &str = "CREATE FUNCTION larder.ends() RETURNS trigger LANGUAGE plpgsql AS \
    $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$; \
    CREATE CONSTRAINT TRIGGER ends AFTER INSERT ON larder.audit DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION larder.ends()";

#[tokio::test]
async fn where_it_is_not_known_whether_a_change_was_made_that_is_said() {
    let shared = Shared::new();
    let control = shared.start().await;
    shared.server.sql(&shared.url, ENDS_AT_THE_COMMIT);
    let asked = json!({"service_name": "svc", "id": "deploy-17", "wait_seconds": 0});
    let answer = control.invalidate(asked.clone()).await;
    answer.is_problem(503);
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    for words in ["may be invalidated or not", "deploy-17", "/api/audit"] {
        assert!(answer.body.contains(words), "{words}: {answer:?}");
    }
    until("the database is asked again", async || {
        let put = control.put("/api/policies/svc/a", "{}").await;
        put.is_problem(503);
        put.body.contains("may be made or not")
    })
    .await;
    let drop = "DROP TRIGGER ends ON larder.audit";
    shared.server.sql(&shared.url, drop);
    until("it is done once", async || {
        control.invalidate(asked.clone()).await.status == 202
    })
    .await;
}

#[tokio::test]
async fn tls_is_as_the_url_says() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = PostgresServer::start_tls(&authority.sign("db", "IP:127.0.0.1"));
    let url = server.database();
    let open = async |mode: &str, authority: &Authority| {
        let folder = tempfile::tempdir().unwrap();
        let root = authority.certificate().display().to_string();
        let url = format!("{url}?sslmode={mode}&sslrootcert={root}");
        let opened = ControlPlane::open(settings(folder.path(), &url)).await;
        (opened, folder)
    };
    let (verified, _folder) = open("verify-full", &authority).await;
    let _control = verified.unwrap();
    let in_use = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'larder-control' AND datname = current_database()";
    assert_eq!(server.sql(&url, in_use), "t");
    let (refused, _folder) = open("verify-full", &other).await;
    let refused = refused.unwrap_err();
    assert!(matches!(refused, OpenError::Untrusted { .. }), "{refused}");
    assert!(!refused.is_temporary());
}

#[tokio::test]
async fn what_is_invalidated_at_any_is_told_by_all_in_one_order() {
    let shared = Shared::new();
    let [one, other] = shared.two().await;
    let mut followers = Vec::new();
    for control in [&one, &other] {
        let mut follower = Follower::open(control.port, "Larder-Invalidations: \r\n").await;
        follower.event_of("invalidations").await;
        followers.push(follower);
    }
    let mut names = Vec::new();
    for number in 0..6 {
        let control = if number % 2 == 0 { &one } else { &other };
        let name = format!("t{number}");
        let asked = json!({"service_name": "svc", "tag": name, "id": name, "wait_seconds": 0});
        let answer = control.invalidate(asked).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        names.push(name);
    }
    let mut position = String::new();
    for follower in &mut followers {
        for name in &names {
            let event = follower.event_of("invalidate").await;
            let told: Value = serde_json::from_str(&event.data).unwrap();
            assert_eq!(told["name"], name.as_str(), "{told}");
            if name == "t2" {
                event.id.clone_into(&mut position);
            }
        }
    }
    // Where a client is at one, it is at the other.
    for control in [&one, &other] {
        let header = format!("Last-Event-ID: {position}\r\n");
        let mut back = Follower::open(control.port, &header).await;
        let standing = back.event_of("invalidations").await;
        assert!(standing.data.contains("\"gap\":false"), "{standing:?}");
        let next = back.event_of("invalidate").await;
        assert!(next.data.contains("\"t3\""), "{next:?}");
        for name in &names {
            let path = format!("/api/invalidations/{name}");
            assert_eq!(control.get(&path).await.status, 200, "{name}");
        }
    }
}
