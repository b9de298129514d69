//! What may stand between a client and its control plane: it answers for the stream, and passes on all else.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How a stream is answered.
#[derive(Clone)]
pub(crate) enum Answer {
    /// As the control plane does.
    Pass,
    /// With these bytes, and then the end.
    Bytes(Vec<u8>),
    /// With these bytes, and then nothing more.
    Silence(Vec<u8>),
    /// With the first bytes, and then the others again and again.
    Endless(Vec<u8>, Vec<u8>),
}

/// Ends with the test.
pub(crate) struct Relay {
    pub(crate) port: u16,
    state: Arc<State>,
    task: JoinHandle<()>,
}

struct State {
    control: u16,
    answer: Mutex<Answer>,
    /// Streams that were asked for, and the last request for one.
    asked: AtomicUsize,
    last: Mutex<String>,
    /// Nothing more is passed on of so many streams, the first.
    silenced: AtomicUsize,
    /// Whether nothing at all is passed on.
    is_cut: watch::Sender<bool>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Relay {
    pub(crate) async fn start(control: u16, answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            control,
            answer: Mutex::new(answer),
            asked: AtomicUsize::new(0),
            last: Mutex::default(),
            silenced: AtomicUsize::new(0),
            is_cut: watch::Sender::new(false),
        });
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    let mut is_cut = shared.is_cut.subscribe();
                    tokio::select! {
                        biased;
                        _ = is_cut.wait_for(|is_cut| *is_cut) => {}
                        // However it ends.
                        _ = relay(stream, Arc::clone(&shared)) => {}
                    }
                });
            }
        });
        Self { port, state, task }
    }

    pub(crate) fn set(&self, answer: Answer) {
        *self.state.answer.lock().unwrap() = answer;
    }

    /// From now on nothing more comes of streams that were asked for until now, and nobody is told.
    pub(crate) fn silence(&self) {
        self.state.silenced.store(self.asked(), Ordering::SeqCst);
    }

    /// Cuts all connections, and takes no others, until it is told otherwise.
    pub(crate) fn cut(&self, is_cut: bool) {
        self.state.is_cut.send_replace(is_cut);
    }

    /// How many streams were asked for.
    pub(crate) fn asked(&self) -> usize {
        self.state.asked.load(Ordering::SeqCst)
    }

    /// The last request for a stream.
    pub(crate) fn last(&self) -> String {
        self.state.last.lock().unwrap().to_lowercase()
    }
}

/// A stream's head, and what comes behind it.
pub(crate) fn stream_of(events: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n{events}"
    )
    .into_bytes()
}

/// What a stream begins with.
pub(crate) const BEGIN: &str = "event: begin\ndata: {\"heartbeat_seconds\":10}\n\n";

async fn relay(mut stream: TcpStream, state: Arc<State>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let is_stream = head.starts_with(b"GET /api/stream/");
    let mut answer = Answer::Pass;
    let mut number = 0;
    if is_stream {
        number = state.asked.fetch_add(1, Ordering::SeqCst) + 1;
        *state.last.lock().unwrap() = String::from_utf8_lossy(&head).into_owned();
        answer = state.answer.lock().unwrap().clone();
    }
    match answer {
        Answer::Pass => {
            let mut control = TcpStream::connect(("127.0.0.1", state.control)).await?;
            control.write_all(&head).await?;
            if is_stream {
                return pass_on(&mut control, &mut stream, || {
                    state.silenced.load(Ordering::SeqCst) >= number
                })
                .await;
            }
            tokio::io::copy_bidirectional(&mut stream, &mut control).await?;
        }
        Answer::Bytes(bytes) => stream.write_all(&bytes).await?,
        Answer::Silence(bytes) => {
            stream.write_all(&bytes).await?;
            std::future::pending::<()>().await;
        }
        Answer::Endless(first, again) => {
            stream.write_all(&first).await?;
            loop {
                stream.write_all(&again).await?;
            }
        }
    }
    Ok(())
}

async fn pass_on(
    from: &mut TcpStream,
    to: &mut TcpStream,
    is_silent: impl Fn() -> bool,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        if is_silent() {
            std::future::pending::<()>().await;
        }
        to.write_all(&buffer[..read]).await?;
    }
}
