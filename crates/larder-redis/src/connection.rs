//! One connection, shared by all tasks: commands are written straight into its buffer, replies come back in their order.
//!
//! Each batch of commands that goes out ends with a `PING` of its own nonce, and its replies are handed out only once that came
//! back in its place. A surplus reply, from a server or a proxy, would shift all later ones by one, and everybody would
//! get somebody else's value (as in CVE-2023-28859): here it ends the connection before anybody got anything.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use larder_core::StoreError;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Notify, oneshot};
use tokio::time::MissedTickBehavior;

use crate::command::{self, Command, Expect};
use crate::resp::{ProtocolError, Reader, Value};
use crate::stream::Stream;

/// More bytes than this do not wait to be sent.
const MAX_WAITING_BYTES: usize = 64 << 20;
/// With nothing else to say, so often it is asked whether the server is there.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// So many heartbeats in a row without a word, while replies are due, and it is not: after 1 to 1.5 s.
const SILENT_BEATS: u32 = 3;
/// The least room that is read into at once.
const READ_BYTES: usize = 16 << 10;
/// Buffers that grew beyond this are given back.
const KEPT_BYTES: usize = 1 << 20;

/// What a caller waits for: a reply, or nothing if the connection ended.
pub(crate) type Reply = oneshot::Receiver<Value>;

/// The callers' end of a connection.
pub(crate) struct Connection {
    waiting: Mutex<Waiting>,
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

    /// Adds a command, unless its guard says no.
    fn push(&mut self, command: Command<'_>) -> Option<Reply> {
        if command.guard.is_some_and(|guard| !guard.allows()) {
            return None;
        }
        command::write(&mut self.commands, command.arguments);
        let (caller, reply) = oneshot::channel();
        self.slots.push_back(Slot {
            expect: command.expect,
            caller: Some(caller),
        });
        Some(reply)
    }
}

struct Slot {
    expect: Expect,
    /// None for a nonce.
    caller: Option<oneshot::Sender<Value>>,
}

impl Connection {
    pub(crate) fn new(max_in_flight: usize) -> Self {
        Self {
            waiting: Mutex::default(),
            wake: Notify::new(),
            ended: Notify::new(),
            max_in_flight,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Between any two statements the buffer and the slots fit together.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends commands, and hands back what to wait for: `None` for each that its guard did not let through.
    pub(crate) fn send(&self, commands: &[Command<'_>]) -> Result<Vec<Option<Reply>>, StoreError> {
        let mut waiting = self.lock();
        waiting.check(commands.len(), self.max_in_flight)?;
        let replies = commands
            .iter()
            .map(|command| waiting.push(*command))
            .collect();
        drop(waiting);
        self.wake.notify_one();
        Ok(replies)
    }

    /// [`Connection::send`] for one command.
    pub(crate) fn send_one(&self, command: Command<'_>) -> Result<Option<Reply>, StoreError> {
        let mut waiting = self.lock();
        waiting.check(1, self.max_in_flight)?;
        let reply = waiting.push(command);
        drop(waiting);
        self.wake.notify_one();
        Ok(reply)
    }

    /// Ends the connection; whoever waits gets nothing.
    pub(crate) fn end(&self, why: &str) {
        let mut waiting = self.lock();
        if waiting.end.is_none() {
            waiting.end = Some(why.to_owned());
        }
        waiting.slots.clear();
        waiting.commands = BytesMut::new();
        drop(waiting);
        self.ended.notify_one();
    }

    /// The commands that wait, as a batch with its nonce; `None` when the connection is to end.
    fn take(&self, batch: &mut BytesMut, nonces: &mut u64, is_beat: bool) -> Option<()> {
        let mut waiting = self.lock();
        if waiting.end.is_some() {
            return None;
        }
        if waiting.commands.is_empty() && !is_beat {
            return Some(());
        }
        std::mem::swap(&mut waiting.commands, batch);
        *nonces = nonces.wrapping_add(1);
        command::write_nonce(batch, *nonces);
        waiting.slots.push_back(Slot {
            expect: Expect::Nonce(*nonces),
            caller: None,
        });
        Some(())
    }

    fn next_slot(&self) -> Option<Slot> {
        self.lock().slots.pop_front()
    }

    fn is_idle(&self) -> bool {
        self.lock().slots.is_empty()
    }
}

/// What the connection tells those who watch over it.
pub(crate) trait Watch {
    /// Replies came.
    fn answered(&self);
    /// The server said something of its own (an invalidation, say), in the order of the replies around it.
    fn pushed(&self, push: &[Value]);
}

/// Runs a connection until it ends, and says why.
pub(crate) async fn drive(
    connection: &Arc<Connection>,
    stream: Box<dyn Stream>,
    reader: Reader,
    first_nonce: u64,
    watch: &impl Watch,
) -> String {
    let ended = tokio::select! {
        ended = run(connection, stream, reader, first_nonce, watch) => ended,
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
    stream: Box<dyn Stream>,
    reader: Reader,
    first_nonce: u64,
    watch: &impl Watch,
) -> io::Result<String> {
    let (mut input, mut output) = tokio::io::split(stream);
    let mut incoming = Incoming {
        reader,
        buffer: BytesMut::with_capacity(READ_BYTES),
        held: Vec::new(),
    };
    let mut batch = BytesMut::new();
    let mut nonces = first_nonce;
    let mut silent_beats = 0;
    let mut beat = tokio::time::interval(HEARTBEAT);
    // A runtime that was blocked for seconds has beats to catch up with, but has not yet looked whether a word came.
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        incoming.buffer.reserve(READ_BYTES);
        tokio::select! {
            read = input.read_buf(&mut incoming.buffer) => {
                if read? == 0 {
                    return Ok("the server closed the connection".to_owned());
                }
                silent_beats = 0;
                incoming.hand_out(connection, watch).map_err(io::Error::other)?;
                // Who got a reply often has the next command ready: one batch of all is cheaper than many.
                tokio::task::yield_now().await;
            }
            written = output.write(&batch), if !batch.is_empty() => {
                batch.advance(written?);
                if batch.is_empty() {
                    output.flush().await?;
                    if batch.capacity() > KEPT_BYTES {
                        batch = BytesMut::new();
                    }
                }
            }
            () = connection.wake.notified(), if batch.is_empty() => {
                // Others that are ready to send something go first: one batch is cheaper than many.
                tokio::task::yield_now().await;
                if connection.take(&mut batch, &mut nonces, false).is_none() {
                    return Ok("it was ended".to_owned());
                }
            }
            _ = beat.tick() => {
                if connection.is_idle() {
                    silent_beats = 0;
                    if batch.is_empty() && connection.take(&mut batch, &mut nonces, true).is_none() {
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
        if batch.is_empty() && connection.take(&mut batch, &mut nonces, false).is_none() {
            return Ok("it was ended".to_owned());
        }
    }
}

struct Incoming {
    reader: Reader,
    buffer: BytesMut,
    /// Replies whose batch's nonce has not come back yet.
    held: Vec<(oneshot::Sender<Value>, Value)>,
}

impl Incoming {
    /// Hands out the replies of each batch that is whole.
    fn hand_out(
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
                    for (caller, value) in self.held.drain(..) {
                        let _ = caller.send(value);
                    }
                }
                expect if fits(expect, &value) => {
                    // A caller that went away: its reply is dropped here, in its place.
                    if let Some(caller) = slot.caller.filter(|caller| !caller.is_closed()) {
                        self.held.push((caller, value));
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

/// Whether a command can be answered so.
pub(crate) fn fits(expect: Expect, value: &Value) -> bool {
    match (expect, value) {
        (_, Value::Error(_)) => true,
        (Expect::Text, Value::Text(_) | Value::TooLong | Value::Null) => true,
        (Expect::Ok, Value::Text(text)) => *text == "OK",
        (Expect::Integer, Value::Integer(_)) => true,
        (Expect::Array | Expect::Pair, Value::Array(_)) => true,
        (Expect::Pair, Value::Null) => true,
        _ => false,
    }
}
