//! PostgreSQL goes away and comes back: what is read is answered all the while, what would be changed is refused and says what
//! to do, and nothing that was acknowledged is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use larder_control::ControlPlane;
use larder_testing::postgres::PostgresServer;
use larder_testing::process::PATIENCE;
use larder_testing::redis::free_port;
use larder_testing::stalls::Stalls;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::replicas::{settings, verified};
use crate::{Answer, Running, until};

/// A refused change is answered within this time.
const REFUSED_IN: Duration = Duration::from_secs(8);
/// So many of each replica, at the least.
const REFUSED: u32 = 3;

/// How long it is away: a minute, where there is time for that (`LARDER_SOAK`).
fn away() -> Duration {
    match std::env::var_os("LARDER_SOAK") {
        Some(_) => Duration::from_secs(60),
        None => Duration::from_secs(4),
    }
}

/// Whoever reads policies, again and again.
struct Readers {
    goes_on: Arc<AtomicBool>,
    read: Arc<AtomicU64>,
    tasks: tokio::task::JoinSet<Duration>,
    stalls: Stalls,
}

impl Readers {
    fn start(replicas: &[Arc<Running>]) -> Self {
        let (goes_on, read) = (Arc::new(AtomicBool::new(true)), Arc::default());
        let mut tasks = tokio::task::JoinSet::new();
        for control in replicas {
            let (control, goes_on) = (Arc::clone(control), Arc::clone(&goes_on));
            let read: Arc<AtomicU64> = Arc::clone(&read);
            tasks.spawn(async move {
                let mut slowest = Duration::ZERO;
                while goes_on.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    for path in ["/api/config/svc", "/api/config/svc/first", "/healthz"] {
                        let answer = control.get(path).await;
                        assert_eq!(answer.status, 200, "{path}: {answer:?}");
                    }
                    slowest = slowest.max(begun.elapsed());
                    read.fetch_add(3, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                slowest
            });
        }
        Self {
            goes_on,
            read,
            tasks,
            stalls: Stalls::watch(),
        }
    }

    /// How many reads there were; all were answered.
    async fn end(mut self) -> u64 {
        self.goes_on.store(false, Ordering::Relaxed);
        let stood_still = self.stalls.end();
        while let Some(done) = self.tasks.join_next().await {
            let slowest = done.unwrap();
            let longest = Duration::from_secs(2) + stood_still;
            assert!(slowest < longest, "{slowest:?} {stood_still:?}");
        }
        self.read.load(Ordering::Relaxed)
    }
}

fn is_refused(answer: &Answer) {
    answer.is_problem(503);
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    assert!(answer.body.contains("/readyz"), "{answer:?}");
    for secret in ["sql", "postgres", "tcp"] {
        assert!(!answer.body.to_lowercase().contains(secret), "{answer:?}");
    }
}

/// Changes until the time is over, and some were refused; which were acknowledged, and how many were refused.
async fn change(
    control: &Running,
    name: &str,
    time: Duration,
    taken: Arc<AtomicU64>,
) -> (Vec<String>, u32) {
    let begun = Instant::now();
    let (mut acknowledged, mut refused) = (Vec::new(), 0);
    let mut index = 0;
    while begun.elapsed() < time || (refused < REFUSED && begun.elapsed() < time + PATIENCE) {
        index += 1;
        let endpoint = format!("/{name}/{index}");
        let asked = Instant::now();
        let put = control
            .put(
                &format!("/api/policies/svc{endpoint}"),
                r#"{"ttl_seconds":9}"#,
            )
            .await;
        assert!(asked.elapsed() < REFUSED_IN, "{:?}", asked.elapsed());
        match put.status {
            200 => {
                acknowledged.push(endpoint);
                taken.fetch_add(1, Ordering::Relaxed);
            }
            503 if put.body.contains("many changes wait for each other") => {
                assert!(put.header("retry-after").is_some(), "{put:?}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            _ => {
                is_refused(&put);
                refused += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    (acknowledged, refused)
}

async fn is_ready(control: &Running) -> bool {
    control.get("/readyz").await.status == 200
}

/// Two replicas, while PostgreSQL is taken away and brought back in a way.
async fn survive(
    mut server: PostgresServer,
    take: impl FnOnce(&mut PostgresServer),
    bring: impl FnOnce(&mut PostgresServer),
) {
    let url = server.database();
    let shared = SharedAlone::new(url);
    let replicas = [shared.start().await, shared.start().await].map(Arc::new);
    let first = replicas[0].put("/api/policies/svc/first", "{}").await;
    assert_eq!(first.status, 200, "{first:?}");
    until("both have it", async || {
        let read = replicas[1].get("/api/config/svc").await;
        read.body.contains("/first")
    })
    .await;
    let readers = Readers::start(&replicas);
    let time = away();
    let taken = Arc::new(AtomicU64::new(0));
    let changing = [0, 1].map(|at| {
        let (control, taken) = (Arc::clone(&replicas[at]), Arc::clone(&taken));
        let time = time + Duration::from_secs(2);
        tokio::spawn(async move { change(&control, &format!("r{at}"), time, taken).await })
    });
    until("changes are taken", async || {
        taken.load(Ordering::Relaxed) > 10
    })
    .await;
    take(&mut server);
    until("it says that it is not ready", async || {
        !is_ready(&replicas[0]).await && !is_ready(&replicas[1]).await
    })
    .await;
    tokio::time::sleep(time).await;
    let mut acknowledged = vec!["/first".to_owned()];
    let mut refused = 0;
    for done in changing {
        let (taken, not) = done.await.unwrap();
        acknowledged.extend(taken);
        refused += not;
    }
    assert!(refused >= 2 * REFUSED, "{refused}");
    is_refused(&replicas[0].get("/api/revisions/svc").await);
    is_refused(&replicas[1].delete("/api/policies/svc/first").await);
    bring(&mut server);
    let back = Instant::now();
    for control in &replicas {
        until("it is ready again", async || is_ready(control).await).await;
        let last = format!("/api/policies/svc/last{}", control.port);
        until("it takes changes again", async || {
            control.put(&last, "{}").await.status == 200
        })
        .await;
    }
    let back = back.elapsed();
    for control in &replicas {
        until("all that was acknowledged is in force", async || {
            let read = control.get("/api/config/svc").await.json();
            let all: Vec<&str> = read["policies"]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| one["endpoint"].as_str().unwrap())
                .collect();
            acknowledged
                .iter()
                .all(|endpoint| all.contains(&endpoint.as_str()))
        })
        .await;
    }
    until("one leads again", async || {
        let leads = [&replicas[0], &replicas[1]].map(|one| one.metric("larder_control_leader "));
        let [one, other] = leads;
        one.await + other.await == 1
    })
    .await;
    let read = readers.end().await;
    let missing = server.sql(
        &shared.url,
        "SELECT count(*) FROM revisions r WHERE NOT EXISTS (SELECT 1 FROM audit a WHERE a.after_text LIKE '%' || r.sha256 || '%')",
    );
    assert_eq!(missing, "0", "each change has its entry");
    let entries = shared.verified().await;
    assert!(entries as usize > acknowledged.len());
    println!(
        "{read} reads, none failed; {} changes acknowledged, all there; {refused} refused; back {back:?} after it was; {entries} entries verified",
        acknowledged.len()
    );
}

/// The same, with a server that the test has for itself.
struct SharedAlone {
    url: String,
    folder: tempfile::TempDir,
}

impl SharedAlone {
    fn new(url: String) -> Self {
        Self {
            url,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    async fn start(&self) -> Running {
        Running::start_as(settings(self.folder.path(), &self.url)).await
    }

    async fn verified(&self) -> u64 {
        verified(self.folder.path(), &self.url).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgresql_that_is_killed_and_comes_back() {
    survive(
        // What it says to have taken must be there after this.
        PostgresServer::start_with(&["synchronous_commit=on"]),
        PostgresServer::kill,
        PostgresServer::restart,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgresql_that_hangs_and_goes_on() {
    survive(
        PostgresServer::start(),
        |server| server.pause(),
        |server| server.resume(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgresql_that_is_ended_and_started() {
    survive(
        PostgresServer::start(),
        PostgresServer::stop,
        PostgresServer::restart,
    )
    .await;
}

#[tokio::test]
async fn a_start_waits_for_a_postgresql_that_is_away() {
    let mut server = PostgresServer::start();
    let shared = SharedAlone::new(server.database());
    server.kill();
    let there = settings(shared.folder.path(), &shared.url);
    let error = ControlPlane::open(there.clone()).await.unwrap_err();
    assert!(
        error.is_temporary() && error.to_string().contains("DATABASE_URL"),
        "{error}"
    );

    let port = free_port();
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let opening = tokio::spawn(async move {
        let never = std::future::pending();
        let control = ControlPlane::open_when_there(there, &listener, never).await;
        (listener, control.unwrap().unwrap())
    });
    let running = tokio::spawn(async move {
        let (listener, control) = opening.await.unwrap();
        let stopped = async {
            let _ = stopped.await;
        };
        control.run(listener, stopped).await.unwrap();
    });
    let control = Running::at(port);
    assert_eq!(control.get("/healthz").await.status, 200);
    for path in ["/readyz", "/api/config/svc"] {
        let answer = control.get(path).await;
        answer.is_problem(503);
        assert!(answer.header("retry-after").is_some());
    }
    let put = control
        .put("/api/policies/svc/a", &json!({}).to_string())
        .await;
    put.is_problem(503);
    server.restart();
    until("it is ready", async || is_ready(&control).await).await;
    let put = control.put("/api/policies/svc/a", "{}").await;
    assert_eq!(put.status, 200, "{put:?}");
    drop(stop);
    running.await.unwrap();

    // Who is told to end while it waits ends.
    server.kill();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let there = settings(shared.folder.path(), &shared.url);
    let ended = ControlPlane::open_when_there(there, &listener, std::future::ready(())).await;
    assert!(ended.unwrap().is_none());
}
