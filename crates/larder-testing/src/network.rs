//! A network of machines: namespaces whose links to one bridge can be cut without a word, in one direction too.

// A test whose links can't be cut is to fail.
#![allow(clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};

use crate::host::{Host, Namespace};

/// Machines with an address each, that reach each other and nobody else.
pub struct Network {
    machines: Vec<Namespace>,
    /// Those that drop something.
    dropping: BTreeSet<usize>,
    _bridge: Namespace,
}

impl Network {
    /// Makes one of so many machines.
    ///
    /// # Errors
    /// Why there can be none: root, `ip` and `iptables` are needed.
    pub fn make(machines: usize) -> Result<Self, String> {
        let bridge = Namespace::make("net")?;
        let machines = (0..machines).map(|_| Namespace::make("net"));
        let machines = machines.collect::<Result<Vec<_>, _>>()?;
        let mut words = "link add name bridge type bridge\nlink set bridge up\n".to_owned();
        for (machine, held) in machines.iter().enumerate() {
            let pid = held.pid();
            words += &format!(
                "link add name m{machine} type veth peer name eth0 netns {pid}\nlink set m{machine} master bridge up\n"
            );
        }
        bridge.run("ip", &["-batch", "-"], &words)?;
        for (machine, held) in machines.iter().enumerate() {
            let address = address(machine);
            let words =
                format!("link set lo up\naddr add {address}/24 dev eth0\nlink set eth0 up\n");
            held.run("ip", &["-batch", "-"], &words)?;
        }
        let network = Self {
            machines,
            dropping: BTreeSet::new(),
            _bridge: bridge,
        };
        network.add_rules(0, "")?;
        Ok(network)
    }

    /// Where processes of a machine run.
    #[must_use]
    pub fn host(&self, machine: usize) -> Host {
        self.machines[machine].host().at(address(machine))
    }

    fn add_rules(&self, machine: usize, rules: &str) -> Result<(), String> {
        let table = format!("*filter\n{rules}COMMIT\n");
        self.machines[machine].run("iptables-restore", &["--noflush", "--wait"], &table)
    }

    fn drop_there(&mut self, machine: usize, rules: &str) {
        self.add_rules(machine, rules)
            .expect("iptables worked when the network was made");
        self.dropping.insert(machine);
    }

    /// From now on nothing that the first of a pair sends comes to the second: no word, no reset.
    pub fn cut(&mut self, links: impl IntoIterator<Item = (usize, usize)>) {
        let mut rules: BTreeMap<usize, String> = BTreeMap::new();
        for (from, to) in links {
            let rule = format!("-A INPUT -s {} -j DROP\n", address(from));
            rules.entry(to).or_default().push_str(&rule);
        }
        for (machine, rules) in rules {
            self.drop_there(machine, &rules);
        }
    }

    /// Cuts all links between these machines and all others, in both directions.
    pub fn part(&mut self, some: &[usize]) {
        let others = (0..self.machines.len()).filter(|machine| !some.contains(machine));
        let links = others.flat_map(|other| {
            some.iter()
                .flat_map(move |one| [(*one, other), (other, *one)])
        });
        let links: Vec<(usize, usize)> = links.collect();
        self.cut(links);
    }

    /// From now on nothing goes over the connections from this port of a machine.
    pub fn cut_connection(&mut self, machine: usize, port: u16) {
        let rules = format!(
            "-A INPUT -p tcp --dport {port} -j DROP\n-A OUTPUT -p tcp --sport {port} -j DROP\n"
        );
        self.drop_there(machine, &rules);
    }

    /// All goes its way again; what the machines send once more, too.
    pub fn mend(&mut self) {
        for machine in std::mem::take(&mut self.dropping) {
            self.machines[machine]
                .run("iptables", &["--wait", "--flush"], "")
                .expect("iptables worked when the link was cut");
        }
    }
}

fn address(machine: usize) -> String {
    format!("10.213.0.{}", machine + 1)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::redis::{RedisServer, wait_until};

    #[test]
    fn a_link_is_cut_in_one_direction_or_both() {
        let mut network = match Network::make(3) {
            Ok(network) => network,
            Err(why) => return eprintln!("not tested here: {why}"),
        };
        let server = RedisServer::start_on(&network.host(0), &[]);
        let port = server.port().to_string();
        let ask = |host: &Host, patience: &str| {
            let cli = ["redis-cli", "-h", "10.213.0.1", "-p", &port, "INCR", "n"];
            let asked = host.command("timeout").arg(patience).args(cli).output();
            asked.unwrap().status.success()
        };
        let (one, other) = (network.host(1), network.host(2));
        let counted = || server.cli(&["GET", "n"]);
        assert!(ask(&one, "10") && ask(&other, "10"));
        network.cut([(1, 0)]);
        assert!(!ask(&one, "0.3") && ask(&other, "10"));
        assert_eq!(counted(), "3");
        network.mend();
        assert!(ask(&one, "10"));
        network.part(&[0]);
        assert!(!ask(&one, "0.3") && !ask(&other, "0.3"));
        network.mend();
        assert!(ask(&one, "10") && ask(&other, "10"));
        // What is asked comes, and no answer.
        let mut talk = one.command("redis-cli");
        let mut talk = talk
            .args(["-h", "10.213.0.1", "-p", &port])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let connected = || {
            let clients = server.cli(&["CLIENT", "LIST"]);
            clients.contains("addr=10.213.0.2:")
        };
        wait_until("it is connected", connected);
        let before = counted();
        network.cut([(0, 1)]);
        writeln!(talk.stdin.as_mut().unwrap(), "INCR n").unwrap();
        wait_until("what it asked came", || counted() != before);
        talk.kill().unwrap();
        talk.wait().unwrap();
    }
}
