//! A Cluster: each command goes to the master of its key's slot, and from there to where that says.
//!
//! Only masters are asked. What a node answers in place of doing something (`MOVED`, `ASK`, …) is followed within the
//! deadline, a few times at the most, and only to nodes that belong to the Cluster by what its nodes tell: our password
//! goes nowhere else.

pub(crate) mod map;
pub(crate) mod redirect;
pub(crate) mod slots;
mod survey;
pub(crate) mod topology;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use larder_core::StoreError;
use tokio::time::Instant;

use crate::changes::Changes;
use crate::cluster::map::Map;
use crate::cluster::redirect::Refusal;
use crate::cluster::slots::slot;
use crate::cluster::survey::Surveyor;
use crate::command::{Command, Expect};
use crate::connection::Link;
use crate::deadline::by;
use crate::node::Node;
use crate::options::Options;
use crate::resp::Value;
use crate::servers::{Answer, Outcome};
use crate::url::RedisUrl;
use crate::url::hosts::Host;

/// So often a command is sent on, and no more.
const MOST_REDIRECTS: u32 = 5;
/// So long a command waits that is to be tried again.
const TRY_AGAIN: Duration = Duration::from_millis(5);

const ASKING: &[&[u8]] = &[b"ASKING"];
const PING: &[&[u8]] = &[b"PING"];

/// The masters of a Cluster.
pub(crate) struct Cluster {
    deadline: Duration,
    surveyor: Surveyor,
    changes: Arc<Changes>,
    /// How many commands were sent on.
    redirects: AtomicU64,
}

/// A command on its way: which it is, and whether it goes where a node said to ask this once.
struct Step {
    index: usize,
    ask: Option<Arc<Node>>,
}

/// What goes to one node at once.
struct Batch {
    node: Arc<Node>,
    steps: Vec<Step>,
}

/// What comes after an answer.
enum Next {
    Done,
    /// It is sent again: to its owner, or this once to that node.
    Again(Option<Arc<Node>>),
    /// The same, once it is known anew who the nodes are.
    AgainWhenSurveyed,
    /// The same, a little later.
    AgainLater,
}

impl Next {
    /// The node that is asked this once in place of the owner.
    fn node(self) -> Option<Arc<Node>> {
        match self {
            Self::Again(node) => node,
            Self::Done | Self::AgainWhenSurveyed | Self::AgainLater => None,
        }
    }
}

impl Cluster {
    /// Begins to look for the nodes, and returns at once.
    pub(crate) fn start(
        url: RedisUrl,
        seeds: Vec<Host>,
        options: Options,
        changes: Arc<Changes>,
    ) -> Self {
        Self {
            deadline: options.deadline,
            surveyor: Surveyor::start(url, seeds, options, Arc::clone(&changes)),
            changes,
            redirects: AtomicU64::new(0),
        }
    }

    pub(crate) fn redirects(&self) -> u64 {
        self.redirects.load(Ordering::SeqCst)
    }

    /// The owner of a key, if it is known at once.
    pub(crate) fn owner(&self, key: &[u8]) -> Option<Arc<Node>> {
        self.surveyor.map()?.owner(slot(key))
    }

    /// All masters that own slots, in the order of their hosts.
    pub(crate) async fn all(&self) -> Result<Vec<Arc<Node>>, StoreError> {
        let deadline = Instant::now() + self.deadline;
        Ok(self.surveyor.first_map(deadline).await?.owning())
    }

    /// Waits until all its nodes were connected to; an error if the owner of a key is not.
    pub(crate) async fn reach(&self, key: &[u8], deadline: Instant) -> Result<(), StoreError> {
        let map = self.surveyor.first_map(deadline).await?;
        join_all(map.nodes().iter().map(|node| node.reach(deadline))).await;
        match map.owner(slot(key)) {
            Some(node) => node.reach(deadline).await,
            None => Ok(()),
        }
    }

    pub(crate) fn surveyor(&self) -> &Surveyor {
        &self.surveyor
    }

    /// Sends two reads of one key.
    pub(crate) async fn ask_both(
        &self,
        commands: &[Command<'_>; 2],
    ) -> Result<(Link, [Value; 2]), StoreError> {
        let deadline = Instant::now() + self.deadline;
        let map = self.surveyor.first_map(deadline).await?;
        let node = owner(&map, &commands[0]).inspect_err(|_| {
            self.surveyor.request();
        })?;
        let (link, values) = node.ask_both(commands).await.inspect_err(|error| {
            if *error != StoreError::Busy {
                self.surveyor.request();
            }
        })?;
        let is_error = |value: &Value| matches!(value, Value::Error(_));
        if !values.iter().any(is_error) {
            return Ok((link, values));
        }
        // It may be told to go elsewhere: that was the first time of those that are followed.
        let mut answers = values.map(|value| Answer {
            outcome: Ok(Some(value)),
            link,
        });
        let mut again = Vec::new();
        for (index, (command, answer)) in std::iter::zip(commands, &answers).enumerate() {
            match self.next(&map, &node, command, &answer.outcome) {
                Next::Done => {}
                next => again.push((index, next)),
            }
        }
        self.follow(commands, again, &mut answers, deadline).await;
        let [first, second] = answers;
        let value = |outcome: Outcome| outcome.map(|value| value.unwrap_or(Value::Null));
        Ok((second.link, [value(first.outcome)?, value(second.outcome)?]))
    }

    /// Sends commands by their keys: at once to all their nodes.
    pub(crate) async fn ask(&self, commands: &[Command<'_>]) -> Vec<Answer> {
        let deadline = Instant::now() + self.deadline;
        let map = match self.surveyor.first_map(deadline).await {
            Ok(map) => map,
            Err(error) => return vec![Answer::failed(error); commands.len()],
        };
        let steps = (0..commands.len()).map(|index| Step { index, ask: None });
        let mut answers = vec![Answer::failed(StoreError::NotBegun); commands.len()];
        let again = self
            .round(&map, commands, steps.collect(), &mut answers, None)
            .await;
        self.follow(commands, again, &mut answers, deadline).await;
        answers
    }

    /// Follows commands that are to be sent again, until each is done, has gone too far, or the time is over.
    async fn follow(
        &self,
        commands: &[Command<'_>],
        mut again: Vec<(usize, Next)>,
        answers: &mut [Answer],
        deadline: Instant,
    ) {
        for _ in 0..MOST_REDIRECTS {
            if again.is_empty() {
                return;
            }
            self.wait_for(&again, deadline).await;
            let Some(map) = self.surveyor.map().filter(|_| Instant::now() < deadline) else {
                break;
            };
            let steps = again.into_iter().map(|(index, next)| Step {
                index,
                ask: next.node(),
            });
            let steps = steps.collect();
            again = self
                .round(&map, commands, steps, answers, Some(deadline))
                .await;
        }
        let error = match Instant::now() < deadline {
            true => StoreError::Refused(format!(
                "the Cluster sent it on more than {MOST_REDIRECTS} times"
            )),
            // All it has is a refusal: nothing happened.
            false => StoreError::NotBegun,
        };
        for (index, _) in again {
            answers[index] = Answer::failed(error.clone());
        }
    }

    /// Waits once for what all of them wait for.
    async fn wait_for(&self, again: &[(usize, Next)], deadline: Instant) {
        let any = |wanted: fn(&Next) -> bool| again.iter().any(|(_, next)| wanted(next));
        if any(|next| matches!(next, Next::AgainWhenSurveyed)) {
            self.surveyor.surveyed(deadline).await;
        } else if any(|next| matches!(next, Next::AgainLater)) {
            tokio::time::sleep(TRY_AGAIN).await;
        }
    }

    /// Sends commands to their nodes, and says which are to be sent again.
    async fn round(
        &self,
        map: &Map,
        commands: &[Command<'_>],
        steps: Vec<Step>,
        answers: &mut [Answer],
        deadline: Option<Instant>,
    ) -> Vec<(usize, Next)> {
        let mut batches: Vec<Batch> = Vec::new();
        for step in steps {
            let node = match &step.ask {
                Some(node) => Arc::clone(node),
                None => match owner(map, &commands[step.index]) {
                    Ok(node) => node,
                    Err(error) => {
                        self.surveyor.request();
                        answers[step.index] = Answer::failed(error);
                        continue;
                    }
                },
            };
            match batches
                .iter_mut()
                .find(|batch| Arc::ptr_eq(&batch.node, &node))
            {
                Some(batch) => batch.steps.push(step),
                None => batches.push(Batch {
                    node,
                    steps: vec![step],
                }),
            }
        }
        let answered = join_all(batches.iter().map(|batch| batch.ask(commands, deadline)));
        let mut again = Vec::new();
        for (batch, answered) in std::iter::zip(&batches, answered.await) {
            for (step, answer) in std::iter::zip(&batch.steps, answered) {
                match self.next(map, &batch.node, &commands[step.index], &answer.outcome) {
                    Next::Done => {}
                    next => again.push((step.index, next)),
                }
                answers[step.index] = answer;
            }
        }
        again
    }

    /// What comes after a node's answer. Only what was certainly not done is sent again.
    fn next(&self, map: &Map, node: &Arc<Node>, command: &Command<'_>, outcome: &Outcome) -> Next {
        let error = match outcome {
            Ok(Some(Value::Error(error))) => error,
            Ok(_) => return Next::Done,
            Err(StoreError::Busy) => return Next::Done,
            Err(_) => {
                self.surveyor.request();
                return Next::Done;
            }
        };
        let asked = node.url().host();
        let Some(refusal) = asked.and_then(|host| Refusal::read(error, &host)) else {
            return Next::Done;
        };
        self.redirects.fetch_add(1, Ordering::SeqCst);
        if matches!(refusal, Refusal::Moved(_)) {
            // Its owner before tells nothing more of the slot's keys.
            self.changes.count_slot(slot(command.key()));
        }
        match refusal {
            // Where a slot is on its way, what is to be done in one step can't be: whoever asked does it in two.
            Refusal::Ask(_) | Refusal::TryAgain if command.is_one_step() => Next::Done,
            Refusal::Moved(host) => match map.place(&host) {
                Some(place) => {
                    map.settle(slot(command.key()), place);
                    self.surveyor.request();
                    Next::Again(None)
                }
                None => Next::AgainWhenSurveyed,
            },
            Refusal::Ask(host) => match map.node(&host) {
                Some(node) => Next::Again(Some(node)),
                None => Next::AgainWhenSurveyed,
            },
            Refusal::TryAgain => Next::AgainLater,
            Refusal::Down => {
                self.surveyor.request();
                Next::Done
            }
            Refusal::ReadOnly => {
                node.greet_again("it is a replica now");
                self.surveyor.request();
                Next::Done
            }
        }
    }
}

impl Batch {
    /// Sends what is to go there, and answers for each step. With a deadline: by then; else within the node's own.
    async fn ask(&self, commands: &[Command<'_>], deadline: Option<Instant>) -> Vec<Answer> {
        let mut all = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            let command = commands[step.index];
            if step.ask.is_none() {
                all.push(command);
                continue;
            }
            all.push(Command::new(ASKING, Expect::Ok));
            // Only what comes next to it is served. Its proof, if it has one, is of the node that sent it on, over whose link it does not
            // come.
            all.push(command.noted(false));
            // Where its guard stops the command, ASKING must not count for what comes next.
            all.push(Command::new(PING, Expect::Text));
        }
        let answered = match deadline {
            None => self.node.ask_over(&all).await,
            Some(deadline) => by(deadline, self.node.ask_over(&all))
                .await
                .unwrap_or(Err(StoreError::TimedOut)),
        };
        let (link, values) = match answered {
            Err(error) => return vec![Answer::failed(error); self.steps.len()],
            Ok(answered) => answered,
        };
        let mut values = values.into_iter();
        let answer = |step: &Step| {
            let value = match step.ask {
                None => values.next().flatten(),
                Some(_) => {
                    let value = values.nth(1).flatten();
                    values.next();
                    value
                }
            };
            Answer {
                link,
                outcome: Ok(value),
            }
        };
        self.steps.iter().map(answer).collect()
    }
}

fn owner(map: &Map, command: &Command<'_>) -> Result<Arc<Node>, StoreError> {
    let slot = slot(command.key());
    map.owner(slot)
        .ok_or_else(|| StoreError::Away(format!("slot {slot} of the Cluster has no master")))
}
