//! A Cluster for a test: masters with a replica each, and slots that can be moved.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::ops::RangeInclusive;

use super::{RedisServer, free_port, wait_until};
use crate::host::Host;

const SLOTS: usize = 16_384;
/// After how many milliseconds of silence a node is taken for dead, where it is watched closely.
const CLOSE_MS: &str = "1000";
/// Where it is not.
const CALM_MS: &str = "30000";

/// A running Cluster.
pub struct RedisCluster {
    /// Its nodes: those that were masters first, then the replica of each, then those that were added.
    pub nodes: Vec<RedisServer>,
    masters: usize,
    arguments: Vec<String>,
    /// Where its nodes run; here, those that are not named.
    hosts: Vec<Host>,
}

impl RedisCluster {
    /// Starts one of three masters with a replica each.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(3, &[])
    }

    /// Starts one of so many masters, with a replica each, and these arguments for each node besides.
    #[must_use]
    pub fn start_with(masters: usize, arguments: &[&str]) -> Self {
        Self::start_on(Vec::new(), masters, arguments)
    }

    /// The same on these hosts: of the masters, then of the replica of each.
    #[must_use]
    pub fn start_on(hosts: Vec<Host>, masters: usize, arguments: &[&str]) -> Self {
        let mut cluster = Self {
            hosts,
            nodes: Vec::new(),
            masters,
            arguments: arguments
                .iter()
                .map(|&argument| argument.to_owned())
                .collect(),
        };
        for _ in 0..masters * 2 {
            cluster.start_node();
        }
        for (index, node) in cluster.nodes.iter().enumerate() {
            let epoch = (index + 1).to_string();
            assert_eq!(node.cli(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]), "OK");
        }
        for master in 0..masters {
            let slots = cluster.slots_of(master);
            let (first, last) = (slots.start().to_string(), slots.end().to_string());
            cluster.nodes[master].cli(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]);
        }
        for index in 1..masters * 2 {
            cluster.meet(index);
        }
        cluster.wait_until_all_know_all();
        for replica in masters..masters * 2 {
            let master = cluster.id(replica - masters);
            let node = &cluster.nodes[replica];
            wait_until("a replica knows its master", || {
                node.cli(&["CLUSTER", "REPLICATE", &master]) == "OK"
            });
        }
        for node in &cluster.nodes[masters..] {
            wait_until("replicas have all data", || node.is_in_sync());
        }
        wait_until("all know that all is well", || {
            cluster.nodes.iter().all(|node| {
                let nodes = node.cli(&["CLUSTER", "NODES"]);
                let info = node.cli(&["CLUSTER", "INFO"]);
                nodes.matches("slave").count() == masters && info.contains("cluster_state:ok")
            })
        });
        cluster.take_for_dead_after(CALM_MS);
        cluster
    }

    /// From now on a node that says nothing for a second is taken for dead by the others. Until then a machine that stands still is
    /// no reason for a failover, unless the node was restarted.
    pub fn watch_closely(&self) {
        self.take_for_dead_after(CLOSE_MS);
    }

    fn take_for_dead_after(&self, milliseconds: &str) {
        for node in &self.nodes {
            // One that was killed does not hear it.
            node.cli(&["CONFIG", "SET", "cluster-node-timeout", milliseconds]);
        }
    }

    fn start_node(&mut self) {
        let (bus, tls) = (free_port().to_string(), free_port().to_string());
        let mut arguments = vec![
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            CLOSE_MS,
            "--repl-diskless-sync-delay",
            "0",
            "--cluster-port",
            &bus,
        ];
        arguments.extend(self.arguments.iter().map(String::as_str));
        if arguments.contains(&"--tls-cluster") {
            arguments.extend(["--tls-port", &tls]);
        }
        let host = self.hosts.get(self.nodes.len()).cloned();
        let host = host.unwrap_or_else(Host::here);
        self.nodes.push(RedisServer::start_on(&host, &arguments));
    }

    fn meet(&self, index: usize) {
        let node = &self.nodes[index];
        let port = node.port().to_string();
        let bus = node.argument("--cluster-port").expect("it was given");
        self.nodes[0].cli(&["CLUSTER", "MEET", node.host().address(), &port, bus]);
    }

    fn wait_until_all_know_all(&self) {
        wait_until("all nodes know each other", || {
            self.nodes.iter().all(|node| {
                let nodes = node.cli(&["CLUSTER", "NODES"]);
                let known = nodes.lines().filter(|line| !line.contains("handshake"));
                known.count() == self.nodes.len()
            })
        });
    }

    /// The slots that a master has at first.
    #[must_use]
    pub fn slots_of(&self, master: usize) -> RangeInclusive<usize> {
        let share = SLOTS / self.masters;
        let last = match master + 1 == self.masters {
            true => SLOTS - 1,
            false => share * (master + 1) - 1,
        };
        share * master..=last
    }

    /// Its URL, which names two of its nodes.
    #[must_use]
    pub fn url(&self) -> String {
        let [one, other] = [&self.nodes[0], &self.nodes[1 % self.masters]]
            .map(|node| format!("{}:{}", node.host().address(), node.port()));
        format!("redis+cluster://{one},{other}")
    }

    /// The same over TLS, for one that was started with `--tls-cluster yes`.
    #[must_use]
    pub fn tls_url(&self) -> String {
        let port = self.nodes[0].argument("--tls-port").expect("it has TLS");
        format!("rediss+cluster://127.0.0.1:{port}")
    }

    /// A node's id.
    #[must_use]
    pub fn id(&self, index: usize) -> String {
        self.nodes[index].cli(&["CLUSTER", "MYID"])
    }

    /// Whether a node says of itself that it is a master.
    #[must_use]
    pub fn is_master(&self, index: usize) -> bool {
        self.nodes[index].cli(&["ROLE"]).starts_with("master")
    }

    /// Adds a master without slots; its index.
    pub fn add(&mut self) -> usize {
        self.start_node();
        let index = self.nodes.len() - 1;
        self.meet(index);
        self.wait_until_all_know_all();
        index
    }

    /// Removes a node without slots, and ends it.
    pub fn remove(&mut self, index: usize) {
        let id = self.id(index);
        wait_until("all know that the node has no slots", || {
            self.nodes.iter().all(|node| {
                let nodes = node.cli(&["CLUSTER", "NODES"]);
                let told = nodes.lines().find(|line| line.starts_with(&id));
                told.is_some_and(|told| told.trim_end().ends_with("connected"))
            })
        });
        let mut node = self.nodes.remove(index);
        for other in &self.nodes {
            other.cli(&["CLUSTER", "FORGET", &id]);
        }
        node.kill();
    }

    /// What moves slots from one node to another.
    #[must_use]
    pub fn mover(&self, from: usize, to: usize) -> Mover {
        Mover {
            source: Talk::with(&self.nodes[from]),
            target: Talk::with(&self.nodes[to]),
            from: self.id(from),
            to: self.id(to),
            port: self.nodes[to].port(),
        }
    }

    /// The slots of keys, as the Cluster tells.
    #[must_use]
    pub fn slots_of_keys<'a>(&self, keys: impl Iterator<Item = &'a str>) -> Vec<usize> {
        let mut talk = Talk::with(&self.nodes[0]);
        keys.map(|key| {
            let slot = talk.say(&format!("CLUSTER KEYSLOT {key}"));
            slot[0].parse().expect("a slot")
        })
        .collect()
    }
}

/// Moves slots from one node to another.
pub struct Mover {
    source: Talk,
    target: Talk,
    from: String,
    to: String,
    port: u16,
}

impl Mover {
    /// Moves a slot, one key at a time; how many it had.
    pub fn move_slot(&mut self, slot: usize) -> usize {
        let Self { from, to, port, .. } = self;
        self.target
            .done(&format!("CLUSTER SETSLOT {slot} IMPORTING {from}"));
        self.source
            .done(&format!("CLUSTER SETSLOT {slot} MIGRATING {to}"));
        let mut moved = 0;
        loop {
            let keys = self.source.say(&format!("CLUSTER GETKEYSINSLOT {slot} 1"));
            let Some(key) = keys.first() else {
                break;
            };
            self.source
                .say(&format!("MIGRATE 127.0.0.1 {port} {key} 0 5000"));
            moved += 1;
        }
        self.target
            .done(&format!("CLUSTER SETSLOT {slot} NODE {to}"));
        let told = self
            .source
            .say(&format!("CLUSTER SETSLOT {slot} NODE {to}"));
        // A master that gave its last slot away, and heard of that from the new owner first, is a replica by now.
        let is_demoted = told == ["ERR Please use SETSLOT only with masters."];
        assert!(is_demoted || told == ["OK"], "{told:?}");
        moved
    }
}

/// A talk with a node, one command and its reply after the other: thousands a second.
struct Talk(BufReader<TcpStream>);

impl Talk {
    fn with(node: &RedisServer) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", node.port())).expect("it is there");
        stream.set_nodelay(true).expect("it is a socket");
        let mut talk = Self(BufReader::new(stream));
        if let Some(password) = node.argument("--requirepass") {
            talk.done(&format!("AUTH {password}"));
        }
        talk
    }

    /// Says a command, and returns what is answered: one text, or several.
    fn say(&mut self, command: &str) -> Vec<String> {
        let stream = self.0.get_mut();
        write!(stream, "{command}\r\n").expect("it listens");
        let first = self.line();
        match first.strip_prefix('*') {
            Some(count) => {
                let count: usize = count.parse().expect("a count");
                (0..count).map(|_| self.text()).collect()
            }
            None => vec![first[1..].to_owned()],
        }
    }

    fn text(&mut self) -> String {
        match self.line().starts_with('$') {
            true => self.line(),
            false => panic!("no text"),
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("it answers");
        line.trim_end().to_owned()
    }

    fn done(&mut self, command: &str) {
        assert_eq!(self.say(command), ["OK"], "{command}");
    }
}
