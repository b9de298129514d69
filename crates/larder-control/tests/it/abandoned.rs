//! A client that goes away in the middle of a change leaves no change that is stored and not in force.

use std::net::SocketAddr;
use std::path::Path;
use std::task::Poll;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::Request;
use larder_control::{ControlPlane, Settings};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use tower::ServiceExt as _;

const PORT: u16 = 8000;
/// More than a change has steps at which it can be left.
const STEPS: usize = 40;

fn request(method: &str, path: &str) -> Request<Body> {
    let builder = Request::builder().method(method).uri(path);
    builder
        .extension(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 50_000))))
        .header("host", format!("127.0.0.1:{PORT}"))
        .header("content-type", "application/json")
        .body(Body::from("{}"))
        .unwrap()
}

/// Sets a policy, and goes away when the answer has been waited for so many times; whether there was one before.
async fn put_and_leave(router: &Router, endpoint: &str, mut waits: usize) -> bool {
    let path = format!("/api/policies/svc{endpoint}");
    let mut answer = Box::pin(router.clone().oneshot(request("PUT", &path)));
    std::future::poll_fn(|context| match answer.as_mut().poll(context) {
        Poll::Ready(_) => Poll::Ready(true),
        Poll::Pending if waits == 0 => Poll::Ready(false),
        Poll::Pending => {
            waits -= 1;
            Poll::Pending
        }
    })
    .await
}

async fn in_force(router: &Router) -> Vec<String> {
    let answer = router.clone().oneshot(request("GET", "/api/config/svc"));
    let body = axum::body::to_bytes(answer.await.unwrap().into_body(), 1 << 20);
    let config: serde_json::Value = serde_json::from_slice(&body.await.unwrap()).unwrap();
    let policies = config["policies"].as_array().unwrap().iter();
    policies
        .map(|policy| policy["endpoint"].as_str().unwrap().to_owned())
        .collect()
}

async fn stored(database: &Path) -> Vec<String> {
    let options = SqliteConnectOptions::new().filename(database);
    let pool = SqlitePool::connect_with(options).await.unwrap();
    sqlx::query_scalar("SELECT template FROM policies ORDER BY template")
        .fetch_all(&pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn what_is_stored_is_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("control.db");
    let plane = ControlPlane::open(Settings::new(&database)).await.unwrap();
    let router = plane.router(PORT).unwrap();
    let mut left = 0;
    for step in 0..STEPS {
        left += usize::from(!put_and_leave(&router, &format!("/{step:02}"), step).await);
        // A change comes after those that began before it.
        assert!(put_and_leave(&router, &format!("/{step:02}/after"), usize::MAX).await);
        assert_eq!(in_force(&router).await, stored(&database).await, "{step}");
    }
    assert!(left > 0, "no change was left");
}
