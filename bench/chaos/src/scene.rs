//! A round: the servers of a store, the workers that use it, and what befalls them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::ValueEnum;
use larder_testing::host::{Disk, WallClock};
use larder_testing::network::Network;
use larder_testing::redis::{RedisCluster, RedisSentinels, RedisServer};
use tempfile::TempDir;

use crate::crew::{Crew, Hiring};
use crate::event::{Event, What};
use crate::instant::{Nanos, now};
use crate::judge::Witness;
use crate::orders::Mix;
use crate::proxy::Proxy;
use crate::random::Random;
use crate::stage::{self, Props, Stage};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum StoreKind {
    InProcess,
    Embedded,
    Redis,
    Sentinel,
    Cluster,
}

impl StoreKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::InProcess => "in-process",
            Self::Embedded => "embedded",
            Self::Redis => "redis",
            Self::Sentinel => "sentinel",
            Self::Cluster => "cluster",
        }
    }
}

/// Real servers.
pub(crate) enum Servers {
    /// None: each process has its own.
    None,
    /// A folder.
    Folder(PathBuf),
    Redis(RedisServer),
    /// One, and its replica.
    Pair([RedisServer; 2]),
    Sentinel(RedisSentinels),
    Cluster(RedisCluster),
}

/// A round that is under way.
pub(crate) struct Scene {
    pub(crate) crew: Crew,
    pub(crate) servers: Servers,
    props: Props,
    pub(crate) random: Random,
    /// Whether a fault may take a minute.
    pub(crate) is_long: bool,
    until: Instant,
    fault_ends: Vec<Nanos>,
    pub(crate) faults: u64,
    /// What programs did that are not Larder's.
    outside: Vec<Event>,
    _folder: TempDir,
}

/// How a round is set up.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) store: StoreKind,
    pub(crate) stage: Stage,
    pub(crate) length: Duration,
    pub(crate) is_long: bool,
    pub(crate) seed: u64,
    /// The guard that is off.
    pub(crate) without: Option<String>,
}

impl Scene {
    /// A master that is silent for a moment is taken for dead.
    pub(crate) fn watch_closely(&self) {
        match &self.servers {
            Servers::Sentinel(servers) => servers.watch_closely(),
            Servers::Cluster(servers) => servers.watch_closely(),
            Servers::None | Servers::Folder(_) | Servers::Redis(_) | Servers::Pair(_) => {}
        }
    }

    pub(crate) fn set(setting: Setting) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("larder-chaos-").tempdir()?;
        let set = stage::set(setting.stage, setting.store, folder.path())?;
        let hiring = Hiring {
            folder: folder.path().to_owned(),
            seed: setting.seed,
            without: setting.without,
        };
        Ok(Self {
            crew: Crew::hire(hiring, set.places)?,
            servers: set.servers,
            props: set.props,
            random: Random::new(setting.seed),
            is_long: setting.is_long,
            until: Instant::now() + setting.length,
            fault_ends: Vec::new(),
            faults: 0,
            outside: Vec::new(),
            _folder: folder,
        })
    }

    pub(crate) fn redis(&mut self) -> anyhow::Result<&mut RedisServer> {
        match &mut self.servers {
            Servers::Redis(server) => Ok(server),
            _ => anyhow::bail!("this is for a single Redis"),
        }
    }

    pub(crate) fn sentinels(&self) -> anyhow::Result<&RedisSentinels> {
        match &self.servers {
            Servers::Sentinel(servers) => Ok(servers),
            _ => anyhow::bail!("this is for Sentinels"),
        }
    }

    pub(crate) fn cluster(&mut self) -> anyhow::Result<&mut RedisCluster> {
        match &mut self.servers {
            Servers::Cluster(cluster) => Ok(cluster),
            _ => anyhow::bail!("this is for a Cluster"),
        }
    }

    /// The folder of the embedded store.
    pub(crate) fn folder(&self) -> anyhow::Result<&Path> {
        match &self.servers {
            Servers::Folder(folder) => Ok(folder),
            _ => anyhow::bail!("this is for the embedded store"),
        }
    }

    /// The link of the last worker; the first, where all have one.
    pub(crate) fn proxy(&self) -> anyhow::Result<&Proxy> {
        self.proxies().first().context("there is no proxy")
    }

    pub(crate) fn proxies(&self) -> &[Proxy] {
        &self.props.proxies
    }

    pub(crate) fn network(&mut self) -> anyhow::Result<&mut Network> {
        self.props.network.as_mut().context("there is no network")
    }

    /// The machines of the servers: they come behind those of the workers.
    pub(crate) fn server_machines(&self) -> std::ops::Range<usize> {
        let (first, servers) = match &self.servers {
            Servers::Sentinel(_) => (self.crew.len(), 3),
            Servers::Cluster(cluster) => (self.crew.len(), cluster.nodes.len()),
            _ => (self.crew.len(), 1),
        };
        first..first + servers
    }

    pub(crate) fn disk(&self) -> anyhow::Result<&Disk> {
        self.props.disk.as_ref().context("there is no disk")
    }

    pub(crate) fn wall_clock(&self) -> anyhow::Result<&WallClock> {
        let clock = self.props.wall_clock.as_ref();
        clock.context("there is no wall clock")
    }

    pub(crate) fn mix(&mut self, mix: Mix) -> anyhow::Result<()> {
        self.crew.mix(mix)
    }

    /// Another program did something to a key, in this time.
    pub(crate) fn note_outside(&mut self, what: What, key: usize, begin: Nanos) {
        self.outside.push(Event {
            what,
            subject: key as u32,
            begin,
            end: now(),
            load_begin: 0,
            made: 0,
        });
    }

    /// Whether there is time for one more fault of this length.
    pub(crate) fn has_time(&self, millis: u64) -> bool {
        self.faults == 0 || Instant::now() + Duration::from_millis(millis) < self.until
    }

    /// Waits until the round's time is over.
    pub(crate) fn wait_out(&self) {
        std::thread::sleep(self.until.saturating_duration_since(Instant::now()));
    }

    pub(crate) fn pause(&self, millis: u64) {
        std::thread::sleep(Duration::from_millis(millis));
    }

    pub(crate) fn pause_between(&mut self, least: u64, most: u64) {
        let millis = self.random.between(least, most);
        self.pause(millis);
    }

    /// A fault is over.
    pub(crate) fn is_over(&mut self) {
        self.faults += 1;
        self.fault_ends.push(now());
    }

    pub(crate) fn some_worker(&mut self) -> usize {
        let count = self.crew.len();
        self.random.below(count)
    }

    /// Ends the round: what was seen, and when faults ended.
    pub(crate) fn end(self) -> anyhow::Result<(Vec<Witness>, Vec<Nanos>)> {
        let mut witnesses = self.crew.dismiss()?;
        if !self.outside.is_empty() {
            witnesses.push(Witness::outside(self.outside));
        }
        Ok((witnesses, self.fault_ends))
    }
}
