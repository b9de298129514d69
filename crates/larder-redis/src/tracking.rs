//! Whether a server is still a master, and tells what changes.
//!
//! One that was demoted goes on answering reads and pings, from data that its new master has long replaced. One that was
//! told to track no more, or a proxy that answers in its place, is silent about changes and answers everything else. So
//! its own word on both is asked for again and again, over the connection on which it tells; what that says is good for a
//! time from when it was asked, by this process's clock.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use larder_core::mutants::{Guard, is_off};

use crate::changes::Source;
use crate::clock;
use crate::command::{CACHING, Command, Expect};
use crate::connection::{Connection, Reply};
use crate::life::Life;
use crate::probe::text;
use crate::resp::Value;

/// So often it is asked.
const EVERY: Duration = Duration::from_millis(500);
/// So long after it was asked it is relied on.
const TRUST: Duration = Duration::from_secs(2).saturating_sub(clock::TICK);

const TRACKING: &[&[u8]] = &[b"CLIENT", b"TRACKING", b"ON"];
const TRACKING_SOME: &[&[u8]] = &[b"CLIENT", b"TRACKING", b"ON", b"OPTIN"];
const ROLE: &[&[u8]] = &[b"ROLE"];
const REPLICATION: &[&[u8]] = &[b"INFO", b"replication"];
const TRACKINGINFO: &[&[u8]] = &[b"CLIENT", b"TRACKINGINFO"];

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// To track, and what belongs to that.
    Tracking,
    Role,
    Replication,
    Info,
    Probe,
}

/// What an answer means.
enum Word {
    /// It is as it should be.
    Good,
    /// It is not: the connection ends.
    Over(&'static str),
    /// It is not told.
    Unknown(Bytes),
}

/// A key that was read of a node of a Cluster, and is asked for again with its word: one that is cut off from most others
/// says that it is a master, but serves no key.
pub(crate) struct Probed {
    is_wanted: bool,
    has_key: AtomicBool,
    key: Mutex<Option<Bytes>>,
}

impl Probed {
    pub(crate) fn new(is_wanted: bool) -> Self {
        Self {
            is_wanted,
            has_key: AtomicBool::new(false),
            key: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Bytes>> {
        self.key.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A key is about to be read.
    pub(crate) fn note(&self, key: &[u8]) {
        if self.is_wanted && !self.has_key.load(Ordering::Relaxed) {
            *self.lock() = Some(Bytes::copy_from_slice(key));
            self.has_key.store(true, Ordering::Relaxed);
        }
    }

    fn key(&self) -> Option<Bytes> {
        self.lock().clone()
    }

    fn forget(&self) {
        self.has_key.store(false, Ordering::Relaxed);
        *self.lock() = None;
    }
}

/// Watches a connection until it ends: where it tells of changes, of all that is read or of some. `say` is told, once, why reads
/// come without proofs.
pub(crate) async fn watch(
    connection: Arc<Connection>,
    (source, is_of_all): (Option<&Source>, bool),
    probed: &Probed,
    say: impl Fn(&[u8]),
) {
    let mut is_begun = false;
    let mut is_tracked = source.is_some();
    loop {
        let sent = clock::now();
        let probe = probed.key();
        let life = Some(connection.life()).filter(|life| life.is_told());
        let pttl: [&[u8]; 2] = [b"PTTL", probe.as_deref().unwrap_or_default()];
        let mut asked = Vec::with_capacity(6);
        let mut ask = |what, words, expect| asked.push((what, Command::new(words, expect)));
        match is_of_all {
            _ if is_begun || !is_tracked => {}
            true => ask(Asked::Tracking, TRACKING, Expect::Ok),
            false => ask(Asked::Tracking, TRACKING_SOME, Expect::Ok),
        }
        if is_tracked && !is_of_all {
            // Whether that may be said. What it is said of comes next, and is no read.
            ask(Asked::Tracking, CACHING, Expect::Ok);
        }
        ask(Asked::Role, ROLE, Expect::Array);
        if life.is_some() {
            ask(Asked::Replication, REPLICATION, Expect::Text);
        }
        if is_tracked {
            ask(Asked::Info, TRACKINGINFO, Expect::Array);
        }
        if probe.is_some() {
            ask(Asked::Probe, &pttl, Expect::Integer);
        }
        let (asked, commands): (Vec<Asked>, Vec<Command<'_>>) = asked.into_iter().unzip();
        // Too much may be under way: then at the next time.
        if let Ok(replies) = connection.send(&commands) {
            let Some(words) = words(&asked, replies, life, is_of_all).await else {
                return;
            };
            let mut is_good = true;
            for word in words {
                match word {
                    Word::Good => {}
                    Word::Over(why) => {
                        if let Some(source) = source {
                            source.end();
                        }
                        connection.end(why);
                        return;
                    }
                    Word::Unknown(error) if is_unserved(&error) => {
                        // It does not serve this key: perhaps no other one.
                        is_good = false;
                        if let Some(source) = source {
                            source.void();
                        }
                        probed.forget();
                    }
                    Word::Unknown(error) => {
                        is_good = false;
                        if is_tracked {
                            say(&error);
                        }
                        is_tracked = false;
                    }
                }
            }
            let until = clock::after(sent, TRUST);
            match source.filter(|_| is_good && is_tracked) {
                Some(source) if is_begun => source.trust(until),
                Some(source) => {
                    source.begin(connection.link().id, until);
                    is_begun = true;
                }
                None => {}
            }
        } else if connection.has_ended() {
            return;
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// What a Cluster's node says that does not serve a key.
fn is_unserved(error: &[u8]) -> bool {
    let words: [&[u8]; 5] = [b"MOVED", b"ASK", b"TRYAGAIN", b"CLUSTERDOWN", b"LOADING"];
    words.iter().any(|word| error.starts_with(word))
}

/// What the replies mean; `None` if the connection ended before they came.
async fn words(
    asked: &[Asked],
    replies: Vec<Option<Reply>>,
    life: Option<&Life>,
    is_of_all: bool,
) -> Option<Vec<Word>> {
    let mut words = Vec::with_capacity(asked.len());
    let mut may_track = true;
    for (asked, reply) in std::iter::zip(asked, replies.into_iter().flatten()) {
        let value = reply.await.ok()?;
        words.push(match (asked, value) {
            (Asked::Role, role) => read_role(&role),
            (Asked::Replication, told) => match life {
                Some(life) => read_replication(life, &told),
                None => Word::Good,
            },
            // Where it may not be told to track, it says that it does not.
            (Asked::Info, _) if !may_track => Word::Good,
            (Asked::Info, Value::Array(info)) => read_info(&info, is_of_all),
            (asked, Value::Error(error)) => {
                may_track &= *asked != Asked::Tracking;
                Word::Unknown(error)
            }
            _ => Word::Good,
        });
    }
    Some(words)
}

fn read_role(role: &Value) -> Word {
    match role {
        _ if is_off(Guard::RoleIsWatched) => Word::Good,
        Value::Error(error) => Word::Unknown(error.clone()),
        Value::Array(parts) if matches!(parts.first(), Some(Value::Text(role)) if role == "master") => {
            Word::Good
        }
        _ => Word::Over("it is a replica now"),
    }
}

/// One that was demoted and promoted again in between has another history; and so may one that does not tell it any more.
fn read_replication(life: &Life, replication: &Value) -> Word {
    match replication {
        Value::Text(_) if !life.is_over(&text(replication)) => Word::Good,
        Value::Text(_) => Word::Over("its replication began anew: it may have lost something"),
        _ => Word::Over("it does not tell which life it is in any more"),
    }
}

/// What `CLIENT TRACKINGINFO` says: flags, and to which connection it tells (none: this one).
fn read_info(info: &[Value], is_of_all: bool) -> Word {
    let part = |name: &str| {
        let mut pairs = info.chunks_exact(2);
        pairs.find_map(|pair| match pair {
            [Value::Text(said), value] if said == name => Some(value),
            _ => None,
        })
    };
    let has_flag = |flag: &str| match part("flags") {
        Some(Value::Array(flags)) => flags
            .iter()
            .any(|said| matches!(said, Value::Text(said) if said == flag)),
        _ => false,
    };
    let is_here = matches!(part("redirect"), Some(Value::Integer(to)) if *to <= 0);
    let is_other = ["bcast", "optout", "noloop", "broken_redirect"];
    let is_right = has_flag("on") && has_flag("optin") != is_of_all;
    match is_right && is_here && !is_other.into_iter().any(has_flag) {
        true => Word::Good,
        false => Word::Over("it does not tell what changes any more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &'static str) -> Value {
        Value::Text(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn only_a_server_that_tells_this_very_connection_is_relied_on() {
        let info = |flags: &[&'static str], redirect| {
            let flags = flags.iter().map(|flag| text(flag)).collect();
            let info = [
                text("flags"),
                Value::Array(flags),
                text("redirect"),
                Value::Integer(redirect),
                text("prefixes"),
                Value::Array(Vec::new()),
            ];
            [true, false].map(|is_of_all| matches!(read_info(&info, is_of_all), Word::Good))
        };
        let neither = [false, false];
        assert_eq!(info(&["on"], 0), [true, false]);
        assert_eq!(info(&["on", "optin", "caching-yes"], 0), [false, true]);
        assert_eq!(info(&["off"], -1), neither);
        assert_eq!(info(&["on"], 7), neither, "another connection is told");
        assert_eq!(info(&["on", "broken_redirect"], 0), neither);
        assert_eq!(info(&["on", "bcast"], 0), neither);
        assert_eq!(info(&["on", "noloop"], 0), neither);
        assert!(!matches!(read_info(&[], true), Word::Good));
    }
}
