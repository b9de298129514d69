//! HTTP/2 has the same bounds.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use larder_http::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use crate::client::{closes_within, connect};
use crate::{PATIENCE, Server};

const SHORT: Duration = Duration::from_millis(300);
/// Less than the window of a whole connection, which stays at what it is without being told.
const LARGE: usize = 60_000;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
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
    open_with(server, &[]).await
}

async fn open_with(server: &Server, settings: &[u8]) -> TcpStream {
    let mut stream = connect(server.address).await;
    stream.write_all(PREFACE).await.unwrap();
    let settings = frame(SETTINGS, 0, 0, settings);
    stream.write_all(&settings).await.unwrap();
    stream
}

/// A connection whose client has asked for `/`, and has no room for any of the answer.
async fn ask_without_room(server: &Server) -> TcpStream {
    let no_window = [0, 4, 0, 0, 0, 0];
    let mut stream = open_with(server, &no_window).await;
    let block = get_root(&[(":authority", "a")]);
    let request = frame(HEADERS, END_STREAM | END_HEADERS, 1, &block);
    stream.write_all(&request).await.unwrap();
    stream
}

/// Gives the answer room for so many bytes every 20 ms, until nobody is there to take note.
async fn give_room(mut write: OwnedWriteHalf, bytes: u32) {
    let room = frame(WINDOW_UPDATE, 0, 1, &bytes.to_be_bytes());
    while write.write_all(&room).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The bytes of the answer that come until it or the connection ends.
async fn answered(mut read: OwnedReadHalf) -> usize {
    let mut bytes = 0;
    let take = async {
        loop {
            let mut head = [0; 9];
            if read.read_exact(&mut head).await.is_err() {
                return;
            }
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            read.read_exact(&mut payload).await.unwrap();
            if head[3] == DATA {
                bytes += length;
                if head[4] & END_STREAM != 0 {
                    return;
                }
            }
        }
    };
    timeout(PATIENCE, take).await.expect("still open");
    bytes
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
        head_timeout: SHORT,
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

#[tokio::test]
async fn a_client_without_room_for_its_answer_is_dropped() {
    let limits = Limits {
        write_timeout: SHORT,
        ..Limits::default()
    };
    let server = start(limits).await;
    let mut stream = ask_without_room(&server).await;
    assert!(closes_within(&mut stream, PATIENCE).await);
}

#[tokio::test]
async fn a_client_that_gives_room_byte_by_byte_is_dropped() {
    let limits = Limits {
        write_timeout: SHORT,
        ..Limits::default()
    };
    let server = Server::start(large(), limits).await;
    let (read, write) = ask_without_room(&server).await.into_split();
    let room = tokio::spawn(give_room(write, 1));
    assert!(answered(read).await < LARGE);
    room.abort();
}

#[tokio::test]
async fn a_client_that_gives_room_steadily_is_waited_for() {
    let limits = Limits {
        write_timeout: SHORT * 3,
        idle_timeout: SHORT,
        ..Limits::default()
    };
    let server = Server::start(large(), limits).await;
    let mut taken = Vec::new();
    // On a machine that stands still for a moment it gives none then, and is rightly dropped.
    while taken.last() != Some(&LARGE) {
        assert!(taken.len() < 5, "{taken:?}");
        let (read, write) = ask_without_room(&server).await.into_split();
        let room = tokio::spawn(give_room(write, 1_500));
        taken.push(answered(read).await);
        room.abort();
    }
}

fn large() -> Router {
    Router::new().route("/", get(|| async { vec![b'x'; LARGE] }))
}
