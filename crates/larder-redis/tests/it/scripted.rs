//! A server that a script speaks for.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

/// What it tells of its life.
pub(crate) const INFO: &[u8] = b"run_id:0123\r\nrole:master\r\nmaster_replid:4567\r\n";

/// Listens, greets each client as Redis does, and lets `answer` write what comes back for each command.
pub(crate) fn server(
    answer: impl Fn(&[Vec<u8>], &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
) -> String {
    server_of_version("7.0.15", answer)
}

/// The same for a server that says it is of this version.
pub(crate) fn server_of_version(
    version: &'static str,
    answer: impl Fn(&[Vec<u8>], &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
) -> String {
    let hello = format!("%2\r\n+server\r\n+redis\r\n+version\r\n+{version}\r\n");
    scripted(move |command, stream| match &command[0][..] {
        b"HELLO" => stream.write_all(hello.as_bytes()),
        b"SELECT" => stream.write_all(b"+OK\r\n"),
        b"INFO" => stream.write_all(&bulk(INFO)),
        // It has every note that is asked for.
        b"EVALSHA" if command[2] == b"0" => stream.write_all(b"+noted\r\n"),
        b"PING" => stream.write_all(&bulk(&command[1])),
        b"CLIENT" => stream.write_all(b"-ERR unknown subcommand\r\n"),
        b"ROLE" => stream.write_all(b"*1\r\n+master\r\n"),
        _ => answer(command, stream),
    })
}

/// The same for the only node of a Cluster, with these slots on their way; its host.
pub(crate) fn only_node(
    moving: &'static str,
    answer: impl Fn(&[Vec<u8>], &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
) -> String {
    let url = scripted(
        move |command, stream| match &command[0].to_ascii_uppercase()[..] {
            b"HELLO" => stream.write_all(b"%2\r\n+mode\r\n+cluster\r\n+role\r\n+master\r\n"),
            b"INFO" => stream.write_all(&bulk(INFO)),
            b"PING" => stream.write_all(&bulk(command.get(1).map_or(b"PONG", |nonce| nonce))),
            b"CLIENT" => stream.write_all(b"-ERR unknown subcommand\r\n"),
            b"ROLE" => stream.write_all(b"*1\r\n+master\r\n"),
            b"CLUSTER" if command[1] == b"NODES" => {
                let me = stream.local_addr()?;
                let line = format!("me {me}@1 myself,master - 0 0 1 connected 0-16383 {moving}");
                let line = line.trim_end();
                stream.write_all(&bulk(line.as_bytes()))
            }
            b"CLUSTER" => stream.write_all(b"*0\r\n"),
            b"SELECT" => stream.write_all(b"+OK\r\n"),
            _ => answer(command, stream),
        },
    );
    url.trim_start_matches("redis://").to_owned()
}

/// Listens, and lets `answer` write what comes back for each command, the greeting included.
pub(crate) fn scripted(
    answer: impl Fn(&[Vec<u8>], &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
) -> String {
    let answer = std::sync::Arc::new(answer);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, answer) = (stream.unwrap(), answer.clone());
            // Its client ends the talk: by closing.
            std::thread::spawn(move || talk(stream, &*answer));
        }
    });
    url
}

fn talk(
    mut stream: TcpStream,
    answer: &impl Fn(&[Vec<u8>], &mut TcpStream) -> std::io::Result<()>,
) -> std::io::Result<()> {
    // Each reply is a write of its own: they don't wait for each other.
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    let mut chunk = [0; 4_096];
    loop {
        while let Some((command, length)) = parse(&buffer) {
            buffer.drain(..length);
            answer(&command, &mut stream)?;
        }
        match stream.read(&mut chunk)? {
            0 => return Ok(()),
            count => buffer.extend_from_slice(&chunk[..count]),
        }
    }
}

/// A whole command at the beginning, and how long it is.
fn parse(buffer: &[u8]) -> Option<(Vec<Vec<u8>>, usize)> {
    let (count, mut at) = number(buffer, 0, b'*')?;
    let mut arguments = Vec::new();
    for _ in 0..count {
        let (length, begin) = number(buffer, at, b'$')?;
        at = begin + length + 2;
        let argument = buffer.get(begin..at)?;
        arguments.push(argument[..length].to_vec());
    }
    Some((arguments, at))
}

/// The number of a line, and where the next begins.
fn number(buffer: &[u8], at: usize, kind: u8) -> Option<(usize, usize)> {
    let rest = buffer.get(at..)?;
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    assert_eq!(rest[0], kind);
    let digits = std::str::from_utf8(&rest[1..end - 1]).unwrap();
    Some((digits.parse().unwrap(), at + end + 1))
}

/// A bulk string.
pub(crate) fn bulk(text: &[u8]) -> Vec<u8> {
    let mut out = format!("${}\r\n", text.len()).into_bytes();
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
    out
}
