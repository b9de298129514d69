//! Runs the binary, and asks it over HTTP.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// A command in a folder of its own, with none of the machine's settings.
pub(crate) fn larder(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    command.current_dir(folder);
    for name in [
        "REDIS_URL",
        "REDIS_TLS_CA",
        "REDIS_TLS_CERT",
        "REDIS_TLS_KEY",
        "CONTROL_PLANE_URL",
        "LARDER_CONTROL_KEY",
        "LARDER_CONTROL_KEY_FILE",
        "CONTROL_ADDRESS",
        "CONTROL_METRICS_ADDRESS",
        "CONTROL_TLS_CA",
        "CONTROL_TLS_CERT",
        "CONTROL_TLS_KEY",
        "LARDER_TRUSTED_PROXIES",
        "DATABASE_URL",
        "LARDER_AUDIT_KEY",
        "LARDER_DIR",
        "LARDER_MAX_BYTES",
        "LARDER_JOURNAL",
        "LARDER_KEY_SECRET",
        "LARDER_SEAL_KEYS",
        "LARDER_SEAL_KEYS_FILE",
        "LARDER_ENV_FILE",
        "PORT",
        "CONTROL_PORT",
        "PRODUCTS_DB",
        "SLOW_QUERY_MS",
        "RUST_LOG",
    ] {
        command.env_remove(name);
    }
    command
}

/// What a command answered.
pub(crate) struct Answer {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("no signal ended it"),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

pub(crate) fn run(folder: &Path, args: &[&str]) -> Answer {
    let mut command = larder(folder);
    command
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap()
        .into()
}

/// `larder up`, in a folder of its own, until it is dropped.
pub(crate) struct Up {
    child: Child,
    /// Where the product service listens.
    pub(crate) port: u16,
    pub(crate) control_port: u16,
}

impl Up {
    pub(crate) fn start(folder: &TempDir, set: impl FnOnce(&mut Command)) -> Self {
        let mut command = larder(folder.path());
        command
            .args(["up", "--port", "0", "--control-port", "0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        set(&mut command);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut ports = Vec::new();
        while ports.len() < 2 {
            let line = lines.next().expect("it says where it listens").unwrap();
            if let Some((_, port)) = line.rsplit_once("http://127.0.0.1:") {
                ports.push(port.trim().parse().unwrap());
            }
        }
        // What else it prints is read away.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            child,
            port: ports[0],
            control_port: ports[1],
        }
    }

    pub(crate) fn get(&self, path: &str) -> (Value, Duration) {
        let begin = Instant::now();
        let (status, body) = request(self.port, "GET", path, None);
        assert_eq!(status, 200, "{body}");
        (serde_json::from_str(&body).unwrap(), begin.elapsed())
    }

    pub(crate) fn put(&self, path: &str, body: &str) -> Value {
        let (status, body) = request(self.port, "PUT", path, Some(body));
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    pub(crate) fn is_cached(&self, path: &str) -> bool {
        self.get(path).0["cached"].as_bool().unwrap()
    }

    /// How often its store could not be asked.
    pub(crate) fn store_errors(&self) -> u64 {
        let (status, metrics) = request(self.port, "GET", "/metrics", None);
        assert_eq!(status, 200, "{metrics}");
        let counts = metrics.lines().filter_map(|line| {
            let rest = line.strip_prefix("larder_store_errors_total")?;
            rest.rsplit_once(' ')?.1.parse::<u64>().ok()
        });
        counts.sum()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it logs, to be read when it has ended; `set` must have made it a pipe.
    pub(crate) fn take_log(&mut self) -> std::process::ChildStderr {
        self.child.stderr.take().expect("it is a pipe")
    }

    /// Ends it as Ctrl-C does, and answers whether it ended orderly.
    pub(crate) fn interrupt(mut self) -> bool {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-INT", &pid]).status().unwrap();
        self.child.wait().unwrap().success()
    }
}

impl Drop for Up {
    /// `kill -9`.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One request over a connection of its own: status and body.
pub(crate) fn request(port: u16, method: &str, path: &str, body: Option<&str>) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let body = body.unwrap_or_default();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

/// Waits until something is so; fails if it is not within the time.
pub(crate) fn until(what: &str, within: Duration, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    loop {
        // Looked at once more after it: who looks may have stood still himself.
        let is_over = begin.elapsed() >= within;
        if is_so() {
            return;
        }
        assert!(!is_over, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
