//! A client that sends what it is told, byte for byte.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::PATIENCE;

/// An answer over HTTP/1.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        Self {
            status: status.unwrap_or(0),
            head: head.to_ascii_lowercase(),
            body: body.to_owned(),
        }
    }

    pub(crate) fn is_problem(&self) -> bool {
        self.head.contains("content-type: application/problem+json")
            && self.body.contains("\"detail\"")
    }
}

pub(crate) async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

/// Sends bytes and reads until the server closes.
pub(crate) async fn send(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Answer {
    let mut stream = connect(address).await;
    // The server may have answered and closed before all was sent.
    let _ = stream.write_all(bytes.as_ref()).await;
    Answer::parse(&read_to_end(&mut stream).await)
}

/// One GET on a connection of its own, with these lines in its head.
pub(crate) async fn get(address: SocketAddr, target: &str, headers: &[&str]) -> Answer {
    request(address, "GET", target, headers, "").await
}

pub(crate) async fn request(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[&str],
    body: &str,
) -> Answer {
    let mut head =
        format!("{method} {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for header in headers {
        head += &format!("{header}\r\n");
    }
    if !body.is_empty() {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    send(address, format!("{head}\r\n{body}")).await
}

/// All that comes until the server closes, which it must.
pub(crate) async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    // A connection that is reset has said what it had to say.
    let _ = read.expect("the server did not close");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads the head and the body (with a length) of one answer on a connection that stays.
pub(crate) async fn read_one(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    timeout(PATIENCE, async {
        loop {
            let byte = stream.read_u8().await.expect("the server closed");
            bytes.push(byte);
            if bytes.ends_with(b"\r\n\r\n") {
                break;
            }
        }
        let head = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).unwrap();
        let length = length.split("\r\n").next().unwrap().parse().unwrap();
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        bytes.extend(body);
    })
    .await
    .expect("no answer");
    Answer::parse(&String::from_utf8_lossy(&bytes))
}

/// Whether the server closes within this time.
pub(crate) async fn closes_within(stream: &mut TcpStream, time: std::time::Duration) -> bool {
    let mut sink = Vec::new();
    timeout(time, stream.read_to_end(&mut sink)).await.is_ok()
}
