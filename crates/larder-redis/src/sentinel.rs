//! The master that Sentinels name: trusted only while most of those that the URL names agree on it.
//!
//! A master that was cut off from the Sentinels goes on answering, while another one was elected. Who asked the majority not
//! long ago knows that this has not happened; who can't ask it treats the store as away.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use larder_core::StoreError;
use larder_core::mutants::{Guard, is_off};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use crate::changes::Changes;
use crate::clock;
use crate::command::{Command, Expect};
use crate::deadline::by;
use crate::node::Node;
use crate::options::Options;
use crate::probe::Purpose;
use crate::resp::Value;
use crate::servers::Outcome;
use crate::url::RedisUrl;
use crate::url::hosts::{Host, Sentinels};

/// A master is trusted so long after the question to which most Sentinels named it was sent.
const TRUST: Duration = Duration::from_secs(2);
/// So often they are asked.
const PERIOD: Duration = Duration::from_millis(500);
/// So often while there is no master to be used.
const PAUSE: Duration = Duration::from_millis(100);

/// So long after one question the next one is asked for who needs to know, with all who came meanwhile: each costs every
/// Sentinel two commands, and who invalidates one thing after another waits that long.
const TOGETHER: Duration = Duration::from_millis(5);

/// What Sentinels watch over.
pub(crate) struct Watched {
    shared: Arc<Shared>,
    task: Option<AbortHandle>,
}

struct Shared {
    url: RedisUrl,
    /// By which name they know it.
    name: String,
    options: Options,
    changes: Arc<Changes>,
    sentinels: Vec<Node>,
    trusted: ArcSwapOption<Trusted>,
    /// Why there is none.
    why: Mutex<String>,
    wake: Notify,
    /// Whether they have been asked once.
    is_asked: watch::Sender<bool>,
    /// How often it was to be confirmed who the master is; told by `confirm`.
    asked: AtomicU64,
    confirm: Notify,
    /// Up to which number they were asked since, and whom most of them named then.
    named: watch::Sender<(u64, Option<Host>)>,
}

struct Trusted {
    host: Host,
    master: Arc<Node>,
    until: Instant,
}

impl Watched {
    /// Begins to ask the Sentinels, and returns at once.
    pub(crate) fn start(
        url: RedisUrl,
        sentinels: &Sentinels,
        options: Options,
        changes: Arc<Changes>,
    ) -> Self {
        let start = |host: &Host| {
            let url = url.of_sentinel(sentinels, host);
            Node::start(url, Purpose::Masters, options.clone(), None)
        };
        let shared = Arc::new(Shared {
            name: sentinels.master.clone(),
            sentinels: sentinels.hosts.iter().map(start).collect(),
            trusted: ArcSwapOption::empty(),
            why: Mutex::new("the Sentinels have not been reached yet".to_owned()),
            wake: Notify::new(),
            is_asked: watch::Sender::new(false),
            asked: AtomicU64::new(0),
            confirm: Notify::new(),
            named: watch::Sender::new((0, None)),
            url,
            options,
            changes,
        });
        let task = match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                let task = runtime.spawn(keep_up(Arc::clone(&shared)));
                Some(task.abort_handle())
            }
            Err(_) => {
                shared.note("there is no Tokio runtime: connect inside of one");
                // There is nothing to wait for.
                shared.is_asked.send_replace(true);
                None
            }
        };
        Self { shared, task }
    }

    pub(crate) fn url(&self) -> &RedisUrl {
        &self.shared.url
    }

    /// The master, if it is trusted at this instant.
    pub(crate) fn trusted(&self) -> Option<Arc<Node>> {
        let trusted = self.shared.trusted.load();
        let trusted = trusted.as_ref()?;
        let is_trusted = Instant::now() < trusted.until || is_off(Guard::MajorityTrusts);
        is_trusted.then(|| Arc::clone(&trusted.master))
    }

    /// The master. Only the very first answer of the Sentinels is waited for.
    pub(crate) async fn master(&self) -> Result<Arc<Node>, StoreError> {
        if let Some(master) = self.trusted() {
            return Ok(master);
        }
        let mut is_asked = self.shared.is_asked.subscribe();
        let asked = is_asked.wait_for(|is_asked| *is_asked);
        // Late or not: who is trusted now counts.
        let _ = tokio::time::timeout(self.shared.options.deadline, asked).await;
        self.trusted().ok_or_else(|| {
            self.shared.wake.notify_one();
            self.shared.away()
        })
    }

    /// Whether most Sentinels still name this master, asked after this call. If so, whoever uses another one began to do
    /// that later: it then finds what this master acknowledged before, or knows that it may be missing.
    ///
    /// Of two majorities one Sentinel is in both, and it never goes back to a master that it has left.
    pub(crate) async fn confirm(&self, master: &Node) -> Result<(), StoreError> {
        if is_off(Guard::MajorityConfirms) {
            return Ok(());
        }
        let number = self.shared.asked.fetch_add(1, Ordering::SeqCst) + 1;
        self.shared.confirm.notify_one();
        let mut named = self.shared.named.subscribe();
        let named = named.wait_for(|(asked, _)| *asked >= number);
        let deadline = tokio::time::Instant::now() + self.shared.options.deadline;
        match by(deadline, named).await.ok_or(StoreError::TimedOut)? {
            Ok(named) if named.1.is_some() && named.1 == master.url().host() => Ok(()),
            _ => Err(StoreError::Broken(
                "the Sentinels may name another master by now".to_owned(),
            )),
        }
    }

    /// Looks at what a master answered: it may be one no more.
    pub(crate) fn heed(&self, outcome: &Outcome) {
        let is_doubtful = match outcome {
            Ok(Some(Value::Error(error))) => error.starts_with(b"READONLY"),
            Ok(_) | Err(StoreError::Busy) => false,
            Err(_) => true,
        };
        if is_doubtful {
            self.doubt();
        }
    }

    /// Has the Sentinels asked soon.
    pub(crate) fn doubt(&self) {
        self.shared.wake.notify_one();
    }

    pub(crate) fn close(&self) {
        if let Some(task) = &self.task {
            task.abort();
        }
        self.shared.note("it was closed");
        self.shared.is_asked.send_replace(true);
        if let Some(trusted) = self.shared.trusted.swap(None) {
            trusted.master.close();
        }
        for sentinel in &self.shared.sentinels {
            sentinel.close();
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.close();
    }
}

/// Asks the Sentinels, until it is stopped.
async fn keep_up(shared: Arc<Shared>) {
    let mut is_trusted = true;
    loop {
        let (asked, asked_at) = (shared.asked.load(Ordering::SeqCst), Instant::now());
        let named = shared.ask().await;
        let is_named = named.is_some();
        shared.is_asked.send_replace(true);
        shared.named.send_replace((asked, named));
        let trusted = shared.trusted.load_full();
        let trusted = trusted.filter(|trusted| Instant::now() < trusted.until);
        let server = &shared.url;
        match (&trusted, is_trusted) {
            (None, true) => {
                let error = shared.away();
                tracing::warn!(%server, %error, "no master: requests go on without it");
            }
            (Some(trusted), false) => {
                tracing::info!(%server, master = %trusted.host, "the Sentinels name a master again");
            }
            _ => {}
        }
        is_trusted = trusted.is_some();
        let is_well = is_named && trusted.is_some_and(|trusted| trusted.master.is_connected());
        let pause = async {
            tokio::time::sleep(PAUSE).await;
            if is_well {
                let _ = tokio::time::timeout(PERIOD - PAUSE, shared.wake.notified()).await;
            }
        };
        tokio::select! {
            () = pause => {}
            () = shared.confirm.notified() => {
                let early = TOGETHER.saturating_sub(asked_at.elapsed());
                if !early.is_zero() {
                    tokio::time::sleep(early).await;
                }
            }
        }
    }
}

impl Shared {
    fn note(&self, why: &str) {
        let mut noted = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        why.clone_into(&mut noted);
    }

    fn away(&self) -> StoreError {
        let why = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        StoreError::Away(format!("{}: {why}", self.url))
    }

    /// Asks all Sentinels at once; the master that most of them name.
    async fn ask(&self) -> Option<Host> {
        let (sent, sent_at) = (Instant::now(), clock::now());
        let question: [&[u8]; 3] = [
            b"SENTINEL",
            b"GET-MASTER-ADDR-BY-NAME",
            self.name.as_bytes(),
        ];
        let question = Command::new(&question, Expect::Pair);
        let answers = self.ask_all(question).await;
        match elected(&answers, &self.name) {
            Ok(host) => {
                let master = self.trust(host.clone(), sent + TRUST);
                // What it told is relied on for no longer.
                if !is_off(Guard::MajorityTrusts) {
                    master.name_until(clock::after(sent_at, TRUST - clock::TICK));
                }
                Some(host)
            }
            Err(why) => {
                self.note(&why);
                None
            }
        }
    }

    /// What they answer, as far as it is needed: one that hangs is not waited for by those who know without it.
    async fn ask_all(&self, question: Command<'_>) -> Vec<Outcome> {
        let mut answers = vec![Err(StoreError::NotBegun); self.sentinels.len()];
        let all = self.sentinels.iter().enumerate();
        let asked = all.map(|(place, one)| async move { (place, one.ask_one(question).await) });
        let mut asked: FuturesUnordered<_> = asked.collect();
        while let Some((place, answer)) = asked.next().await {
            answers[place] = answer;
            if elected(&answers, &self.name).is_ok() {
                break;
            }
        }
        answers
    }

    fn trust(&self, host: Host, until: Instant) -> Arc<Node> {
        let before = self.trusted.load_full();
        let master = match &before {
            Some(before) if before.host == host => Arc::clone(&before.master),
            _ => {
                tracing::info!(server = %self.url, master = %host, "the master that the Sentinels name");
                let url = self.url.of_server(&host);
                let source = self.changes.source();
                let options = self.options.clone();
                Arc::new(Node::start(url, Purpose::Entries, options, source))
            }
        };
        self.trusted.store(Some(Arc::new(Trusted {
            host,
            master: Arc::clone(&master),
            until,
        })));
        master
    }
}

/// The master that most of all Sentinels name, those that did not answer included.
fn elected(answers: &[Outcome], name: &str) -> Result<Host, String> {
    let mut votes: HashMap<Host, usize> = HashMap::new();
    let mut why = Vec::new();
    let mut strangers = 0;
    for answer in answers {
        match answer {
            Ok(Some(Value::Array(pair))) => {
                if let Some(host) = read_pair(pair) {
                    *votes.entry(host).or_default() += 1;
                }
            }
            Ok(Some(Value::Null)) => strangers += 1,
            Ok(Some(Value::Error(error))) => why.push(crate::probe::shown_bytes(error)),
            Ok(_) => {}
            Err(StoreError::Away(error)) => why.push(error.clone()),
            Err(error) => why.push(error.to_string()),
        }
    }
    let majority = answers.len() / 2 + 1;
    let elected = votes.into_iter().find(|(_, votes)| *votes >= majority);
    if let Some((host, _)) = elected {
        return Ok(host);
    }
    if strangers >= majority {
        let name = larder_model::escape(name);
        return Err(format!(
            "the Sentinels know no master called {name}: name it as their configuration does"
        ));
    }
    let why = why.first().map_or("they disagree", |why| why);
    Err(format!(
        "no master is named by {majority} of {} Sentinels: {why}",
        answers.len()
    ))
}

/// A host and its port, as two strings.
fn read_pair(pair: &[Value]) -> Option<Host> {
    let [Value::Text(name), Value::Text(port)] = pair else {
        return None;
    };
    let name = std::str::from_utf8(name).ok()?;
    let port = std::str::from_utf8(port).ok()?.parse().ok()?;
    Some(Host {
        name: name.to_owned(),
        port,
    })
    .filter(|host| !host.name.is_empty() && host.port != 0)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn names(port: &'static str) -> Outcome {
        let text = |text: &'static str| Value::Text(Bytes::from_static(text.as_bytes()));
        Ok(Some(Value::Array(vec![text("10.0.0.1"), text(port)])))
    }

    fn away() -> Outcome {
        Err(StoreError::Away("it is cut off".to_owned()))
    }

    #[test]
    fn a_master_is_named_by_most_of_all_sentinels() {
        let port = |answers: &[Outcome]| elected(answers, "m").map(|host| host.port);
        assert_eq!(port(&[names("1")]), Ok(1));
        assert_eq!(port(&[names("1"), names("2"), names("1")]), Ok(1));
        assert_eq!(port(&[names("1"), away(), names("1")]), Ok(1));
        for answers in [
            &[names("1"), away(), away()][..],
            &[names("1"), names("2")],
            &[names("1"), names("2"), away()],
            &[names("1"), names("1"), away(), away()],
            &[names("x"), names("0"), names("70000")],
        ] {
            assert!(port(answers).unwrap_err().contains("no master is named by"));
        }
        let unknown = [Ok(Some(Value::Null)), Ok(Some(Value::Null)), names("1")];
        assert!(port(&unknown).unwrap_err().contains("no master called m"));
    }
}
