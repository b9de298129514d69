//! One server: connected to, watched over, and looked for again when it is away.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwapOption;
use larder_core::StoreError;
use larder_core::mutants::{Guard, is_off};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::breaker::{Event, State};
use crate::changes::{Source, Taken};
use crate::command::Command;
use crate::connection::{self, Connection, Link, Reply, Watch};
use crate::deadline::by;
use crate::life::Life;
use crate::lives::Lives;
use crate::options::{AfterFailover, Options};
use crate::probe::{Greeted, Greeting, Met, Purpose, shown_bytes, silence};
use crate::resp::Value;
use crate::tracking::{self, Probed};
use crate::url::RedisUrl;

/// One server.
pub(crate) struct Node {
    shared: Arc<Shared>,
}

struct Shared {
    url: RedisUrl,
    purpose: Purpose,
    options: Options,
    phase: Mutex<Phase>,
    /// The connection, while there is one that is to be used.
    connection: ArcSwapOption<Connection>,
    /// Whether the first probe has come to an end.
    is_started: watch::Sender<bool>,
    /// Whether operations timed out since the last answer: else an answer is no news to the breaker.
    has_failures: AtomicBool,
    is_closed: AtomicBool,
    closed: tokio::sync::Notify,
    /// Where it tells of changes.
    source: Option<Source>,
    probed: Probed,
    /// Whether it was said why reads come without proofs.
    is_said: AtomicBool,
    /// Whether it was said that its life is not known.
    is_life_said: AtomicBool,
    /// Whether `PEXPIRE … LT` is there: since Redis 7.
    knows_lt: AtomicBool,
    incarnation: AtomicU64,
}

struct Phase {
    state: State,
    /// Why there is none.
    why: String,
    away_since: Option<Instant>,
    /// The server's process that was met last.
    run_id: String,
}

impl Node {
    /// Begins to look for a server, and returns at once.
    pub(crate) fn start(
        url: RedisUrl,
        purpose: Purpose,
        options: Options,
        source: Option<Source>,
    ) -> Self {
        let shared = Arc::new(Shared {
            url,
            purpose,
            options,
            phase: Mutex::new(Phase {
                state: State::Starting,
                why: "it has not been reached yet".to_owned(),
                away_since: None,
                run_id: String::new(),
            }),
            connection: ArcSwapOption::empty(),
            is_started: watch::Sender::new(false),
            has_failures: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            closed: tokio::sync::Notify::new(),
            source,
            probed: Probed::new(purpose == Purpose::Slots),
            is_said: AtomicBool::new(false),
            is_life_said: AtomicBool::new(false),
            knows_lt: AtomicBool::new(true),
            incarnation: AtomicU64::new(0),
        });
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                runtime.spawn(supervise(Arc::clone(&shared)));
            }
            Err(_) => {
                let why = "there is no Tokio runtime: connect inside of one";
                shared.note(Event::ProbeFailed, why);
                // There is nothing to wait for.
                shared.is_started.send_replace(true);
            }
        }
        Self { shared }
    }

    pub(crate) fn url(&self) -> &RedisUrl {
        &self.shared.url
    }

    /// Which process of the server was met last: a scan can't go on in another.
    pub(crate) fn run_id(&self) -> String {
        self.shared.lock().run_id.clone()
    }

    /// The life of the server that was met last; 0: none.
    pub(crate) fn incarnation(&self) -> u64 {
        self.shared.incarnation.load(Ordering::Relaxed)
    }

    /// The connection, while there is one.
    pub(crate) fn current(&self) -> Option<Arc<Connection>> {
        self.shared.connection.load_full()
    }

    /// Waits until it was connected to, for the first time.
    pub(crate) async fn reach(&self, deadline: tokio::time::Instant) -> Result<(), StoreError> {
        self.connection(deadline).await.map(drop)
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.shared.connection.load().is_some()
    }

    /// Ends the connection, so that the server is greeted, and asked what it is, again.
    pub(crate) fn greet_again(&self, why: &str) {
        if let Some(connection) = self.shared.connection.load_full() {
            connection.end(why);
        }
    }

    /// See [`Source::take`].
    pub(crate) fn take(&self, key: &[u8]) -> Option<Taken> {
        let taken = self.shared.source.as_ref()?.take(key)?;
        self.shared.probed.note(key);
        Some(taken)
    }

    /// Until when this is known to be the server to ask.
    pub(crate) fn name_until(&self, until: u64) {
        if let Some(source) = &self.shared.source {
            source.name(until);
        }
    }

    /// Whether the server knows `PEXPIRE … LT`.
    pub(crate) fn knows_lt(&self) -> bool {
        self.shared.knows_lt.load(Ordering::Relaxed)
    }

    /// [`Node::ask_over`], for those to whom the connection is all one.
    pub(crate) async fn ask(
        &self,
        commands: &[Command<'_>],
    ) -> Result<Vec<Option<Value>>, StoreError> {
        Ok(self.ask_over(commands).await?.1)
    }

    /// Sends commands and waits for their replies, all within the deadline: `None` for each that may not go. They come
    /// over one connection.
    pub(crate) async fn ask_over(
        &self,
        commands: &[Command<'_>],
    ) -> Result<(Link, Vec<Option<Value>>), StoreError> {
        let deadline = tokio::time::Instant::now() + self.shared.options.deadline;
        let connection = self.connection(deadline).await?;
        let link = connection.link();
        let replies = connection.send(commands)?;
        match by(deadline, collect(replies)).await {
            Some(Some(values)) => Ok((link, values)),
            Some(None) => Err(StoreError::Broken(self.shared.lock().why.clone())),
            None => {
                self.shared.timed_out(&connection);
                Err(StoreError::TimedOut)
            }
        }
    }

    /// [`Node::ask_over`] for two commands without conditions.
    pub(crate) async fn ask_both(
        &self,
        commands: &[Command<'_>; 2],
    ) -> Result<(Link, [Value; 2]), StoreError> {
        let deadline = tokio::time::Instant::now() + self.shared.options.deadline;
        let connection = self.connection(deadline).await?;
        let link = connection.link();
        let replies = connection.send_both(commands)?;
        match by(deadline, replies).await {
            Some(Ok(values)) => Ok((link, values)),
            Some(Err(_ended)) => Err(StoreError::Broken(self.shared.lock().why.clone())),
            None => {
                self.shared.timed_out(&connection);
                Err(StoreError::TimedOut)
            }
        }
    }

    /// [`Node::ask`] for one command.
    pub(crate) async fn ask_one(&self, command: Command<'_>) -> Result<Option<Value>, StoreError> {
        let deadline = tokio::time::Instant::now() + self.shared.options.deadline;
        let connection = self.connection(deadline).await?;
        let Some(reply) = connection.send_one(command)? else {
            return Ok(None);
        };
        match by(deadline, reply).await {
            Some(Ok(value)) => Ok(Some(value)),
            Some(Err(_ended)) => Err(StoreError::Broken(self.shared.lock().why.clone())),
            None => {
                self.shared.timed_out(&connection);
                Err(StoreError::TimedOut)
            }
        }
    }

    /// Sends commands for whose replies nobody waits; drops them if there is no connection.
    pub(crate) fn tell(&self, command: Command<'_>) {
        let connection = self.shared.connection.load();
        if let Some(connection) = &*connection {
            let _ = connection.send(&[command]);
        }
    }

    /// The connection. Only the very first attempt to connect is waited for.
    async fn connection(
        &self,
        deadline: tokio::time::Instant,
    ) -> Result<Arc<Connection>, StoreError> {
        if let Some(connection) = self.shared.connection.load_full() {
            return Ok(connection);
        }
        let mut is_started = self.shared.is_started.subscribe();
        if !*is_started.borrow() {
            let started = is_started.wait_for(|is_started| *is_started);
            // Late or not: what is there now counts.
            let _ = tokio::time::timeout_at(deadline, started).await;
        }
        let connection = self.shared.connection.load_full();
        connection.ok_or_else(|| {
            let why = &self.shared.lock().why;
            StoreError::Away(format!("{}: {why}", self.shared.url))
        })
    }

    pub(crate) fn close(&self) {
        self.shared.is_closed.store(true, Ordering::SeqCst);
        self.shared.closed.notify_one();
        let connection = self.shared.connection.swap(None);
        if let Some(connection) = connection {
            connection.end("it was closed");
        }
        self.shared.tells_no_more();
        self.shared.lock().why = "it was closed".to_owned();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.close();
    }
}

/// All replies; `None` if the connection ended before.
async fn collect(replies: Vec<Option<Reply>>) -> Option<Vec<Option<Value>>> {
    let mut values = Vec::with_capacity(replies.len());
    for reply in replies {
        values.push(match reply {
            Some(reply) => Some(reply.await.ok()?),
            None => None,
        });
    }
    Some(values)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the breaker on, and says in the log when the server goes away or comes back.
    fn note(&self, event: Event, why: &str) -> State {
        self.note_in(&mut self.lock(), event, why)
    }

    /// [`Shared::note`], by one who holds the lock: the state and the connection change together.
    fn note_in(&self, phase: &mut Phase, event: Event, why: &str) -> State {
        let before = phase.state;
        phase.state = before.after(event, self.options.failures);
        let server = self.url.to_string();
        match phase.state {
            State::Open { .. } => {
                self.connection.store(None);
                self.tells_no_more();
                if phase.away_since.is_none() {
                    phase.away_since = Some(Instant::now());
                    tracing::warn!(
                        server,
                        why,
                        "{} away: requests go on without it",
                        self.purpose
                    );
                }
                phase.why = why.to_owned();
            }
            State::Closed { .. } if !matches!(before, State::Closed { .. }) => {
                match phase.away_since.take() {
                    Some(since) => {
                        let away = since.elapsed();
                        tracing::info!(server, ?away, "{} back", self.purpose);
                    }
                    None => tracing::info!(server, "{} connected", self.purpose),
                }
            }
            State::Closed { .. } | State::Starting => {}
        }
        phase.state
    }

    fn tells_no_more(&self) {
        if let Some(source) = &self.source {
            source.end();
        }
    }

    /// See [`crate::lives`].
    fn lives(&self) -> Option<&Lives> {
        self.source.as_ref().map(Source::lives)
    }

    /// The life that entries are written and read in.
    fn incarnation(&self, life: &Life) -> u64 {
        match self.options.after_failover {
            AfterFailover::Strict => life.id,
            AfterFailover::Keep => 0,
        }
    }

    /// Says, once, that entries can't be told from those of another life.
    fn say_life(&self, life: &Life) {
        let is_needed = self.purpose.has_entries() && !life.is_told();
        if is_needed
            && self.options.after_failover == AfterFailover::Strict
            && !self.is_life_said.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                server = %self.url,
                "{} does not tell which life it is in, so what it may have lost can't be told: plain entries are not read, others only over the connection that wrote them; allow INFO (run_id, master_replid), or set LARDER_AFTER_FAILOVER=keep",
                self.purpose
            );
        }
    }

    /// Says, once, why nothing can be kept in this process for longer than its own time.
    fn say(&self, error: &[u8]) {
        if !self.is_said.swap(true, Ordering::Relaxed) {
            let error = shown_bytes(error);
            tracing::warn!(
                server = %self.url,
                error,
                "{} does not tell what changes: each lookup asks it; allow CLIENT TRACKING, CLIENT TRACKINGINFO, CLIENT CACHING and ROLE",
                self.purpose
            );
        }
    }

    fn timed_out(&self, connection: &Arc<Connection>) {
        let why = "it does not answer within the deadline";
        let mut phase = self.lock();
        let is_current = self
            .connection
            .load()
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, connection));
        if !is_current {
            return;
        }
        self.has_failures.store(true, Ordering::Relaxed);
        let state = self.note_in(&mut phase, Event::TimedOut, why);
        drop(phase);
        if matches!(state, State::Open { .. }) {
            connection.end(why);
        }
    }
}

impl Watch for Shared {
    fn answered(&self) {
        if self.has_failures.swap(false, Ordering::Relaxed) {
            let mut phase = self.lock();
            phase.state = phase.state.after(Event::Answered, self.options.failures);
        }
    }

    fn pushed(&self, push: &[Value]) {
        let (Some(source), [Value::Text(kind), about @ ..]) = (&self.source, push) else {
            return;
        };
        match about {
            _ if is_off(Guard::PushesEndProofs) => {}
            [Value::Array(keys)] if kind == "invalidate" => {
                for key in keys {
                    match key {
                        Value::Text(key) => source.count(key),
                        _ => source.void(),
                    }
                }
            }
            // A flush, or what this client does not know.
            _ => source.void(),
        }
    }

    fn not_noted(&self) {
        if let Some(source) = &self.source {
            source.void();
        }
    }
}

/// Connects, watches, and looks for the server again, until the node is closed.
async fn supervise(shared: Arc<Shared>) {
    let mut before: Option<Met> = None;
    let mut was_advised = false;
    while !shared.is_closed.load(Ordering::SeqCst) {
        let greeting = Greeting {
            url: &shared.url,
            purpose: shared.purpose,
            tls: &shared.options.tls,
            max_string: shared.options.max_string(),
            deadline: shared.options.deadline,
            before: before.clone(),
            services: shared.lives().map(Lives::services).unwrap_or_default(),
        };
        let why = match timeout(shared.options.connect_timeout, greeting.greet()).await {
            Ok(Ok(greeted)) => {
                before = Some(greeted.met.clone());
                if let Some(advice) = greeted.advice.filter(|_| !was_advised) {
                    was_advised = true;
                    tracing::warn!(server = %shared.url, "{advice}");
                }
                let why = serve(&shared, greeted).await;
                if shared.is_closed.load(Ordering::SeqCst) {
                    return;
                }
                shared.note(Event::Broke, &why);
                why
            }
            Ok(Err(why)) => why,
            Err(_late) => silence(&shared.url).to_owned(),
        };
        if shared.is_closed.load(Ordering::SeqCst) {
            return;
        }
        let state = shared.note(Event::ProbeFailed, &why);
        shared.is_started.send_replace(true);
        tokio::select! {
            () = tokio::time::sleep(state.pause(chance())) => {}
            () = shared.closed.notified() => {}
        }
    }
}

async fn serve(shared: &Arc<Shared>, greeted: Greeted) -> String {
    shared.knows_lt.store(greeted.knows_lt, Ordering::Relaxed);
    let Greeted { stream, reader, .. } = greeted;
    let streams = stream.split();
    let max_in_flight = shared.options.max_in_flight;
    let life = greeted.met.life;
    shared.say_life(&life);
    let incarnation = shared.incarnation(&life);
    shared.incarnation.store(incarnation, Ordering::Relaxed);
    let connection = Connection::new((life, incarnation), max_in_flight, &streams.1, seed());
    let connection = Arc::new(connection);
    let link = connection.link().id;
    if let Some(lives) = shared.lives() {
        let noted = greeted.noted.iter();
        noted.for_each(|service| lives.mark(service, link));
    }
    {
        let mut phase = shared.lock();
        phase.run_id = greeted.met.run_id;
        shared.note_in(&mut phase, Event::ProbeAnswered, "");
        shared.connection.store(Some(Arc::clone(&connection)));
    }
    if let Some(lives) = shared.lives() {
        lives.request();
    }
    shared.is_started.send_replace(true);
    if shared.is_closed.load(Ordering::SeqCst) {
        return "it was closed".to_owned();
    }
    let watched = shared.purpose.has_entries().then(|| {
        let (shared, connection) = (Arc::clone(shared), Arc::clone(&connection));
        tokio::spawn(async move {
            let say = |error: &[u8]| shared.say(error);
            let told = (shared.source.as_ref(), shared.options.notes_entries);
            tracking::watch(connection, told, &shared.probed, say).await;
        })
    });
    let why = connection::drive(&connection, streams, reader, &**shared).await;
    if let Some(watched) = watched {
        watched.abort();
        // It must not begin an epoch for a connection that is over.
        let _ = watched.await;
    }
    shared.tells_no_more();
    if let Some(lives) = shared.lives() {
        lives.forget(link);
    }
    why
}

pub(crate) fn seed() -> u64 {
    let mut bytes = [0; 8];
    // Without chance, nonces can be foreseen by the server alone, which may as well send anything.
    let _ = getrandom::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

fn chance() -> f64 {
    seed() as f64 / u64::MAX as f64
}
