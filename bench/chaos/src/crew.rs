//! The workers: started, told what to do, stopped, killed, and started anew.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use larder_testing::host::Host;
use rustix::process::{Pid, Signal, kill_process};

use crate::event;
use crate::instant::{Nanos, now};
use crate::judge::Witness;
use crate::orders::{Ended, Mix, Numbered, Order, Said};

/// What takes longer hangs: a load's time, and much besides.
const PATIENCE: Duration = Duration::from_secs(25);

/// How the workers of a round are started.
#[derive(Debug, Clone)]
pub(crate) struct Hiring {
    pub(crate) folder: PathBuf,
    pub(crate) seed: u64,
    pub(crate) without: Option<String>,
}

/// Where a worker runs, and over which store.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) store: String,
    host: Host,
    /// How far its monotonic clock is ahead of this process's, in seconds.
    pub(crate) clock_offset: i64,
    /// Whether the store can't be had there at first.
    pub(crate) is_refused: bool,
}

impl Place {
    pub(crate) fn new(store: String, host: Host) -> Self {
        Self {
            store,
            host,
            clock_offset: 0,
            is_refused: false,
        }
    }
}

/// All workers of a round.
pub(crate) struct Crew {
    hiring: Hiring,
    posts: Vec<Post>,
    /// All processes there were.
    lives: Vec<Life>,
    mix: Option<Mix>,
}

/// A worker's place, whoever has it.
struct Post {
    place: Place,
    has_l1: bool,
    process: Option<Process>,
}

/// What there was of a process.
struct Life {
    worker: usize,
    has_l1: bool,
    log: PathBuf,
    killed: Option<Nanos>,
    /// From when to when it was stopped.
    stops: Vec<(Nanos, Nanos)>,
}

struct Process {
    child: Child,
    /// Which of all lives it is.
    life: usize,
    stopped: Option<Nanos>,
    orders: ChildStdin,
    said: Receiver<Said>,
    early: HashMap<u64, Ended>,
    next: u64,
}

/// An order that is under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told {
    worker: usize,
    number: u64,
}

impl Crew {
    /// Starts a worker in each of these places; every second one has no L1.
    pub(crate) fn hire(hiring: Hiring, places: Vec<Place>) -> anyhow::Result<Self> {
        let mut crew = Self {
            hiring,
            posts: Vec::new(),
            lives: Vec::new(),
            mix: None,
        };
        for (worker, place) in places.into_iter().enumerate() {
            let (has_l1, is_refused) = (worker % 2 == 0, place.is_refused);
            crew.posts.push(Post {
                place,
                has_l1,
                process: None,
            });
            match is_refused {
                true => crew.start_refused(worker)?,
                false => crew.start(worker)?,
            }
        }
        Ok(crew)
    }

    pub(crate) fn len(&self) -> usize {
        self.posts.len()
    }

    /// Starts a worker (anew), and waits until it is ready. It goes on with the mix, if there is one.
    pub(crate) fn start(&mut self, worker: usize) -> anyhow::Result<()> {
        match self.launch(worker)? {
            Ended::Done => Ok(()),
            _ => bail!("worker {worker} has no store"),
        }
    }

    /// Starts one that can't have the store, and works without.
    pub(crate) fn start_refused(&mut self, worker: usize) -> anyhow::Result<()> {
        match self.launch(worker)? {
            Ended::Pending => Ok(()),
            // Then the judge must see what comes of it.
            _ if self.hiring.without.is_some() => Ok(()),
            _ => bail!("worker {worker} has a store that it must not share"),
        }
    }

    fn launch(&mut self, worker: usize) -> anyhow::Result<Ended> {
        let number = self.lives.len();
        let log = self.hiring.folder.join(format!("{number}.log"));
        let post = self
            .posts
            .get_mut(worker)
            .context("there is no such worker")?;
        let seed = self
            .hiring
            .seed
            .wrapping_mul(31)
            .wrapping_add(number as u64);
        let mut command = post.place.host.command(std::env::current_exe()?);
        command
            .arg("worker")
            .args(["--store", &post.place.store])
            .arg("--journal")
            .arg(self.hiring.folder.join("journal"))
            .arg("--log")
            .arg(&log)
            .args(["--l1-bytes", if post.has_l1 { "8388608" } else { "0" }])
            .args(["--seed", &seed.to_string()])
            .arg(format!("--clock-offset={}", post.place.clock_offset));
        if let Some(guard) = &self.hiring.without {
            command.args(["--without", guard]);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("a worker can't be started")?;
        let orders = child.stdin.take().context("its input")?;
        let lines = BufReader::new(child.stdout.take().context("its output")?).lines();
        let (send, said) = channel();
        std::thread::spawn(move || {
            let all = lines.map_while(Result::ok);
            for one in all.filter_map(|line| serde_json::from_str(&line).ok()) {
                if send.send(one).is_err() {
                    return;
                }
            }
        });
        self.lives.push(Life {
            worker,
            has_l1: post.has_l1,
            log,
            killed: None,
            stops: Vec::new(),
        });
        post.process = Some(Process {
            child,
            life: number,
            stopped: None,
            orders,
            said,
            early: HashMap::new(),
            next: 1,
        });
        let ready = self.wait(Told { worker, number: 0 })?;
        if let Some(mix) = self.mix {
            self.ask(worker, Order::Mix(mix))?;
        }
        Ok(ready)
    }

    fn process(&mut self, worker: usize) -> anyhow::Result<&mut Process> {
        let post = self
            .posts
            .get_mut(worker)
            .context("there is no such worker")?;
        post.process.as_mut().context("the worker does not run")
    }

    /// Tells a worker something, without waiting until it is done.
    pub(crate) fn tell(&mut self, worker: usize, order: Order) -> anyhow::Result<Told> {
        let process = self.process(worker)?;
        let number = process.next;
        process.next += 1;
        let line = serde_json::to_string(&Numbered { number, order })? + "\n";
        process.orders.write_all(line.as_bytes())?;
        Ok(Told { worker, number })
    }

    /// Waits until an order was carried out.
    pub(crate) fn wait(&mut self, told: Told) -> anyhow::Result<Ended> {
        let process = self.process(told.worker)?;
        let begin = Instant::now();
        loop {
            if let Some(ended) = process.early.remove(&told.number) {
                return Ok(ended);
            }
            let left = PATIENCE.saturating_sub(begin.elapsed());
            match process.said.recv_timeout(left) {
                Ok(said) => {
                    process.early.insert(said.number, said.ended);
                }
                Err(RecvTimeoutError::Timeout) => bail!("worker {} hangs", told.worker),
                Err(RecvTimeoutError::Disconnected) => bail!("worker {} died", told.worker),
            }
        }
    }

    /// Tells a worker something, and waits until it is done.
    pub(crate) fn ask(&mut self, worker: usize, order: Order) -> anyhow::Result<Ended> {
        let told = self.tell(worker, order)?;
        self.wait(told)
    }

    /// Tells all, and waits.
    pub(crate) fn ask_all(&mut self, order: &Order) -> anyhow::Result<()> {
        for worker in 0..self.len() {
            if self.process(worker).is_ok() {
                self.ask(worker, order.clone())?;
            }
        }
        Ok(())
    }

    /// Asks again and again until an invalidation is done.
    pub(crate) fn insist(&mut self, worker: usize, order: &Order) -> anyhow::Result<()> {
        let begin = Instant::now();
        while self.ask(worker, order.clone())? != Ended::Done {
            if begin.elapsed() > PATIENCE {
                bail!("an invalidation stays pending: {order:?}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// All begin to use the cache at random; also those that are started later.
    pub(crate) fn mix(&mut self, mix: Mix) -> anyhow::Result<()> {
        self.mix = Some(mix);
        self.ask_all(&Order::Mix(mix))
    }

    fn signal(&mut self, worker: usize, signal: Signal) -> anyhow::Result<()> {
        let child = &self.process(worker)?.child;
        let pid = Pid::from_raw(i32::try_from(child.id())?).context("a pid")?;
        Ok(kill_process(pid, signal)?)
    }

    /// `SIGSTOP`.
    pub(crate) fn stop(&mut self, worker: usize) -> anyhow::Result<()> {
        self.signal(worker, Signal::STOP)?;
        self.process(worker)?.stopped = Some(now());
        Ok(())
    }

    /// `SIGCONT`.
    pub(crate) fn go_on(&mut self, worker: usize) -> anyhow::Result<()> {
        let end = now();
        self.signal(worker, Signal::CONT)?;
        let process = self.process(worker)?;
        let (life, stopped) = (process.life, process.stopped.take());
        if let (Some(life), Some(begin)) = (self.lives.get_mut(life), stopped) {
            life.stops.push((begin, end));
        }
        Ok(())
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self, worker: usize) -> anyhow::Result<()> {
        let post = self
            .posts
            .get_mut(worker)
            .context("there is no such worker")?;
        if let Some(mut process) = post.process.take() {
            process.child.kill()?;
            process.child.wait()?;
            // Behind another program it ends a moment after that; with it the last end of its output is closed.
            while process.said.recv().is_ok() {}
            if let Some(life) = self.lives.get_mut(process.life) {
                life.killed = Some(now());
            }
        }
        Ok(())
    }

    /// `kill -9` of all.
    pub(crate) fn kill_all(&mut self) -> anyhow::Result<()> {
        (0..self.len()).try_for_each(|worker| self.kill(worker))
    }

    /// All end what they do, and what they saw is read.
    pub(crate) fn dismiss(mut self) -> anyhow::Result<Vec<Witness>> {
        self.ask_all(&Order::Rest)?;
        for post in &mut self.posts {
            if let Some(mut process) = post.process.take() {
                drop(process.orders);
                process.child.wait()?;
            }
        }
        let witness = |life: Life| {
            Ok(Witness {
                events: event::read(&life.log)?,
                worker: life.worker,
                has_l1: life.has_l1,
                killed: life.killed,
                stops: life.stops,
            })
        };
        std::mem::take(&mut self.lives)
            .into_iter()
            .map(witness)
            .collect()
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for post in &mut self.posts {
            if let Some(mut process) = post.process.take() {
                let _ = process.child.kill();
                let _ = process.child.wait();
            }
        }
    }
}
