//! The same over TLS: nobody can keep a connection by being slow with its handshake, and answers come as over plain HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Extension, Router};
use larder_http::rustls::pki_types::pem::PemObject as _;
use larder_http::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use larder_http::rustls::{ClientConfig, RootCertStore, ServerConfig, crypto::ring};
use larder_http::{Endless, Limits, OverTls, serve_tls};
use larder_testing::certificates::Authority;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::client::{closes_within, connect};
use crate::{PATIENCE, Server};

const SHORT: Duration = Duration::from_millis(500);

async fn marked(mark: Option<Extension<OverTls>>) -> &'static str {
    if mark.is_some() { "sealed" } else { "in clear" }
}

/// A number a moment, without an end.
async fn numbers() -> Response {
    let pieces = futures_util::stream::unfold(0_u32, |number| async move {
        tokio::time::sleep(Duration::from_millis(5)).await;
        Some((Ok::<_, std::io::Error>(format!("{number}\n")), number + 1))
    });
    (Extension(Endless), Body::from_stream(pieces)).into_response()
}

fn router() -> Router {
    Router::new()
        .route("/", get(marked))
        .route("/numbers", get(numbers))
        .route("/large", get(|| async { vec![b'x'; 8 << 20] }))
}

async fn start(authority: &Authority, limits: Limits) -> SocketAddr {
    let signed = authority.sign("server", "DNS:localhost");
    let chain = CertificateDer::pem_file_iter(&signed.certificate).unwrap();
    let chain = chain.collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(&signed.key).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = std::future::pending();
    tokio::spawn(serve_tls(
        listener,
        router(),
        limits,
        Arc::new(config),
        shutdown,
    ));
    address
}

async fn open(authority: &Authority, address: SocketAddr) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_file(authority.certificate()).unwrap();
    roots.add(certificate).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    connector
        .connect(name, connect(address).await)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_request_over_tls_is_marked_and_one_in_clear_is_not() {
    let authority = Authority::new();
    let address = start(&authority, Limits::default()).await;
    let mut stream = open(&authority, address).await;
    let ask = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(ask).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("sealed"),
        "{answer}"
    );
    let plain = Server::start(router(), Limits::default()).await;
    let answer = crate::client::get(plain.address, "/", &[]).await;
    assert_eq!(answer.body, "in clear");
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_not_waited_for() {
    let limits = Limits {
        head_timeout: SHORT,
        ..Limits::default()
    };
    let authority = Authority::new();
    let address = start(&authority, limits).await;
    for begin in [
        &b""[..],
        b"\x16",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/1.1\r\n",
    ] {
        let mut stream = connect(address).await;
        stream.write_all(begin).await.unwrap();
        assert!(closes_within(&mut stream, PATIENCE).await, "{begin:?}");
    }
    // Nor a head behind it.
    let mut stream = open(&authority, address).await;
    stream
        .write_all(b"GET / HTTP/1.1\r\nX-Slow: ")
        .await
        .unwrap();
    let mut rest = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    assert!(read.is_ok(), "it is closed");
}

#[tokio::test]
async fn an_endless_answer_comes_as_it_is_made() {
    let authority = Authority::new();
    let address = start(&authority, Limits::default()).await;
    let mut stream = BufReader::new(open(&authority, address).await);
    stream
        .write_all(b"GET /numbers HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    let mut line = String::new();
    let hundredth = async {
        while line.trim() != "100" {
            line.clear();
            assert!(stream.read_line(&mut line).await.unwrap() > 0, "it ended");
        }
    };
    tokio::time::timeout(PATIENCE, hundredth).await.unwrap();
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_left() {
    let limits = Limits {
        write_timeout: SHORT,
        ..Limits::default()
    };
    let authority = Authority::new();
    let address = start(&authority, limits).await;
    let mut stream = open(&authority, address).await;
    stream
        .write_all(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    // Longer than it may take nothing; the end is then seen where the answer breaks off.
    tokio::time::sleep(SHORT * 4).await;
    let mut taken = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut taken)).await;
    let broke_off = read.unwrap().is_err() || taken.len() < 8 << 20;
    assert!(broke_off, "{} bytes", taken.len());
}
