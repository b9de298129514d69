//! HTTP/2 has the same bounds.

use axum::Router;
use axum::routing::get;
use larder_http::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::{closes_within, connect};
use crate::{PATIENCE, Server};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// `GET / http` from HPACK's static table, and literal fields.
fn get_root(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x84];
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// The payload of the next frame of a kind.
async fn next(stream: &mut TcpStream, kind: u8) -> Vec<u8> {
    let read = async {
        loop {
            let mut head = [0; 9];
            stream
                .read_exact(&mut head)
                .await
                .expect("the server closed");
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            stream.read_exact(&mut payload).await.unwrap();
            if head[3] == kind {
                return payload;
            }
        }
    };
    timeout(PATIENCE, read).await.expect("no such frame")
}

async fn open(server: &Server) -> TcpStream {
    let mut stream = connect(server.address).await;
    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    stream
}

/// The first byte of the answer's header block: the status, from HPACK's static table.
async fn status(server: &Server, fields: &[(&str, &str)]) -> u16 {
    let mut stream = open(server).await;
    let block = get_root(fields);
    stream
        .write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &block))
        .await
        .unwrap();
    let block = next(&mut stream, HEADERS).await;
    match block[0] {
        0x88 => 200,
        0x8c => 400,
        other => panic!("a status that was not expected: {other:x}"),
    }
}

async fn start(limits: Limits) -> Server {
    Server::start(Router::new().route("/", get(|| async { "hello" })), limits).await
}

#[tokio::test]
async fn streams_and_heads_are_bounded() {
    let server = start(Limits::default()).await;
    let mut stream = open(&server).await;
    let settings = next(&mut stream, SETTINGS).await;
    let setting = |id: u8| {
        let mut settings = settings.chunks(6);
        let setting = settings
            .find(|setting| setting[..2] == [0, id])
            .expect("not set");
        u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]])
    };
    assert_eq!(setting(3), 100, "streams");
    assert_eq!(setting(6), 16 << 10, "bytes of a head");
}

#[tokio::test]
async fn a_request_names_one_host() {
    let server = start(Limits::default()).await;
    assert_eq!(status(&server, &[(":authority", "a")]).await, 200);
    assert_eq!(
        status(&server, &[(":authority", "a"), ("host", "a")]).await,
        200
    );
    assert_eq!(status(&server, &[("host", "a")]).await, 200);
    assert_eq!(
        status(&server, &[(":authority", "a"), ("host", "b")]).await,
        400
    );
    assert_eq!(status(&server, &[]).await, 400);
}

#[tokio::test]
async fn a_head_that_goes_on_and_on_is_not_waited_for() {
    let limits = Limits {
        head_timeout: std::time::Duration::from_millis(300),
        ..Limits::default()
    };
    let server = start(limits).await;
    let mut stream = open(&server).await;
    let block = get_root(&[(":authority", "a")]);
    stream
        .write_all(&frame(HEADERS, END_STREAM, 1, &block))
        .await
        .unwrap();
    assert!(closes_within(&mut stream, PATIENCE).await);
}
