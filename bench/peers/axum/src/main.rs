//! axum routes without a cache: `PORT memory FILE` answers a file from memory, `PORT redis URL KEY` what one `GET` has.

use std::error::Error;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::serve::ListenerExt as _;
use redis::AsyncCommands as _;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (port, router) = match arguments[..] {
        [port, "memory", file] => (port, from_memory(std::fs::read(file)?.into())),
        [port, "redis", url, key] => (port, from_redis(url, key.to_owned()).await?),
        _ => return Err("write PORT memory FILE, or PORT redis URL KEY".into()),
    };
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port.parse()?)).await?;
    let listener = listener.tap_io(|stream| {
        // Answers are sent at once.
        let _ = stream.set_nodelay(true);
    });
    Ok(axum::serve(listener, router).await?)
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
