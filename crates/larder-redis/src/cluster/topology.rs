//! Who owns which slot of a Cluster, made out of what its nodes tell: pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::cluster::redirect::read_host;
use crate::cluster::slots::SLOTS;
use crate::resp::Value;
use crate::url::hosts::Host;

/// More nodes than a Cluster may have are not believed.
const MOST_NODES: usize = 1_000;
/// Slots that nobody owns.
const NOBODY: u16 = u16::MAX;

/// From which node to which, by their ids.
pub(crate) type Moves = BTreeSet<(String, String)>;

/// What one node tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct View {
    nodes: Vec<Told>,
    /// What leaves the teller, and what it takes in.
    moving: Moves,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    id: String,
    host: Host,
    is_master: bool,
    is_failed: bool,
    /// Of two who say that a slot is theirs, the one with the greater epoch is right.
    epoch: u64,
    slots: Vec<(u16, u16)>,
}

impl View {
    /// Reads what a node answered to `CLUSTER NODES` and `CLUSTER SLOTS`. The first has everything but by which name a
    /// node wants to be called; `None` if it is neither.
    pub(crate) fn read(nodes: &Value, slots: &Value, teller: &Host) -> Option<Self> {
        let Value::Text(text) = nodes else {
            return None;
        };
        let names = names(slots, teller);
        let mut view = Self {
            nodes: Vec::new(),
            moving: Moves::new(),
        };
        for line in std::str::from_utf8(text).ok()?.lines().take(MOST_NODES) {
            view.read_line(line, &names, teller)?;
        }
        Some(view).filter(|view| !view.nodes.is_empty())
    }

    fn read_line(&mut self, line: &str, names: &Names, teller: &Host) -> Option<()> {
        let fields: Vec<&str> = line.split(' ').collect();
        let [id, address, flags, _, _, _, epoch, _, slots @ ..] = &fields[..] else {
            return None;
        };
        let flags: Vec<&str> = flags.split(',').collect();
        if flags.contains(&"handshake") || flags.contains(&"noaddr") {
            return Some(());
        }
        let is_me = flags.contains(&"myself");
        let mut told = Told {
            id: (*id).to_owned(),
            host: names.of(id, address, teller)?,
            is_master: flags.contains(&"master"),
            is_failed: flags.contains(&"fail"),
            epoch: epoch.parse().ok()?,
            slots: Vec::new(),
        };
        for range in slots {
            if let Some(moving) = range.strip_prefix('[') {
                let moving = moving.trim_end_matches(']');
                if let Some((_, to)) = moving.split_once("->-").filter(|_| is_me) {
                    self.moving.insert(((*id).to_owned(), to.to_owned()));
                } else if let Some((_, from)) = moving.split_once("-<-").filter(|_| is_me) {
                    self.moving.insert((from.to_owned(), (*id).to_owned()));
                }
                continue;
            }
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
            if first > last || last >= SLOTS {
                return None;
            }
            told.slots.push((first, last));
        }
        self.nodes.push(told);
        Some(())
    }
}

/// By which name nodes want to be called.
struct Names {
    by_id: HashMap<String, Host>,
}

impl Names {
    /// A node's host: as `CLUSTER SLOTS` has it, or, for one without slots, as the others are called: by their host names
    /// or by their numbers.
    fn of(&self, id: &str, address: &str, teller: &Host) -> Option<Host> {
        if let Some(host) = self.by_id.get(id) {
            return Some(host.clone());
        }
        // ip:port@bus[,hostname[,…]]
        let (address, others) = address.split_once('@').unwrap_or((address, ""));
        let mut host = read_host(address, teller)?;
        let hostname = others.split(',').nth(1).filter(|name| !name.is_empty());
        let is_number = |host: &Host| host.name.parse::<std::net::IpAddr>().is_ok();
        if let Some(hostname) = hostname
            && !self.by_id.is_empty()
            && !self.by_id.values().any(is_number)
        {
            host.name = hostname.to_owned();
        }
        Some(host)
    }
}

fn names(slots: &Value, teller: &Host) -> Names {
    let mut by_id = HashMap::new();
    let ranges = match slots {
        Value::Array(ranges) => &ranges[..],
        _ => &[],
    };
    for range in ranges {
        let Value::Array(parts) = range else {
            continue;
        };
        for node in parts.iter().skip(2) {
            let Value::Array(node) = node else {
                continue;
            };
            let [name, Value::Integer(port), Value::Text(id), ..] = &node[..] else {
                continue;
            };
            let name = match name {
                Value::Text(name) => String::from_utf8_lossy(name),
                // The name under which the teller itself was reached.
                _ => "".into(),
            };
            if let Some(host) = read_host(&format!("{name}:{port}"), teller) {
                by_id.insert(String::from_utf8_lossy(id).into_owned(), host);
            }
        }
    }
    Names { by_id }
}

/// A master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Master {
    pub(crate) id: String,
    pub(crate) host: Host,
    epoch: u64,
}

/// The masters of a Cluster, and which slot is whose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Topology {
    /// In the order of their hosts.
    pub(crate) masters: Vec<Master>,
    /// For each slot its owner's place among the masters.
    owners: Vec<u16>,
    /// The replicas that are there.
    pub(crate) replicas: Vec<Host>,
    moving: Moves,
}

impl Topology {
    /// Puts together what several nodes tell. A host that is not known yet belongs to the Cluster if more than half of
    /// them say so: a single one can't send us, and our password, to where it likes.
    pub(crate) fn agreed(views: &[View], is_known: impl Fn(&Host) -> bool) -> Self {
        let mut votes: HashMap<&Host, usize> = HashMap::new();
        for view in views {
            let hosts: BTreeSet<&Host> = view.nodes.iter().map(|told| &told.host).collect();
            for host in hosts {
                *votes.entry(host).or_default() += 1;
            }
        }
        let belongs = |host: &Host| {
            is_known(host) || votes.get(host).is_some_and(|votes| votes * 2 > views.len())
        };
        let all = || {
            let nodes = views.iter().flat_map(|view| &view.nodes);
            nodes.filter(|told| belongs(&told.host))
        };
        // What a node is, by the newest word on it.
        let mut newest: BTreeMap<&str, &Told> = BTreeMap::new();
        for told in all() {
            let known = newest.entry(&told.id).or_insert(told);
            if told.epoch > known.epoch {
                *known = told;
            }
        }
        let mut masters: Vec<Master> = newest
            .values()
            .filter(|told| told.is_master && !(told.is_failed && told.slots.is_empty()))
            .map(|told| Master {
                id: told.id.clone(),
                host: told.host.clone(),
                epoch: told.epoch,
            })
            .collect();
        masters.sort_by(|one, other| one.host.cmp(&other.host));
        masters.truncate(MOST_NODES);
        let places: HashMap<&str, u16> = std::iter::zip(&masters, 0..)
            .map(|(master, place)| (&master.id[..], place))
            .collect();
        let mut owners = vec![NOBODY; usize::from(SLOTS)];
        let mut epochs = vec![0; usize::from(SLOTS)];
        for told in all().filter(|told| told.is_master) {
            let Some(place) = places.get(&told.id[..]) else {
                continue;
            };
            for slot in told.slots.iter().flat_map(|(first, last)| *first..=*last) {
                let slot = usize::from(slot);
                if owners[slot] == NOBODY || told.epoch > epochs[slot] {
                    (owners[slot], epochs[slot]) = (*place, told.epoch);
                }
            }
        }
        let replicas = newest
            .values()
            .filter(|told| !told.is_master && !told.is_failed)
            .map(|told| told.host.clone());
        Self {
            replicas: replicas.take(MOST_NODES).collect(),
            moving: views.iter().flat_map(|view| view.moving.clone()).collect(),
            masters,
            owners,
        }
    }

    /// For each slot its owner's place among the masters.
    pub(crate) fn owners(&self) -> impl Iterator<Item = Option<usize>> {
        self.owners
            .iter()
            .map(|place| (*place != NOBODY).then_some(usize::from(*place)))
    }

    /// The places of those who own slots.
    pub(crate) fn owning(&self) -> BTreeSet<usize> {
        self.owners().flatten().collect()
    }

    fn owner_ids(&self) -> impl Iterator<Item = &str> {
        self.owners()
            .map(|place| place.map_or("", |place| &self.masters[place].id))
    }

    /// The slots that have another owner.
    pub(crate) fn moved_since(&self, before: &Self) -> impl Iterator<Item = u16> {
        let owners = std::iter::zip(before.owner_ids(), self.owner_ids());
        let slots = std::iter::zip(0..SLOTS, owners);
        slots.filter_map(|(slot, (from, to))| (from != to).then_some(slot))
    }

    /// From where to where keys may have gone since: slots that have another owner, or are on their way.
    pub(crate) fn moves_since(&self, before: &Self) -> Moves {
        let mut moves: Moves = self.moving.union(&before.moving).cloned().collect();
        for (from, to) in std::iter::zip(before.owner_ids(), self.owner_ids()) {
            if from != to {
                moves.insert((from.to_owned(), to.to_owned()));
            }
        }
        moves
    }

    /// An order of the masters in which whoever gives keys away comes before who takes them: a scan of one after the other
    /// then meets a key also if it moves meanwhile.
    pub(crate) fn scan_order(&self, moves: &Moves) -> Vec<String> {
        let mut left: Vec<&str> = self.masters.iter().map(|master| &master.id[..]).collect();
        let mut order = Vec::with_capacity(left.len());
        while !left.is_empty() {
            let takes_none = |to: &&str| {
                let gives = |from: &str| from != *to && left.contains(&from);
                let mut moves = self.moving.union(moves);
                !moves.any(|(from, into)| into == to && gives(from))
            };
            // In a circle nobody comes first.
            let next = left.iter().position(takes_none).unwrap_or(0);
            order.push(left.remove(next).to_owned());
        }
        order
    }

    /// Whether scans in this order, begun after `before` and ended before this was told, met every key that was there
    /// all the time.
    pub(crate) fn is_covered_by(&self, order: &[String], before: &Self) -> bool {
        let place = |id: &str| order.iter().position(|scanned| scanned == id);
        let moves = self.moves_since(before);
        let is_forward = |(from, to): &(String, String)| match (place(from), place(to)) {
            (Some(from), Some(to)) => from < to,
            _ => false,
        };
        // An epoch grows by slots that come, and by a failover: one that was taken back in between leaves no other trace.
        let is_calm = |master: &Master| {
            let was = before.masters.iter().find(|was| was.id == master.id);
            was.is_some_and(|was| was.epoch == master.epoch)
                || moves.iter().any(|(_, to)| *to == master.id)
                || was.is_none()
        };
        moves.iter().all(is_forward) && self.masters.iter().all(is_calm)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn host(port: u16) -> Host {
        Host {
            name: "10.0.0.1".to_owned(),
            port,
        }
    }

    /// What the node of a port tells; a line of `flags epoch slots` for each node, at the ports from 1 on.
    fn view(teller: u16, lines: &[&str]) -> View {
        let lines: Vec<String> = std::iter::zip(lines, 1..)
            .map(|(line, port)| {
                let (flags, rest) = line.split_once(' ').unwrap();
                let me = if port == teller { "myself," } else { "" };
                format!("id{port} 10.0.0.1:{port}@1 {me}{flags} - 0 0 {rest}")
            })
            .collect();
        let nodes = Value::Text(Bytes::from(lines.join("\n")));
        View::read(&nodes, &Value::Array(Vec::new()), &host(teller)).unwrap()
    }

    fn agreed(views: &[View]) -> Topology {
        Topology::agreed(views, |_| false)
    }

    fn owner(topology: &Topology, slot: usize) -> &str {
        topology.owner_ids().nth(slot).unwrap()
    }

    const REST: [&str; 3] = [
        "master 1 connected 0-99",
        "master 2 connected 100-199 300",
        "slave 2 connected",
    ];

    #[test]
    fn slots_have_the_owners_that_nodes_tell() {
        let topology = agreed(&[view(1, &REST)]);
        let owners = [0, 99, 100, 199, 200, 300].map(|slot| owner(&topology, slot));
        assert_eq!(owners, ["id1", "id1", "id2", "id2", "", "id2"]);
        assert_eq!(topology.replicas, [host(3)]);
        assert_eq!(topology.owning(), [0, 1].into());
        let one = agreed(&[view(1, &["master 1 connected", "master 2 connected 5"])]);
        assert_eq!(one.owning(), [1].into());
    }

    #[test]
    fn of_two_words_on_a_slot_the_newer_counts() {
        let new = [
            "master,fail 1 connected",
            "master 2 connected 100-199 300",
            "master 3 connected 0-99",
        ];
        let old = [
            "master 1 connected 0-99",
            "master 2 connected 100-199",
            REST[2],
        ];
        for views in [
            [view(1, &old), view(2, &new), view(3, &new)],
            [view(3, &new), view(2, &new), view(1, &old)],
        ] {
            assert_eq!(owner(&agreed(&views), 7), "id3");
        }
        // The old master, which is a replica now and does not know it yet.
        let demoted = ["slave 3 connected", new[1], new[2]];
        let topology = agreed(&[view(1, &old), view(2, &demoted)]);
        let masters: Vec<&str> = topology
            .masters
            .iter()
            .map(|master| &master.id[..])
            .collect();
        assert_eq!(masters, ["id2", "id3"]);
    }

    #[test]
    fn a_host_that_one_of_three_tells_does_not_belong() {
        let lying = [
            REST[0],
            "master 2 connected 100",
            "slave 2 connected",
            "master 9 connected 0-99",
        ];
        let views = [view(1, &REST), view(2, &REST), view(3, &lying)];
        let topology = agreed(&views);
        assert_eq!(owner(&topology, 7), "id1");
        assert!(topology.masters.iter().all(|master| master.host != host(4)));
        let known = Topology::agreed(&views, |known| *known == host(4));
        assert_eq!(
            owner(&known, 7),
            "id4",
            "a host that we know may be told by one"
        );
    }

    #[test]
    fn what_no_node_says_is_not_read() {
        for line in [
            "",
            "id",
            "id 10.0.0.1:1@1 master - 0 0 x connected",
            "id 10.0.0.1:1@1 master - 0 0 1 connected 16384",
            "id 10.0.0.1:1@1 master - 0 0 1 connected 9-3",
            "id 10.0.0.1:0@1 master - 0 0 1 connected",
        ] {
            let nodes = Value::Text(Bytes::copy_from_slice(line.as_bytes()));
            assert_eq!(View::read(&nodes, &Value::Null, &host(1)), None, "{line}");
        }
        assert_eq!(View::read(&Value::Null, &Value::Null, &host(1)), None);
    }

    #[test]
    fn nodes_are_called_as_they_want() {
        let text = |text: &'static str| Value::Text(Bytes::from_static(text.as_bytes()));
        let nodes = text(
            "a 10.0.0.1:1@11,one.example master - 0 0 1 connected 0-9\n\
             b 10.0.0.2:2@12,two.example master - 0 0 2 connected\n\
             c :3@13 myself,master - 0 0 3 connected",
        );
        let teller = Host {
            name: "seed.example".to_owned(),
            port: 3,
        };
        let slots = |name: Value| {
            let node = Value::Array(vec![name, Value::Integer(1), text("a")]);
            Value::Array(vec![Value::Array(vec![
                Value::Integer(0),
                Value::Integer(9),
                node,
            ])])
        };
        for (name, expected) in [
            (
                text("one.example"),
                ["one.example:1", "two.example:2", "seed.example:3"],
            ),
            (
                text("10.0.0.1"),
                ["10.0.0.1:1", "10.0.0.2:2", "seed.example:3"],
            ),
            (
                Value::Null,
                ["seed.example:1", "two.example:2", "seed.example:3"],
            ),
        ] {
            let view = View::read(&nodes, &slots(name), &teller).unwrap();
            let called: Vec<String> = view
                .nodes
                .iter()
                .map(|told| told.host.to_string())
                .collect();
            assert_eq!(called, expected);
        }
    }

    #[test]
    fn who_gives_keys_away_is_scanned_before_who_takes_them() {
        let moving = [
            "master 1 connected 0-99 [7-<-id3]",
            REST[1],
            "master 3 connected 7",
        ];
        let before = agreed(&[view(1, &moving)]);
        let order = before.scan_order(&Moves::new());
        assert_eq!(order, ["id2", "id3", "id1"]);
        let done = agreed(&[view(
            1,
            &["master 4 connected 0-99", REST[1], "master 3 connected"],
        )]);
        assert!(done.is_covered_by(&order, &before));
        let other_way = ["id1", "id2", "id3"].map(str::to_owned);
        assert!(!done.is_covered_by(&other_way, &before));
        let circle: Moves = [("id1", "id2"), ("id2", "id1")]
            .map(|(from, to)| (from.to_owned(), to.to_owned()))
            .into();
        assert_eq!(before.scan_order(&circle).len(), 3);
    }

    #[test]
    fn a_scan_during_a_failover_met_not_all() {
        let before = agreed(&[view(1, &REST)]);
        let order = before.scan_order(&Moves::new());
        assert!(before.is_covered_by(&order, &before));
        let promoted = [
            "master,fail 1 connected 0-99",
            "slave 3 connected",
            "master 3 connected 100-199 300",
        ];
        assert!(!agreed(&[view(1, &promoted)]).is_covered_by(&order, &before));
        let and_back = [
            REST[0],
            "master 4 connected 100-199 300",
            "slave 4 connected",
        ];
        assert!(!agreed(&[view(1, &and_back)]).is_covered_by(&order, &before));
    }
}
