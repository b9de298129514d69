//! A master with a replica and three Sentinels that watch over them.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::{RedisServer, free_port, signal, wait_until};
use crate::certificates::{Authority, Signed};
use crate::host::Host;

/// By which name the Sentinels know the master.
const NAME: &str = "mymaster";
/// After how many milliseconds of silence a master is taken for dead, unless it is watched closely.
const CALM_MS: u32 = 30_000;
/// Where a Sentinel is asked that can't be reached by its address.
const SOCKET: &str = "sentinel.sock";

/// A running master, its replica, and three Sentinels.
pub struct RedisSentinels {
    /// The one that was the master first, and its replica.
    pub servers: Vec<RedisServer>,
    sentinels: Vec<Sentinel>,
    /// Of the servers.
    password: Option<String>,
    /// A user of the Sentinels, and a password.
    watcher: Option<(String, String)>,
}

struct Sentinel {
    host: Host,
    child: Child,
    port: u16,
    tls_port: Option<u16>,
    folder: TempDir,
}

impl RedisSentinels {
    /// Starts all of them.
    #[must_use]
    pub fn start() -> Self {
        let here = || Host::here();
        Self::start_on([&here(), &here()], [&here(), &here(), &here()])
    }

    /// Starts the master and its replica on these hosts, and the Sentinels on those.
    #[must_use]
    pub fn start_on(servers: [&Host; 2], sentinels: [&Host; 3]) -> Self {
        Self::start_with((servers, sentinels), &[], "", None, None)
    }

    /// Starts all of them so that they speak TLS with each other, and with who uses [`RedisSentinels::tls_url`].
    #[must_use]
    pub fn start_tls(authority: &Authority, own: &Signed) -> Self {
        let here = &Host::here();
        let tls = tls_settings(authority, own);
        Self::start_with(([here; 2], [here; 3]), &[], "", None, Some(&tls))
    }

    /// Starts them with these arguments for both servers besides, and Sentinels that know this user alone.
    #[must_use]
    pub fn start_as(user: &str, password: &str, arguments: &[&str]) -> Self {
        let lines = format!(
            "user default off\nuser {user} on >{password} allchannels +@all\n\
             sentinel sentinel-user {user}\nsentinel sentinel-pass {password}\n"
        );
        let here = &Host::here();
        Self::start_with(
            ([here; 2], [here; 3]),
            arguments,
            &lines,
            Some((user.to_owned(), password.to_owned())),
            None,
        )
    }

    fn start_with(
        (servers, sentinels): ([&Host; 2], [&Host; 3]),
        arguments: &[&str],
        lines: &str,
        watcher: Option<(String, String)>,
        tls: Option<&[[String; 2]]>,
    ) -> Self {
        let mut arguments = [&["--repl-diskless-sync-delay", "0"], arguments].concat();
        let settings: Vec<(String, &str)> = tls
            .unwrap_or_default()
            .iter()
            .map(|[name, value]| (format!("--{name}"), value.as_str()))
            .collect();
        arguments.extend(settings.iter().flat_map(|(name, value)| [name, *value]));
        let [host, other] = servers.map(Host::address);
        let start = |on: &Host, arguments: &[&str]| {
            let port = tls.map(|_| free_port().to_string());
            let port = port.iter().flat_map(|port| ["--tls-port", port]);
            RedisServer::start_on(
                on,
                &arguments.iter().copied().chain(port).collect::<Vec<_>>(),
            )
        };
        // Where they speak TLS with each other, they are known by that port.
        let port_of = |server: &RedisServer| {
            let port = server.argument("--tls-port").map(str::to_owned);
            port.unwrap_or_else(|| server.port().to_string())
        };
        let master = start(servers[0], &arguments);
        let port = port_of(&master);
        let replica = start(
            servers[1],
            &[&arguments[..], &["--replicaof", host, &port]].concat(),
        );
        wait_until("the replica has all data", || replica.is_in_sync());
        let password = master.argument("--requirepass").map(str::to_owned);
        let ports = [free_port(), free_port(), free_port()];
        let tls_ports = ports.map(|_| tls.map(|_| free_port()));
        let id = |index: usize| format!("{index:040}");
        let sentinels = (0..ports.len()).map(|index| {
            let mut text = format!(
                "port {}\nbind {}\nunixsocket {SOCKET}\nsentinel myid {}\n\
                 sentinel monitor {NAME} {host} {port} 2\n\
                 sentinel down-after-milliseconds {NAME} {CALM_MS}\nsentinel failover-timeout {NAME} 2000\n\
                 sentinel known-replica {NAME} {other} {}\n",
                ports[index],
                sentinels[index].address(),
                id(index),
                port_of(&replica)
            );
            for [name, value] in tls.unwrap_or_default() {
                text += &format!("{name} {value}\n");
            }
            if let Some(port) = tls_ports[index] {
                text += &format!("tls-port {port}\n");
            }
            if let Some(password) = &password {
                text += &format!("sentinel auth-pass {NAME} {password}\n");
            }
            for other in (0..ports.len()).filter(|other| *other != index) {
                let port = tls_ports[other].unwrap_or(ports[other]);
                let (host, id) = (sentinels[other].address(), id(other));
                text += &format!("sentinel known-sentinel {NAME} {host} {port} {id}\n");
            }
            let ports = (ports[index], tls_ports[index]);
            Sentinel::start(sentinels[index], ports, &(text + lines))
        });
        let all = Self {
            sentinels: sentinels.collect(),
            servers: vec![master, replica],
            password,
            watcher,
        };
        for index in 0..ports.len() {
            // A replica of which nothing was heard for three of these is none to promote: not too short for a busy machine.
            let debug = "SENTINEL DEBUG info-period 300 ping-period 300 ask-period 100";
            let debug: Vec<&str> = debug.split(' ').collect();
            wait_until("a Sentinel answers", || {
                all.ask_sentinel(index, &debug) == "OK"
            });
            wait_until("a Sentinel knows all", || {
                let master = all.ask_sentinel(index, &["SENTINEL", "MASTER", NAME]);
                let lines: Vec<&str> = master.lines().collect();
                let is = |name, value| lines.windows(2).any(|pair| pair == [name, value]);
                is("num-other-sentinels", "2") && is("num-slaves", "1") && is("flags", "master")
            });
        }
        all
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_by("redis", |sentinel| sentinel.port)
    }

    /// Its URL by TLS, where it was started so.
    #[must_use]
    pub fn tls_url(&self) -> String {
        self.url_by("rediss", |sentinel| {
            sentinel.tls_port.expect("it was started with TLS")
        })
    }

    fn url_by(&self, scheme: &str, port: impl Fn(&Sentinel) -> u16) -> String {
        let hosts: Vec<String> = self
            .sentinels
            .iter()
            .map(|sentinel| format!("{}:{}", sentinel.host.address(), port(sentinel)))
            .collect();
        let who = self
            .password
            .as_ref()
            .map(|password| format!(":{password}@"));
        let who = who.unwrap_or_default();
        format!("{scheme}+sentinel://{who}{}/{NAME}", hosts.join(","))
    }

    /// What a Sentinel answers to `redis-cli`.
    #[must_use]
    pub fn ask_sentinel(&self, index: usize, command: &[&str]) -> String {
        let mut cli = Command::new("redis-cli");
        let sentinel = &self.sentinels[index];
        match sentinel.host.is_near() {
            true => cli.args(["-p", &sentinel.port.to_string()]),
            false => cli.arg("-s").arg(sentinel.folder.path().join(SOCKET)),
        };
        if let Some((user, password)) = &self.watcher {
            cli.args(["--user", user]).env("REDISCLI_AUTH", password);
        }
        let output = cli.args(command).output().expect("redis-cli is installed");
        String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned()
    }

    /// The port of the master that a Sentinel names.
    #[must_use]
    pub fn master_port(&self, index: usize) -> u16 {
        let named = self.ask_sentinel(index, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME]);
        let port = named.lines().nth(1).and_then(|port| port.parse().ok());
        port.unwrap_or_else(|| panic!("no master is named: {named}"))
    }

    /// From now on a master that says nothing for half a second has a successor soon. Until then a machine that stands still is no
    /// reason for a failover.
    pub fn watch_closely(&self) {
        for index in 0..self.sentinels.len() {
            let watch = ["SENTINEL", "SET", NAME, "down-after-milliseconds", "500"];
            assert_eq!(self.ask_sentinel(index, &watch), "OK");
        }
    }

    /// Begins an orderly failover.
    pub fn fail_over(&self) {
        self.fail_over_by(0);
    }

    /// The same by this Sentinel.
    pub fn fail_over_by(&self, index: usize) {
        // One whose news of the replica are old refuses.
        wait_until("a failover begins", || {
            self.ask_sentinel(index, &["SENTINEL", "FAILOVER", NAME]) == "OK"
        });
    }

    /// Stops a Sentinel in its tracks (`SIGSTOP`).
    pub fn pause_sentinel(&self, index: usize) {
        signal(&self.sentinels[index].child, "-STOP");
    }

    /// `kill -9` of a Sentinel.
    pub fn kill_sentinel(&mut self, index: usize) {
        self.sentinels[index].end();
    }
}

/// What servers and Sentinels are told of TLS alike.
fn tls_settings(authority: &Authority, own: &Signed) -> [[String; 2]; 5] {
    let file = |path: &Path| path.display().to_string();
    [
        ("tls-replication", "yes".to_owned()),
        ("tls-auth-clients", "no".to_owned()),
        ("tls-cert-file", file(&own.certificate)),
        ("tls-key-file", file(&own.key)),
        ("tls-ca-cert-file", file(&authority.certificate())),
    ]
    .map(|(name, value)| [name.to_owned(), value])
}

impl Sentinel {
    fn start(host: &Host, (port, tls_port): (u16, Option<u16>), text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder for a Sentinel");
        let path = folder.path().join("sentinel.conf");
        std::fs::write(&path, text).expect("its settings");
        let child = host
            .command("redis-server")
            .arg(path)
            .arg("--sentinel")
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed (scripts/test does)");
        Self {
            host: host.clone(),
            child,
            port,
            tls_port,
            folder,
        }
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        self.end();
    }
}
