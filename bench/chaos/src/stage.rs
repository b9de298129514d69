//! How a round is set up: servers and workers, and what stands between them.

use std::path::Path;
use std::process::Stdio;

use larder_testing::host::{Disk, Host, WallClock};
use larder_testing::network::Network;
use larder_testing::redis::{RedisCluster, RedisSentinels, RedisServer};

use crate::crew::Place;
use crate::proxy::Proxy;
use crate::scene::{Servers, StoreKind};

/// So many workers share a store.
const WORKERS: usize = 3;
/// Masters of a Cluster; the replica of each comes so many nodes behind it.
pub(crate) const MASTERS: usize = 3;
/// More than the store's files take at first, and less than they may.
const DISK_BYTES: u64 = 4 << 20;

/// What there is besides workers and servers on one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Nothing.
    Plain,
    /// A link of the last worker that can be held up.
    Proxied,
    /// A name for the server, that can become another one's.
    Named,
    /// A machine for each worker and server, whose links can be cut.
    Network,
    /// A small disk for the store.
    SmallDisk,
    /// A PID namespace for the last worker.
    Container,
    /// Time since boot that is another one for each worker.
    OtherClocks,
    /// A wall clock that can be set, for the first worker and the last.
    WorkersWallClock,
    /// The same for the server that is to go by it: the only one, or the replica.
    ServersWallClock,
}

const CONTAINER: &[&str] = &["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
const AN_HOUR: i64 = 3_600;

/// Behind other clocks, by so many seconds.
fn clocks(seconds: i64) -> [String; 7] {
    let seconds = seconds.to_string();
    [
        "unshare".to_owned(),
        "--time".to_owned(),
        "--fork".to_owned(),
        "--kill-child".to_owned(),
        format!("--boottime={seconds}"),
        format!("--monotonic={seconds}"),
        "--".to_owned(),
    ]
}

/// How far the clock of each worker is off, with [`Stage::OtherClocks`]: it can't go behind the machine's start.
fn offsets() -> [i64; WORKERS] {
    let up = i64::try_from(crate::instant::now() / 1_000_000_000).unwrap_or(0);
    [0, AN_HOUR, -AN_HOUR.min(up / 2)]
}

impl Stage {
    /// Why it can't be had here, if so.
    pub(crate) fn missing(self) -> Option<String> {
        match self {
            Self::Plain | Self::Proxied | Self::Named => None,
            Self::Network => Network::make(1).err(),
            Self::SmallDisk => {
                let folder = tempfile::tempdir().ok()?;
                Disk::mount(folder.path().to_owned(), DISK_BYTES).err()
            }
            Self::Container => can_run(CONTAINER),
            Self::OtherClocks => {
                let words = clocks(AN_HOUR);
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                can_run(&words)
            }
            Self::WorkersWallClock | Self::ServersWallClock => WallClock::new().err(),
        }
    }
}

/// Why a program can't be run behind these words, if so.
fn can_run(words: &[&str]) -> Option<String> {
    let mut command = Host::here().behind(words).command("true");
    match command.stderr(Stdio::null()).status() {
        Ok(status) if status.success() => None,
        Ok(_) => Some(format!("this user may not {}", words.join(" "))),
        Err(error) => Some(format!("{} can't be run: {error}", words[0])),
    }
}

/// What was set up.
pub(crate) struct Set {
    pub(crate) servers: Servers,
    pub(crate) props: Props,
    pub(crate) places: Vec<Place>,
}

/// What faults are made with.
#[derive(Default)]
pub(crate) struct Props {
    /// Before the store of the last worker; or of each.
    pub(crate) proxies: Vec<Proxy>,
    pub(crate) network: Option<Network>,
    pub(crate) disk: Option<Disk>,
    pub(crate) wall_clock: Option<WallClock>,
}

/// Sets a stage for a store, whose folder, if it has one, is in this one.
pub(crate) fn set(stage: Stage, store: StoreKind, folder: &Path) -> anyhow::Result<Set> {
    let workers = match store {
        StoreKind::InProcess => 1,
        _ => WORKERS,
    };
    let mut props = Props::default();
    let mut hosts = vec![Host::here(); workers + servers_of(store)];
    dress(stage, workers, &mut hosts, &mut props, folder)?;
    let (hosts, servers) = hosts.split_at(workers);
    let (servers, url) = start(stage, store, servers, folder);
    let mut places: Vec<Place> = hosts
        .iter()
        .map(|host| Place::new(url.clone(), host.clone()))
        .collect();
    match (&servers, stage) {
        (Servers::Redis(server), Stage::Proxied) => {
            let proxy = Proxy::to(server.port())?;
            places[workers - 1].store = proxy.url();
            props.proxies.push(proxy);
        }
        (Servers::Pair([server, _]), _) => {
            for place in &mut places {
                let proxy = Proxy::to(server.port())?;
                place.store = proxy.url();
                props.proxies.push(proxy);
            }
        }
        _ => {}
    }
    // Of one folder the first one is.
    let is_folder = store == StoreKind::Embedded;
    match stage {
        Stage::Container => places[workers - 1].is_refused = is_folder,
        Stage::OtherClocks => {
            for (place, seconds) in std::iter::zip(&mut places, offsets()) {
                place.clock_offset = seconds;
                place.is_refused = is_folder && seconds != 0;
            }
        }
        _ => {}
    }
    Ok(Set {
        servers,
        props,
        places,
    })
}

/// Puts hosts, of the workers and then of the servers, behind what the stage has.
fn dress(
    stage: Stage,
    workers: usize,
    hosts: &mut [Host],
    props: &mut Props,
    folder: &Path,
) -> anyhow::Result<()> {
    match stage {
        Stage::Plain | Stage::Proxied | Stage::Named => {}
        Stage::Network => {
            let network = Network::make(hosts.len()).map_err(anyhow::Error::msg)?;
            for (machine, host) in hosts.iter_mut().enumerate() {
                *host = network.host(machine);
            }
            props.network = Some(network);
        }
        Stage::SmallDisk => {
            let path = folder.join("disk");
            std::fs::create_dir(&path)?;
            let disk = Disk::mount(path, DISK_BYTES).map_err(anyhow::Error::msg)?;
            hosts.fill(disk.host());
            props.disk = Some(disk);
        }
        Stage::Container => hosts[workers - 1] = Host::here().behind(CONTAINER),
        Stage::OtherClocks => {
            for (host, seconds) in std::iter::zip(&mut hosts[..workers], offsets()) {
                if seconds != 0 {
                    let words = clocks(seconds);
                    let words: Vec<&str> = words.iter().map(String::as_str).collect();
                    *host = Host::here().behind(&words);
                }
            }
        }
        Stage::WorkersWallClock | Stage::ServersWallClock => {
            let clock = WallClock::new().map_err(anyhow::Error::msg)?;
            let going = match stage {
                Stage::WorkersWallClock => vec![0, workers - 1],
                // The first server, where there is no replica.
                _ => vec![(workers + 1).min(hosts.len() - 1)],
            };
            for host in going {
                hosts[host] = clock.of(Host::here());
            }
            props.wall_clock = Some(clock);
        }
    }
    Ok(())
}

/// How many hosts the servers of a store have.
fn servers_of(store: StoreKind) -> usize {
    match store {
        StoreKind::InProcess | StoreKind::Embedded => 0,
        StoreKind::Redis => 1,
        // A master, its replica, and one with nothing but a Sentinel; the others have one, too.
        StoreKind::Sentinel => 3,
        StoreKind::Cluster => 2 * MASTERS,
    }
}

fn start(stage: Stage, store: StoreKind, hosts: &[Host], folder: &Path) -> (Servers, String) {
    match store {
        StoreKind::InProcess => (Servers::None, "in-process".to_owned()),
        StoreKind::Embedded => {
            let parent = match stage {
                Stage::SmallDisk => folder.join("disk"),
                _ => folder.to_owned(),
            };
            let folder = parent.join("store");
            let name = folder.display().to_string();
            (Servers::Folder(folder), name)
        }
        StoreKind::Redis if stage == Stage::Named => {
            let first = RedisServer::start();
            let port = first.port().to_string();
            let words = [
                "--repl-diskless-sync-delay",
                "0",
                "--replicaof",
                "127.0.0.1",
                &port,
            ];
            let second = RedisServer::start_with(&words);
            let url = first.url();
            (Servers::Pair([first, second]), url)
        }
        StoreKind::Redis => {
            let server = RedisServer::start_on(&hosts[0], &[]);
            let url = server.url();
            (Servers::Redis(server), url)
        }
        StoreKind::Sentinel => {
            let here = Host::here();
            let sentinels = match stage {
                // They would watch over nothing while their clock jumps.
                Stage::ServersWallClock => [&here; 3],
                _ => [&hosts[0], &hosts[1], &hosts[2]],
            };
            let servers = RedisSentinels::start_on([&hosts[0], &hosts[1]], sentinels);
            let url = servers.url();
            (Servers::Sentinel(servers), url)
        }
        StoreKind::Cluster => {
            let cluster = RedisCluster::start_on(hosts.to_vec(), MASTERS, &[]);
            let url = cluster.url();
            (Servers::Cluster(cluster), url)
        }
    }
}
