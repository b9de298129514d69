//! axum routes without a cache: `PORT LOOP memory FILE` answers a file from memory, `PORT LOOP redis URL KEY` what one
//! `GET` has. The accept loop is `larder`'s, as the sample service has it, or `axum`'s.

use std::error::Error;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::serve::ListenerExt as _;
use larder_http::Limits;
use redis::AsyncCommands as _;
use tokio::net::TcpListener;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (port, accept_loop, router) = match arguments[..] {
        [port, accept_loop, "memory", file] => {
            (port, accept_loop, from_memory(std::fs::read(file)?.into()))
        }
        [port, accept_loop, "redis", url, key] => {
            (port, accept_loop, from_redis(url, key.to_owned()).await?)
        }
        _ => return Err("write PORT LOOP memory FILE, or PORT LOOP redis URL KEY".into()),
    };
    let listener = TcpListener::bind(("127.0.0.1", port.parse()?)).await?;
    match accept_loop {
        "larder" => {
            let never = std::future::pending();
            Ok(larder_http::serve(listener, router, Limits::default(), never).await?)
        }
        "axum" => {
            let listener = listener.tap_io(|stream| {
                // Answers are sent at once.
                let _ = stream.set_nodelay(true);
            });
            Ok(axum::serve(listener, router).await?)
        }
        other => Err(format!("{other} is no accept loop: write larder or axum").into()),
    }
}

fn from_memory(body: Bytes) -> Router {
    let route = |State(body): State<Bytes>| async move { json(body) };
    Router::new()
        .route("/products", get(route))
        .with_state(body)
}

async fn from_redis(url: &str, key: String) -> Result<Router, Box<dyn Error>> {
    let client = redis::Client::open(url)?;
    let connection = client.get_multiplexed_async_connection().await?;
    let key: &'static str = key.leak();
    let route = move || {
        let mut connection = connection.clone();
        async move {
            let value: Vec<u8> = connection.get(key).await.unwrap_or_default();
            json(value.into())
        }
    };
    Ok(Router::new().route("/products", get(route)))
}

fn json(body: Bytes) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], body)
}
