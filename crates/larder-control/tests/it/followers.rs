//! Clients that follow a stream, over sockets of their own.

use std::time::Duration;

use larder_testing::process::PATIENCE;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// One event of a stream; a comment has no name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) retry: Option<u64>,
    pub(crate) data: String,
    /// As it came.
    pub(crate) text: String,
}

/// A client with a stream.
pub(crate) struct Follower {
    stream: BufReader<TcpStream>,
    pub(crate) status: u16,
    pub(crate) head: String,
    /// What arrived of the next event.
    text: String,
}

impl Follower {
    /// Asks for the stream of `svc`, with these headers besides.
    pub(crate) async fn open(port: u16, headers: &str) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        Self::open_over(stream, port, "svc", headers).await
    }

    pub(crate) async fn open_over(
        stream: TcpStream,
        port: u16,
        service: &str,
        headers: &str,
    ) -> Self {
        Self::ask(stream, port, &format!("/api/stream/{service}"), headers).await
    }

    /// Follows something else than policies.
    pub(crate) async fn open_at(port: u16, path: &str, headers: &str) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        Self::ask(stream, port, path, headers).await
    }

    async fn ask(stream: TcpStream, port: u16, path: &str, headers: &str) -> Self {
        let mut stream = BufReader::new(stream);
        let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read = within(stream.read_line(&mut head)).await.unwrap();
            assert!(read > 0, "it ended in its head: {head}");
        }
        Self {
            stream,
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head,
            text: String::new(),
        }
    }

    /// The next event or comment; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.text = rest;
                return Some(read(event));
            }
            let chunk = within(self.chunk()).await?;
            self.text.push_str(&chunk);
        }
    }

    /// The next event that is no heartbeat.
    pub(crate) async fn event(&mut self) -> Option<Event> {
        loop {
            let event = self.next().await?;
            if !event.name.is_empty() {
                return Some(event);
            }
        }
    }

    /// The next event of this name; others are passed over.
    pub(crate) async fn event_of(&mut self, name: &str) -> Event {
        loop {
            let event = self.event().await.expect("it goes on");
            if event.name == name {
                return event;
            }
        }
    }

    /// A chunk of the body (RFC 9112 section 7.1).
    async fn chunk(&mut self) -> Option<String> {
        let mut length = String::new();
        if self.stream.read_line(&mut length).await.ok()? == 0 {
            return None;
        }
        let length = usize::from_str_radix(length.trim(), 16).unwrap();
        let mut chunk = vec![0; length + 2];
        self.stream.read_exact(&mut chunk).await.ok()?;
        chunk.truncate(length);
        (length > 0).then(|| String::from_utf8(chunk).unwrap())
    }
}

fn read(text: String) -> Event {
    let mut event = Event::default();
    for line in text.lines() {
        match line.split_once(": ") {
            Some(("event", name)) => event.name = name.to_owned(),
            Some(("id", id)) => event.id = id.to_owned(),
            Some(("retry", retry)) => event.retry = Some(retry.parse().unwrap()),
            Some(("data", data)) => event.data.push_str(data),
            _ => assert_eq!(line, ":", "{text:?}"),
        }
    }
    event.text = text;
    event
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(PATIENCE, what).await;
    done.expect("it comes in time")
}

/// Lets this process have so many files open: many systems allow 1,024 unless asked.
pub(crate) fn allow_open_files(count: u64) {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.map_or(count, |most| most.min(count));
    if limit.current.is_some_and(|current| current < most) {
        let more = Rlimit {
            current: Some(most),
            ..limit
        };
        setrlimit(Resource::Nofile, more).unwrap();
    }
}

/// What all but one in a hundred stay below.
pub(crate) fn p99(mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    took[took.len() * 99 / 100]
}
