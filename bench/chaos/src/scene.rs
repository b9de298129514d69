//! A round's stage: the servers of a store, the workers that use it, and what befalls them.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::ValueEnum;
use larder_testing::redis::{RedisCluster, RedisSentinels, RedisServer};
use tempfile::TempDir;

use crate::crew::{Crew, Hiring};
use crate::instant::{Nanos, now};
use crate::judge::Witness;
use crate::orders::Mix;
use crate::proxy::Proxy;
use crate::random::Random;

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
    Folder,
    Redis(RedisServer),
    Sentinel(RedisSentinels),
    Cluster(RedisCluster),
}

/// A round's stage.
pub(crate) struct Scene {
    pub(crate) crew: Crew,
    pub(crate) servers: Servers,
    /// Before the store of the last worker, where there can be one.
    pub(crate) proxy: Option<Proxy>,
    pub(crate) random: Random,
    until: Instant,
    pub(crate) fault_ends: Vec<Nanos>,
    pub(crate) faults: u64,
    _folder: TempDir,
}

/// So many workers share a store.
const WORKERS: usize = 3;

/// How a round is set up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) store: StoreKind,
    pub(crate) length: Duration,
    pub(crate) seed: u64,
    pub(crate) without: Option<&'static str>,
    pub(crate) has_proxy: bool,
}

impl Scene {
    pub(crate) fn set(setting: Setting) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("larder-chaos-").tempdir()?;
        let mut proxy = None;
        let (servers, url) = match setting.store {
            StoreKind::InProcess => (Servers::None, "in-process".to_owned()),
            StoreKind::Embedded => {
                let store = folder.path().join("store").display().to_string();
                (Servers::Folder, store)
            }
            StoreKind::Redis => {
                let server = RedisServer::start();
                if setting.has_proxy {
                    proxy = Some(Proxy::to(server.port())?);
                }
                let url = server.url();
                (Servers::Redis(server), url)
            }
            StoreKind::Sentinel => {
                let servers = RedisSentinels::start();
                let url = servers.url();
                (Servers::Sentinel(servers), url)
            }
            StoreKind::Cluster => {
                let cluster = RedisCluster::start();
                let url = cluster.url();
                (Servers::Cluster(cluster), url)
            }
        };
        let workers = match setting.store {
            StoreKind::InProcess => 1,
            _ => WORKERS,
        };
        let mut stores = vec![url; workers];
        if let (Some(proxy), Some(last)) = (&proxy, stores.last_mut()) {
            *last = proxy.url();
        }
        let hiring = Hiring {
            folder: folder.path().to_owned(),
            seed: setting.seed,
            without: setting.without,
        };
        Ok(Self {
            crew: Crew::hire(hiring, stores)?,
            servers,
            proxy,
            random: Random::new(setting.seed),
            until: Instant::now() + setting.length,
            fault_ends: Vec::new(),
            faults: 0,
            _folder: folder,
        })
    }

    pub(crate) fn redis(&mut self) -> anyhow::Result<&mut RedisServer> {
        match &mut self.servers {
            Servers::Redis(server) => Ok(server),
            _ => anyhow::bail!("this is for a single Redis"),
        }
    }

    pub(crate) fn cluster(&mut self) -> anyhow::Result<&mut RedisCluster> {
        match &mut self.servers {
            Servers::Cluster(cluster) => Ok(cluster),
            _ => anyhow::bail!("this is for a Cluster"),
        }
    }

    pub(crate) fn proxy(&self) -> anyhow::Result<&Proxy> {
        self.proxy.as_ref().context("there is no proxy")
    }

    pub(crate) fn mix(&mut self, mix: Mix) -> anyhow::Result<()> {
        self.crew.mix(mix)
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
        let witnesses = self.crew.dismiss()?;
        Ok((witnesses, self.fault_ends))
    }
}
