//! The way to each slot's master.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::cluster::topology::Topology;
use crate::node::Node;
use crate::url::hosts::Host;

/// A slot without a master.
const NOBODY: u16 = u16::MAX;

/// The masters, and which slot is whose: as it was surveyed, and as `MOVED` has told since.
pub(crate) struct Map {
    pub(crate) topology: Topology,
    /// In the order of the topology.
    nodes: Vec<Arc<Node>>,
    places: HashMap<Host, usize>,
    owners: Box<[AtomicU16]>,
}

impl Map {
    /// A map of a topology; `node` gives each master's.
    pub(crate) fn new(topology: Topology, node: impl FnMut(&Host) -> Arc<Node>) -> Self {
        let hosts = || topology.masters.iter().map(|master| &master.host);
        let places = std::iter::zip(hosts().cloned(), 0..).collect();
        let owners = topology.owners().map(|place| {
            let place = place.and_then(|place| u16::try_from(place).ok());
            AtomicU16::new(place.unwrap_or(NOBODY))
        });
        Self {
            nodes: hosts().map(node).collect(),
            owners: owners.collect(),
            places,
            topology,
        }
    }

    /// The master of a slot.
    pub(crate) fn owner(&self, slot: u16) -> Option<Arc<Node>> {
        let place = self.owners[usize::from(slot)].load(Ordering::Relaxed);
        self.nodes.get(usize::from(place)).cloned()
    }

    /// Notes that a slot is another master's.
    pub(crate) fn settle(&self, slot: u16, place: usize) {
        let place = u16::try_from(place).unwrap_or(NOBODY);
        self.owners[usize::from(slot)].store(place, Ordering::Relaxed);
    }

    pub(crate) fn place(&self, host: &Host) -> Option<usize> {
        self.places.get(host).copied()
    }

    pub(crate) fn node(&self, host: &Host) -> Option<Arc<Node>> {
        self.nodes.get(self.place(host)?).cloned()
    }

    /// The master of an id.
    pub(crate) fn node_of(&self, id: &str) -> Option<Arc<Node>> {
        let masters = &self.topology.masters;
        let place = masters.iter().position(|master| master.id == id)?;
        self.nodes.get(place).cloned()
    }

    /// All masters.
    pub(crate) fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    /// The masters that own slots: of the others nobody knows whether they still belong.
    pub(crate) fn owning(&self) -> Vec<Arc<Node>> {
        let owning = self.topology.owning();
        let nodes = self.nodes.iter().enumerate();
        let nodes = nodes.filter(|(place, _)| owning.contains(place));
        nodes.map(|(_, node)| Arc::clone(node)).collect()
    }
}
