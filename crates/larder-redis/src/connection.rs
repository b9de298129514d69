//! One connection, shared by all tasks: commands are written straight into its buffer, replies come back in their order.
//!
//! A caller that is alone sends its commands itself: waking the task that drives the connection would take as long as the
//! way to the server. Where many ask at once that task sends what they left, so that one system call serves them all.
//!
//! Each batch of commands that goes out ends with a `PING` of its own nonce, and its replies are handed out only once that came
//! back in its place. A surplus reply, from a server or a proxy, would shift all later ones by one, and everybody would
//! get somebody else's value (as in CVE-2023-28859): here it ends the connection before anybody got anything.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use larder_core::StoreError;
use tokio::io::AsyncReadExt as _;
use tokio::sync::{Notify, oneshot};
use tokio::time::MissedTickBehavior;

use crate::command::{self, Command, Expect};
use crate::life::Life;
use crate::lives;
use crate::resp::{ProtocolError, Reader, Value};
use crate::stream::{Direct, Input, Output};

/// More bytes than this do not wait to be sent.
const MAX_WAITING_BYTES: usize = 64 << 20;
/// With nothing else to say, so often it is asked whether the server is there.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// So many heartbeats in a row without a word, while replies are due, and it is not: after 1 to 1.5 s.
const SILENT_BEATS: u32 = 3;
/// How large a buffer is that replies are read into; their values share it. With 16 KiB, answers of 10 KiB took 4 % longer.
const READ_BYTES: usize = 64 << 10;
/// With less room than this left, the next buffer is taken.
const LEAST_ROOM: usize = 4 << 10;
/// Into so many parts the replies that are there or due are divided when they are handed out: with 64 and with 256 callers
/// at once that gave twice the throughput of all in one part, with 16 half as much again.
const PARTS: usize = 8;
const LEAST_PART: usize = 2;
const LARGEST_PART: usize = 64;
/// Buffers that grew beyond this are given back.
const KEPT_BYTES: usize = 1 << 20;

/// What a caller waits for: a reply, or nothing if the connection ended.
pub(crate) type Reply = oneshot::Receiver<Value>;
/// The replies to two commands, which come together.
pub(crate) type Replies = oneshot::Receiver<[Value; 2]>;

/// Which connection a reply came over, and to which life of its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Link {
    /// The connection's number: no other of this process ever has it. 0: none.
    pub(crate) id: u64,
    /// See `larder_core::Stored::incarnation`.
    pub(crate) incarnation: u64,
    /// When it was sent for: see [`lives::moment`].
    pub(crate) sent: u64,
}

impl Link {
    /// That of a new connection.
    fn new(incarnation: u64) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            incarnation,
            sent: 0,
        }
    }
}

/// The callers' end of a connection.
pub(crate) struct Connection {
    link: Link,
    life: Life,
    waiting: Mutex<Waiting>,
    /// Where a caller that is alone writes.
    direct: Option<Arc<Direct>>,
    wake: Notify,
    /// Told once, when the connection is to end.
    ended: Notify,
    max_in_flight: usize,
}

#[derive(Default)]
struct Waiting {
    /// Commands that have not been sent.
    commands: BytesMut,
    /// Who waits for a reply, in order: those of commands that were sent first.
    slots: VecDeque<Slot>,
    /// Whether a batch is on its way out: no other is begun before its last byte is written.
    is_sending: bool,
    /// What is left of a batch that a caller began to send.
    rest: BytesMut,
    /// The number of the last batch.
    nonce: u64,
    /// How many calls the next batch serves so far, and how many the last one did.
    calls: usize,
    last_calls: usize,
    /// Why the connection is to end, or has ended.
    end: Option<String>,
}

impl Waiting {
    /// Whether more commands can wait.
    fn check(&self, commands: usize, max_in_flight: usize) -> Result<(), StoreError> {
        if let Some(why) = &self.end {
            return Err(StoreError::Away(why.clone()));
        }
        let is_full =
            self.slots.len() + commands > max_in_flight || self.commands.len() > MAX_WAITING_BYTES;
        if is_full {
            Err(StoreError::Busy)
        } else {
            Ok(())
        }
    }

    /// Adds a command, unless it may not go.
    fn push(&mut self, command: Command<'_>, link: Link) -> Option<Reply> {
        if !command.may_go(link.id) {
            return None;
        }
        let (caller, reply) = oneshot::channel();
        let mut caller = Caller::One(caller);
        for (arguments, expect, is_last) in command.parts() {
            command::write(&mut self.commands, arguments);
            let caller = match (is_last, expect) {
                (true, _) => std::mem::replace(&mut caller, Caller::Nobody),
                (false, Expect::Noted) => Caller::Nobody,
                (false, _) => Caller::OfStep,
            };
            self.slots.push_back(Slot { expect, caller });
        }
        Some(reply)
    }

    /// Adds two commands whose replies one waits for; both may go.
    fn push_both(&mut self, [first, second]: &[Command<'_>; 2]) -> Replies {
        let (caller, replies) = oneshot::channel();
        command::write(&mut self.commands, first.arguments);
        self.slots.push_back(Slot {
            expect: first.expect,
            caller: Caller::OfNext,
        });
        command::write(&mut self.commands, second.arguments);
        self.slots.push_back(Slot {
            expect: second.expect,
            caller: Caller::Both(caller),
        });
        replies
    }

    /// Whether callers come one by one.
    fn is_alone(&self) -> bool {
        self.last_calls <= 1
    }

    /// The commands that wait, as a batch with its nonce.
    fn begin_batch(&mut self, batch: &mut BytesMut) {
        std::mem::swap(&mut self.commands, batch);
        self.nonce = self.nonce.wrapping_add(1);
        command::write_nonce(batch, self.nonce);
        self.slots.push_back(Slot {
            expect: Expect::Nonce(self.nonce),
            caller: Caller::Nobody,
        });
        self.is_sending = true;
        self.last_calls = std::mem::take(&mut self.calls);
    }
}

struct Slot {
    expect: Expect,
    caller: Caller,
}

/// Who waits for a reply.
enum Caller {
    /// Nobody: a nonce is looked at and dropped.
    Nobody,
    One(oneshot::Sender<Value>),
    /// The one who waits for the end of what is done in one step.
    OfStep,
    /// The one who waits for the next reply, too.
    OfNext,
    Both(oneshot::Sender<[Value; 2]>),
}

impl Connection {
    /// A connection to a life of its server with this way out, whose batches are numbered from a number that cannot be
    /// foreseen.
    pub(crate) fn new(
        (life, incarnation): (Life, u64),
        max_in_flight: usize,
        output: &Output,
        first_nonce: u64,
    ) -> Self {
        Self {
            link: Link::new(incarnation),
            life,
            waiting: Mutex::new(Waiting {
                nonce: first_nonce,
                ..Waiting::default()
            }),
            direct: match output {
                Output::Direct(direct) => Some(Arc::clone(direct)),
                Output::Polled(_) => None,
            },
            wake: Notify::new(),
            ended: Notify::new(),
            max_in_flight,
        }
    }

    /// To be taken before something is sent.
    pub(crate) fn link(&self) -> Link {
        Link {
            sent: lives::moment(),
            ..self.link
        }
    }

    /// The life of its server.
    pub(crate) fn life(&self) -> &Life {
        &self.life
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Between any two statements the buffer and the slots fit together.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends commands, and hands back what to wait for: `None` for each that may not go.
    pub(crate) fn send(&self, commands: &[Command<'_>]) -> Result<Vec<Option<Reply>>, StoreError> {
        let mut waiting = self.lock();
        let parts = commands.iter().map(|command| command.parts().count());
        waiting.check(parts.sum(), self.max_in_flight)?;
        let is_idle = waiting.slots.is_empty();
        let replies = commands
            .iter()
            .map(|command| waiting.push(*command, self.link))
            .collect();
        self.dispatch(waiting, is_idle);
        Ok(replies)
    }

    /// [`Connection::send`] for one command.
    pub(crate) fn send_one(&self, command: Command<'_>) -> Result<Option<Reply>, StoreError> {
        let mut waiting = self.lock();
        waiting.check(command.parts().count(), self.max_in_flight)?;
        let is_idle = waiting.slots.is_empty();
        let reply = waiting.push(command, self.link);
        self.dispatch(waiting, is_idle);
        Ok(reply)
    }

    /// [`Connection::send`] for two commands without conditions: with one thing to wait for, it costs what one command does.
    pub(crate) fn send_both(&self, commands: &[Command<'_>; 2]) -> Result<Replies, StoreError> {
        let mut waiting = self.lock();
        waiting.check(2, self.max_in_flight)?;
        let is_idle = waiting.slots.is_empty();
        let replies = waiting.push_both(commands);
        self.dispatch(waiting, is_idle);
        Ok(replies)
    }

    /// Sends what waits, or has it sent.
    fn dispatch(&self, mut waiting: MutexGuard<'_, Waiting>, is_idle: bool) {
        waiting.calls += 1;
        let is_direct = is_idle && waiting.is_alone() && !waiting.is_sending;
        match &self.direct {
            Some(direct) if is_direct && !waiting.commands.is_empty() => {
                self.send_at_once(direct, waiting);
            }
            _ => {
                drop(waiting);
                self.wake.notify_one();
            }
        }
    }

    /// Sends what waits; what there is no room for is left to the task that drives the connection.
    fn send_at_once(&self, direct: &Direct, mut waiting: MutexGuard<'_, Waiting>) {
        let mut batch = BytesMut::new();
        waiting.begin_batch(&mut batch);
        drop(waiting);
        let written = direct.try_write(&batch);
        // An error is met again by the task that drives the connection, which then ends it.
        batch.advance(written.unwrap_or(0));
        let mut waiting = self.lock();
        if batch.is_empty() {
            waiting.is_sending = false;
            if waiting.commands.is_empty() {
                // Its room is used again.
                batch.clear();
                waiting.commands = batch;
                return;
            }
        } else {
            waiting.rest = batch;
        }
        drop(waiting);
        self.wake.notify_one();
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.lock().end.is_some()
    }

    /// Ends the connection; whoever waits gets nothing.
    pub(crate) fn end(&self, why: &str) {
        let mut waiting = self.lock();
        if waiting.end.is_none() {
            waiting.end = Some(why.to_owned());
        }
        waiting.slots.clear();
        waiting.commands = BytesMut::new();
        waiting.rest = BytesMut::new();
        drop(waiting);
        self.ended.notify_one();
    }

    /// Takes what is to be sent next; `None` when the connection is to end.
    fn take(&self, batch: &mut BytesMut, is_beat: bool) -> Option<()> {
        let mut waiting = self.lock();
        if waiting.end.is_some() {
            return None;
        }
        if !waiting.rest.is_empty() {
            std::mem::swap(&mut waiting.rest, batch);
        } else if !waiting.is_sending && (is_beat || !waiting.commands.is_empty()) {
            waiting.begin_batch(batch);
        }
        Some(())
    }

    /// The batch was written to its end.
    fn sent(&self) {
        self.lock().is_sending = false;
    }

    fn next_slot(&self) -> Option<Slot> {
        self.lock().slots.pop_front()
    }

    /// How many replies are due.
    fn in_flight(&self) -> usize {
        self.lock().slots.len()
    }
}

/// What the connection tells those who watch over it.
pub(crate) trait Watch {
    /// Replies came.
    fn answered(&self);
    /// The server said something of its own (an invalidation, say), in the order of the replies around it.
    fn pushed(&self, push: &[Value]);
    /// It does not note the read whose reply comes next.
    fn not_noted(&self);
}

/// Runs a connection until it ends, and says why.
pub(crate) async fn drive(
    connection: &Arc<Connection>,
    streams: (Input, Output),
    reader: Reader,
    watch: &impl Watch,
) -> String {
    let ended = tokio::select! {
        ended = run(connection, streams, reader, watch) => ended,
        // Also while a write or a flush waits for a server that does not read.
        () = connection.ended.notified() => Ok("it was ended".to_owned()),
    };
    let why = match ended {
        Ok(why) => why,
        Err(error) => larder_model::escape(&error.to_string()).into_owned(),
    };
    connection.end(&why);
    // Whoever ended it said why first.
    connection.lock().end.clone().unwrap_or(why)
}

async fn run(
    connection: &Connection,
    (mut input, mut output): (Input, Output),
    reader: Reader,
    watch: &impl Watch,
) -> io::Result<String> {
    let mut incoming = Incoming {
        reader,
        buffer: BytesMut::with_capacity(READ_BYTES),
        held: Vec::new(),
        first: Value::Null,
        refused: None,
        ready: VecDeque::new(),
    };
    let mut batch = BytesMut::new();
    let mut silent_beats = 0;
    let mut beat = tokio::time::interval(HEARTBEAT);
    // A runtime that was blocked for seconds has beats to catch up with, but has not yet looked whether a word came.
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        incoming.make_room();
        tokio::select! {
            biased;
            written = output.write(&batch), if !batch.is_empty() => {
                batch.advance(written?);
                if batch.is_empty() {
                    output.flush().await?;
                    connection.sent();
                    if batch.capacity() > KEPT_BYTES {
                        batch = BytesMut::new();
                    }
                }
            }
            () = std::future::ready(()), if !incoming.ready.is_empty() => {
                // Who gets a reply often has the next command ready: one batch of some is cheaper than many. Of some and not
                // of all, so that the server works on them while the others are handed out.
                let all = incoming.ready.len() + connection.in_flight();
                if incoming.hand_out((all / PARTS).clamp(LEAST_PART, LARGEST_PART)) > 1 {
                    let_others_go_first().await;
                }
            }
            read = input.read_buf(&mut incoming.buffer) => {
                if read? == 0 {
                    return Ok("the server closed the connection".to_owned());
                }
                silent_beats = 0;
                incoming.take_in(connection, watch).map_err(io::Error::other)?;
            }
            () = connection.wake.notified(), if batch.is_empty() => {
                // Others that are ready to send something go first: one batch is cheaper than many.
                let_others_go_first().await;
                if connection.take(&mut batch, false).is_none() {
                    return Ok("it was ended".to_owned());
                }
            }
            _ = beat.tick() => {
                if connection.in_flight() == 0 {
                    silent_beats = 0;
                    if batch.is_empty() && connection.take(&mut batch, true).is_none() {
                        return Ok("it was ended".to_owned());
                    }
                } else {
                    silent_beats += 1;
                    if silent_beats >= SILENT_BEATS {
                        return Ok("the server does not answer any more".to_owned());
                    }
                }
            }
        }
        // What came while a batch was on its way goes out with the next.
        if batch.is_empty() && connection.take(&mut batch, false).is_none() {
            return Ok("it was ended".to_owned());
        }
    }
}

struct Incoming {
    reader: Reader,
    buffer: BytesMut,
    /// Replies whose batch's nonce has not come back yet.
    held: Vec<Answered>,
    /// The first of two replies that go to one caller.
    first: Value,
    /// Why what was to be done in one step is not done: what its end says does not tell.
    refused: Option<Value>,
    /// Replies that can be handed out.
    ready: VecDeque<Answered>,
}

/// A reply, and who waits for it.
enum Answered {
    One(oneshot::Sender<Value>, Value),
    Both(oneshot::Sender<[Value; 2]>, [Value; 2]),
}

impl Answered {
    fn hand_out(self) {
        // Who went away needs none.
        match self {
            Self::One(caller, value) => drop(caller.send(value)),
            Self::Both(caller, values) => drop(caller.send(values)),
        }
    }
}

impl Incoming {
    /// Where values that were read still share the buffer, room can't be had but by taking a new one.
    fn make_room(&mut self) {
        if self.buffer.capacity() - self.buffer.len() < LEAST_ROOM {
            self.buffer.reserve(READ_BYTES);
        }
    }

    /// Hands out some replies, and says how many.
    fn hand_out(&mut self, most: usize) -> usize {
        let count = self.ready.len().min(most);
        self.ready.drain(..count).for_each(Answered::hand_out);
        count
    }

    /// Reads replies; those of each batch that is whole are ready to be handed out.
    fn take_in(
        &mut self,
        connection: &Connection,
        watch: &impl Watch,
    ) -> Result<(), ProtocolError> {
        while let Some(value) = self.reader.read(&mut self.buffer)? {
            if let Value::Push(push) = &value {
                watch.pushed(push);
                continue;
            }
            let Some(slot) = connection.next_slot() else {
                return Err(ProtocolError("a reply that nobody asked for"));
            };
            match slot.expect {
                Expect::Nonce(nonce) => {
                    let is_right =
                        matches!(&value, Value::Text(text) if command::is_nonce(text, nonce));
                    if !is_right {
                        return Err(ProtocolError("its replies are not those to our commands"));
                    }
                    watch.answered();
                    self.ready.extend(self.held.drain(..));
                }
                expect if fits(expect, &value) => {
                    if expect == Expect::Noted && matches!(value, Value::Error(_)) {
                        watch.not_noted();
                    }
                    // A caller that went away: its reply is dropped here, in its place.
                    match slot.caller {
                        Caller::OfStep => {
                            if matches!(value, Value::Error(_)) {
                                self.refused.get_or_insert(value);
                            }
                        }
                        Caller::One(caller) => {
                            let value = self.refused.take().unwrap_or(value);
                            if !caller.is_closed() {
                                self.held.push(Answered::One(caller, value));
                            }
                        }
                        Caller::OfNext => self.first = value,
                        Caller::Both(caller) if !caller.is_closed() => {
                            let first = std::mem::replace(&mut self.first, Value::Null);
                            self.held.push(Answered::Both(caller, [first, value]));
                        }
                        Caller::Nobody | Caller::Both(_) => {}
                    }
                }
                _ => {
                    return Err(ProtocolError(
                        "a reply of a kind that the command does not give",
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Lets the tasks that are ready run before this one goes on. Unlike `tokio::task::yield_now`, it does not have the runtime
/// ask the operating system for events in between: a system call for each batch.
async fn let_others_go_first() {
    let mut is_first = true;
    std::future::poll_fn(|context| {
        if !is_first {
            return Poll::Ready(());
        }
        is_first = false;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Whether a command can be answered so.
pub(crate) fn fits(expect: Expect, value: &Value) -> bool {
    match (expect, value) {
        (_, Value::Error(_)) => true,
        (Expect::Text, Value::Text(_) | Value::TooLong | Value::Null) => true,
        (Expect::Ok | Expect::Noted, Value::Text(text)) => *text == "OK",
        (Expect::Integer, Value::Integer(_)) => true,
        // The latter where the server would not begin the step, and did it at once.
        (Expect::Queued, Value::Text(_) | Value::Integer(_)) => true,
        (Expect::Array | Expect::Pair, Value::Array(_)) => true,
        (Expect::Pair, Value::Null) => true,
        _ => false,
    }
}
