//! The first talk with a server: who we are, what it is, and whether it can be used.

use std::fmt;
use std::io::{self, ErrorKind};
use std::time::Duration;

use bytes::BytesMut;
use larder_model::Secret;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use zeroize::Zeroize as _;

use crate::command;
use crate::life::Life;
use crate::node::seed;
use crate::note::Note;
use crate::resp::{Reader, Value};
use crate::stream::{self, Stream};
use crate::tls::{self, Tls};
use crate::url::RedisUrl;

/// What a server says is shown no further than that.
const SHOWN: usize = 200;
/// More than what is said to a server has: so the password has one place in memory.
const GREETING_BYTES: usize = 4_096;

/// What is asked for with `INFO`.
const SECTIONS: [&str; 4] = ["memory", "server", "replication", "persistence"];

/// What a server is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// All entries.
    Entries,
    /// The entries of its slots, in a Cluster.
    Slots,
    /// Telling who belongs to its Cluster; a replica can do that too.
    Members,
    /// Telling which server is the master.
    Masters,
}

impl Purpose {
    /// Whether entries lie there.
    pub(crate) fn has_entries(self) -> bool {
        matches!(self, Self::Entries | Self::Slots)
    }

    /// What is wrong with a server for this, by what it says of itself. A demoted master still answers reads.
    fn objection(self, about: &[Value]) -> Option<&'static str> {
        let is = |name: &str, what: &str| matches!(said(about, name), Some(Value::Text(text)) if *text == *what);
        if self.has_entries() && is("role", "replica") {
            return Some("it is a replica: name its master");
        }
        match self {
            Self::Entries if is("mode", "cluster") => {
                Some("it is a node of a Cluster: write redis+cluster:// in place of redis://")
            }
            Self::Entries if is("mode", "sentinel") => Some(
                "it is a Sentinel: write redis+sentinel://host:port,host:port/master-name in place of redis://",
            ),
            Self::Slots | Self::Members if is("mode", "standalone") => {
                Some("it is no node of a Cluster: write redis:// in place of redis+cluster://")
            }
            Self::Masters if is("mode", "standalone") || is("mode", "cluster") => {
                Some("it is no Sentinel: name the Sentinels, by their own ports (26379)")
            }
            _ => None,
        }
    }
}

/// What a server is called in the log.
impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Entries | Self::Slots => "store",
            Self::Members => "node of the Cluster",
            Self::Masters => "Sentinel",
        })
    }
}

/// How a server is greeted.
pub(crate) struct Greeting<'a> {
    pub(crate) url: &'a RedisUrl,
    pub(crate) purpose: Purpose,
    pub(crate) tls: &'a Tls,
    /// Longer strings are not kept, in bytes.
    pub(crate) max_string: usize,
    /// A server that is slower than this is of no use.
    pub(crate) deadline: Duration,
    /// The connection before, which is to be over.
    pub(crate) before: Option<Met>,
    /// The services of which it is asked whether their plain entries are all of its present life.
    pub(crate) services: Vec<Box<str>>,
}

/// A server that is there to be used.
pub(crate) struct Greeted {
    pub(crate) stream: Box<dyn Stream>,
    pub(crate) reader: Reader,
    pub(crate) met: Met,
    /// Whether it knows `PEXPIRE … LT`.
    pub(crate) knows_lt: bool,
    /// What is to be changed in its settings.
    pub(crate) advice: Option<&'static str>,
    /// The services of which it knows that there are only plain entries of this life.
    pub(crate) noted: Vec<Box<str>>,
}

/// What a connection is to its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Met {
    /// The server's process.
    pub(crate) run_id: String,
    /// The connection's number in it.
    client_id: i64,
    pub(crate) life: Life,
}

impl Greeting<'_> {
    /// Connects, says who we are, asks for what is needed, and ends the connection before: what the network still holds back
    /// of that must not be done any more. Only then is the server used.
    pub(crate) async fn greet(self) -> Result<Greeted, String> {
        let mut talk = Talk {
            stream: stream::connect(&self.url.address, self.tls)
                .await
                .map_err(|error| failed(&error))?,
            reader: Reader::new(self.max_string),
            buffer: BytesMut::with_capacity(4_096),
            end: self.end(),
        };
        talk.say(self.words()).await?;
        let about = match talk.next().await? {
            Value::Array(about) => about,
            Value::Error(error) => return Err(refusal(&error, self.url.password.as_ref())),
            _ => return Err("it does not answer as a Redis does".to_owned()),
        };
        if let Some(objection) = self.purpose.objection(&about) {
            return Err(objection.to_owned());
        }
        let mut told = [const { String::new() }; SECTIONS.len()];
        if self.purpose.has_entries() {
            match talk.next().await? {
                Value::Text(text) if text == "OK" => {}
                Value::Error(error) => {
                    let database = self.url.database;
                    return Err(format!("database {database}: {}", shown_bytes(&error)));
                }
                _ => return Err("it does not answer as a Redis does".to_owned()),
            }
            for told in &mut told {
                *told = text(&talk.next().await?);
            }
        }
        let [memory, server, replication, persistence] = told;
        let met = Met {
            run_id: field(&server, "run_id:").unwrap_or_default(),
            client_id: client_id(&about).unwrap_or_default(),
            life: Life::read(&server, &replication, &persistence),
        };
        if let Some(before) = self.before.filter(|_| self.purpose.has_entries())
            && before.run_id == met.run_id
        {
            talk.end(&before).await?;
        }
        talk.check()?;
        // A server that is loading greets, but does nothing more; and one that is too slow is of no use.
        let pong = timeout(self.deadline, talk.ping()).await;
        pong.map_err(|_late| "it does not answer within the deadline".to_owned())??;
        let noted = match met.life.is_told() {
            true => talk.noted(&met.life, self.services).await?,
            false => Vec::new(),
        };
        talk.check()?;
        Ok(Greeted {
            stream: talk.stream,
            reader: talk.reader,
            met,
            knows_lt: knows_lt(&about),
            advice: advice(&memory),
            noted,
        })
    }

    /// What it means if the server ends the connection in the greeting. One that wants to see a certificate may do it
    /// without a word, or with one that the reset overtakes.
    fn end(&self) -> &'static str {
        match (self.url.is_secured(), self.tls.presents_one()) {
            (false, _) => "the server closed the connection",
            (true, false) => {
                "the server closed the connection: if it demands a client certificate, set REDIS_TLS_CERT and REDIS_TLS_KEY"
            }
            (true, true) => {
                "the server closed the connection: see whether it takes our certificate (REDIS_TLS_CERT), and whether it is up"
            }
        }
    }

    fn words(&self) -> BytesMut {
        let mut words = BytesMut::with_capacity(GREETING_BYTES);
        let mut hello: Vec<&[u8]> = vec![b"HELLO", b"3"];
        if self.url.password.is_some() || self.url.user.is_some() {
            let user = self.url.user.as_deref().unwrap_or("default");
            // A user may need none.
            let password = self.url.password.as_ref().map_or("", Secret::expose);
            hello.extend([b"AUTH", user.as_bytes(), password.as_bytes()]);
        }
        hello.extend([&b"SETNAME"[..], b"larder"]);
        command::write(&mut words, &hello);
        if !self.purpose.has_entries() {
            return words;
        }
        let database = self.url.database.to_string();
        command::write(&mut words, &[b"SELECT", database.as_bytes()]);
        for section in SECTIONS {
            command::write(&mut words, &[b"INFO", section.as_bytes()]);
        }
        words
    }
}

/// A connection on which one thing is said after the other.
struct Talk {
    stream: Box<dyn Stream>,
    reader: Reader,
    buffer: BytesMut,
    /// What to say if it is closed.
    end: &'static str,
}

impl Talk {
    fn failed(&self, error: &io::Error) -> String {
        match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => {
                self.end.to_owned()
            }
            _ => failed(error),
        }
    }

    /// Says something that may hold the password.
    async fn say(&mut self, mut words: BytesMut) -> Result<(), String> {
        let said = self.stream.write_all(&words).await;
        words.zeroize();
        said.map_err(|error| self.failed(&error))?;
        let flushed = self.stream.flush().await;
        flushed.map_err(|error| self.failed(&error))
    }

    async fn next(&mut self) -> Result<Value, String> {
        loop {
            let read = self.reader.read(&mut self.buffer);
            match read.map_err(|error| error.to_string())? {
                Some(Value::Push(_)) => continue,
                Some(value) => return Ok(value),
                None => {}
            }
            let count = self.stream.read_buf(&mut self.buffer).await;
            if count.map_err(|error| self.failed(&error))? == 0 {
                return Err(self.end.to_owned());
            }
        }
    }

    /// Ends another connection, if there is still one.
    async fn end(&mut self, met: &Met) -> Result<(), String> {
        let mut words = BytesMut::new();
        let id = met.client_id.to_string();
        command::write(&mut words, &[b"CLIENT", b"KILL", b"ID", id.as_bytes()]);
        self.say(words).await?;
        match self.next().await? {
            Value::Error(error) => {
                let error = shown_bytes(&error);
                tracing::warn!(
                    error,
                    "the connection before could not be ended: what the network holds back of it may be done late; allow CLIENT KILL"
                );
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn check(&self) -> Result<(), String> {
        match self.buffer.is_empty() {
            true => Ok(()),
            false => Err("it says more than it was asked".to_owned()),
        }
    }

    /// Of which of these services it has a note, or has one now.
    async fn noted(
        &mut self,
        life: &Life,
        mut services: Vec<Box<str>>,
    ) -> Result<Vec<Box<str>>, String> {
        let mut words = BytesMut::new();
        for service in &services {
            let note = Note::of(life, service);
            // Where there is nothing of another life, there is nothing to be swept.
            match life.is_first {
                true => command::write(&mut words, &note.load()),
                false => command::write(&mut words, &note.question()),
            }
        }
        self.say(words).await?;
        let mut is_noted = Vec::with_capacity(services.len());
        for _ in &services {
            is_noted.push(matches!(self.next().await?, Value::Text(_)));
        }
        let mut is_noted = is_noted.into_iter();
        services.retain(|_| is_noted.next().unwrap_or(false));
        Ok(services)
    }

    async fn ping(&mut self) -> Result<(), String> {
        let nonce = seed();
        let mut words = BytesMut::new();
        command::write_nonce(&mut words, nonce);
        self.say(words).await?;
        match self.next().await? {
            Value::Text(text) if command::is_nonce(&text, nonce) => Ok(()),
            Value::Error(error) => Err(shown_bytes(&error)),
            _ => Err("it does not answer as a Redis does".to_owned()),
        }
    }
}

fn failed(error: &io::Error) -> String {
    shown(&tls::explained(error))
}

/// Why a server that takes connections says nothing.
pub(crate) fn silence(url: &RedisUrl) -> &'static str {
    match url.is_secured() {
        true => "it does not answer: check that this is its TLS port (a plain one waits for more)",
        false => "it does not answer",
    }
}

/// What a server says of itself by a name, in its answer to `HELLO`.
fn said<'a>(about: &'a [Value], name: &str) -> Option<&'a Value> {
    let mut pairs = about.chunks_exact(2);
    pairs.find_map(|pair| match pair {
        [Value::Text(said), value] if said == name => Some(value),
        _ => None,
    })
}

fn client_id(about: &[Value]) -> Option<i64> {
    match said(about, "id")? {
        Value::Integer(id) => Some(*id),
        _ => None,
    }
}

/// Whether a server, by what it says of itself, is Redis 7 or newer.
fn knows_lt(about: &[Value]) -> bool {
    let Some(Value::Text(version)) = said(about, "version") else {
        return true;
    };
    let major = std::str::from_utf8(version).map(|version| version.split('.').next());
    major.is_ok_and(|major| {
        major.is_some_and(|major| major.parse().is_ok_and(|major: u32| major >= 7))
    })
}

/// A text, if it is one.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Text(text) => String::from_utf8_lossy(text).into_owned(),
        _ => String::new(),
    }
}

/// A field of what `INFO` answers.
pub(crate) fn field(info: &str, name: &str) -> Option<String> {
    let line = info.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().to_owned())
}

/// A Redis that is never to forget anything stops storing when it is full.
fn advice(memory: &str) -> Option<&'static str> {
    if field(memory, "maxmemory:")? == "0" {
        Some(
            "maxmemory is 0: Redis takes memory without end; set maxmemory and an allkeys-lfu or allkeys-lru policy",
        )
    } else if field(memory, "maxmemory_policy:")? == "noeviction" {
        Some(
            "maxmemory-policy is noeviction: a full Redis stores nothing more; set allkeys-lfu or allkeys-lru",
        )
    } else {
        None
    }
}

/// Why the server does not want us, and what to do.
fn refusal(error: &[u8], password: Option<&Secret>) -> String {
    const TOO_OLD: &str = "it does not know RESP3: Redis 6 or newer, or Valkey, is needed";
    let text = String::from_utf8_lossy(error);
    let repeats = password.is_some_and(|password| text.contains(password.expose()));
    let text = match repeats {
        true => "it refuses HELLO, and repeats the password".to_owned(),
        false => shown(&text),
    };
    let is_unknown_command = error.starts_with(b"ERR unknown command");
    match error {
        [b'W', b'R', b'O', b'N', b'G', b'P', b'A', b'S', b'S', ..]
        | [b'N', b'O', b'A', b'U', b'T', b'H', ..] => {
            format!("{text}: check the user and the password in REDIS_URL")
        }
        [b'N', b'O', b'P', b'R', b'O', b'T', b'O', ..] => TOO_OLD.to_owned(),
        // An old Redis repeats there what it was sent, the password among it: cut short, perhaps.
        _ if is_unknown_command => TOO_OLD.to_owned(),
        _ => text,
    }
}

/// What a server says, fit to be shown.
pub(crate) fn shown_bytes(text: &[u8]) -> String {
    shown(&String::from_utf8_lossy(text))
}

fn shown(text: &str) -> String {
    let escaped = larder_model::escape(text);
    escaped.chars().take(SHOWN).collect()
}
