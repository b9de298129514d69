//! The servers behind a store, and which of them a command goes to.

use std::sync::Arc;

use larder_core::StoreError;
use tokio::time::Instant;

use crate::changes::{Changes, Taken};
use crate::cluster::Cluster;
use crate::cluster::map::Map;
use crate::cluster::topology::Moves;
use crate::command::Command;
use crate::connection::Link;
use crate::node::Node;
use crate::options::Options;
use crate::probe::Purpose;
use crate::resp::Value;
use crate::sentinel::Watched;
use crate::url::RedisUrl;
use crate::url::hosts::Behind;

/// What came of a command: its reply, or nothing if it was not to go.
pub(crate) type Outcome = Result<Option<Value>, StoreError>;

/// An outcome, and over which connection it came.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) link: Link,
    pub(crate) outcome: Outcome,
}

impl Answer {
    pub(crate) fn failed(error: StoreError) -> Self {
        Self {
            link: Link::default(),
            outcome: Err(error),
        }
    }

    /// What a server answered, or did not, to so many commands.
    pub(crate) fn all(
        answered: Result<(Link, Vec<Option<Value>>), StoreError>,
        count: usize,
    ) -> Vec<Self> {
        match answered {
            Ok((link, values)) => values
                .into_iter()
                .map(|value| Self {
                    link,
                    outcome: Ok(value),
                })
                .collect(),
            Err(error) => vec![Self::failed(error); count],
        }
    }
}

/// One server, one of several, or several at once.
pub(crate) enum Servers {
    One(Arc<Node>),
    Watched(Watched),
    Cluster(Cluster),
}

/// The servers to be walked over, one after the other.
pub(crate) struct Walk {
    pub(crate) nodes: Vec<Arc<Node>>,
    /// In a Cluster: what it was before, and the order of its nodes.
    begun: Option<(Arc<Map>, Vec<String>)>,
}

impl Servers {
    /// Begins to connect to what a URL names, and returns at once.
    pub(crate) fn start(url: RedisUrl, options: Options, changes: &Arc<Changes>) -> Self {
        match url.behind.clone() {
            Behind::One => {
                let node = Node::start(url, Purpose::Entries, options, changes.source());
                Self::One(Arc::new(node))
            }
            Behind::Sentinels(sentinels) => {
                let changes = Arc::clone(changes);
                Self::Watched(Watched::start(url, &sentinels, options, changes))
            }
            Behind::Cluster(seeds) => {
                let changes = Arc::clone(changes);
                Self::Cluster(Cluster::start(url, seeds, options, changes))
            }
        }
    }

    pub(crate) fn url(&self) -> &RedisUrl {
        match self {
            Self::One(node) => node.url(),
            Self::Watched(watched) => watched.url(),
            Self::Cluster(cluster) => cluster.surveyor().url(),
        }
    }

    /// Sends commands together, each with one key; in a Cluster, unless they are all of one slot.
    pub(crate) async fn ask(&self, commands: &[Command<'_>]) -> Vec<Outcome> {
        let answers = self.ask_over(commands).await.into_iter();
        answers.map(|answer| answer.outcome).collect()
    }

    /// [`Servers::ask`], with the connections that the replies came over.
    pub(crate) async fn ask_over(&self, commands: &[Command<'_>]) -> Vec<Answer> {
        let (node, watched) = match self {
            Self::One(node) => (Arc::clone(node), None),
            Self::Watched(watched) => match watched.master().await {
                Ok(master) => (master, Some(watched)),
                Err(error) => return vec![Answer::failed(error); commands.len()],
            },
            Self::Cluster(cluster) => return cluster.ask(commands).await,
        };
        let answers = Answer::all(node.ask_over(commands).await, commands.len());
        for answer in &answers {
            heed(&node, &answer.outcome);
        }
        if let (Some(watched), Some(answer)) = (watched, answers.first()) {
            watched.heed(&answer.outcome);
        }
        answers
    }

    /// Sends two reads of one key, without conditions.
    pub(crate) async fn ask_both(
        &self,
        commands: &[Command<'_>; 2],
    ) -> Result<(Link, [Value; 2]), StoreError> {
        match self {
            Self::One(node) => node.ask_both(commands).await,
            Self::Watched(watched) => {
                let master = watched.master().await?;
                let answered = master.ask_both(commands).await;
                if let Err(error) = &answered {
                    watched.heed(&Err(error.clone()));
                }
                answered
            }
            Self::Cluster(cluster) => cluster.ask_both(commands).await,
        }
    }

    /// Sends a command for whose reply nobody waits; drops it if its server is not there.
    pub(crate) fn tell(&self, key: &[u8], command: impl FnOnce(&Node)) {
        if let Some(node) = self.owner(key) {
            command(&node);
        }
    }

    /// Waits until the server that has a key was connected to, for the first time.
    pub(crate) async fn reach(&self, key: &[u8], deadline: Instant) -> Result<(), StoreError> {
        match self {
            Self::One(node) => node.reach(deadline).await,
            Self::Watched(watched) => watched.master().await?.reach(deadline).await,
            Self::Cluster(cluster) => cluster.reach(key, deadline).await,
        }
    }

    /// The master that an invalidation goes to, where another one could take its place unnoticed.
    pub(crate) async fn named(&self) -> Option<Arc<Node>> {
        match self {
            Self::Watched(watched) => watched.master().await.ok(),
            Self::One(_) | Self::Cluster(_) => None,
        }
    }

    /// Whether what a master acknowledged before this call counts: see [`Watched::confirm`].
    pub(crate) async fn confirm(&self, named: Option<Arc<Node>>) -> Result<(), StoreError> {
        match (self, named) {
            (Self::Watched(watched), Some(named)) => watched.confirm(&named).await,
            // One may have been named since, and may be another one by now.
            (Self::Watched(_), None) => Err(StoreError::Broken(
                "no master was named before it".to_owned(),
            )),
            (Self::One(_) | Self::Cluster(_), _) => Ok(()),
        }
    }

    /// All servers with entries that are known at once.
    pub(crate) fn known(&self) -> Vec<Arc<Node>> {
        match self {
            Self::One(node) => vec![Arc::clone(node)],
            Self::Watched(watched) => watched.trusted().into_iter().collect(),
            Self::Cluster(cluster) => {
                let map = cluster.surveyor().map();
                map.map_or_else(Vec::new, |map| map.nodes().to_vec())
            }
        }
    }

    /// The server that has a key, if it is known at once.
    fn owner(&self, key: &[u8]) -> Option<Arc<Node>> {
        match self {
            Self::One(node) => Some(Arc::clone(node)),
            Self::Watched(watched) => watched.trusted(),
            Self::Cluster(cluster) => cluster.owner(key),
        }
    }

    /// The life of the server that has a key; 0: none was met yet.
    pub(crate) fn incarnation(&self, key: &[u8]) -> u64 {
        self.owner(key).map_or(0, |node| node.incarnation())
    }

    /// See [`crate::changes::Source::take`].
    pub(crate) fn take(&self, key: &[u8]) -> Option<Taken> {
        match self {
            Self::One(node) => node.take(key),
            _ => self.owner(key)?.take(key),
        }
    }

    /// How many commands were sent on from one server to another so far.
    pub(crate) fn redirects(&self) -> u64 {
        match self {
            Self::One(_) | Self::Watched(_) => 0,
            Self::Cluster(cluster) => cluster.redirects(),
        }
    }

    /// How many keys one command may name.
    pub(crate) fn keys_per_command(&self) -> usize {
        match self {
            Self::One(_) | Self::Watched(_) => usize::MAX,
            // Those of one slot could go together, but hardly ever are there two.
            Self::Cluster(_) => 1,
        }
    }

    /// A server of [`Servers::all`] did not answer: another may have taken over.
    pub(crate) fn doubt(&self) {
        match self {
            Self::One(_) => {}
            Self::Watched(watched) => watched.doubt(),
            Self::Cluster(cluster) => {
                cluster.surveyor().request();
            }
        }
    }

    /// Whether the servers of one walk may be others than those of the next.
    pub(crate) fn can_change(&self) -> bool {
        !matches!(self, Self::One(_))
    }

    /// Whether there is a server at all: then another may soon take over for one that is away.
    pub(crate) fn is_any_there(&self) -> bool {
        match self {
            Self::One(node) => node.is_connected(),
            Self::Watched(watched) => watched
                .trusted()
                .is_some_and(|master| master.is_connected()),
            Self::Cluster(cluster) => {
                let map = cluster.surveyor().map();
                map.is_some_and(|map| map.nodes().iter().any(|node| node.is_connected()))
            }
        }
    }

    /// All servers with entries.
    pub(crate) async fn all(&self) -> Result<Vec<Arc<Node>>, StoreError> {
        match self {
            Self::One(node) => Ok(vec![Arc::clone(node)]),
            Self::Watched(watched) => Ok(vec![watched.master().await?]),
            Self::Cluster(cluster) => cluster.all().await,
        }
    }

    /// Begins a walk over all entries; with what is known to have moved during the walk before.
    pub(crate) async fn begin_walk(&self, moves: &Moves) -> Result<Walk, StoreError> {
        let Self::Cluster(cluster) = self else {
            return Ok(Walk {
                nodes: self.all().await?,
                begun: None,
            });
        };
        let map = cluster.surveyor().survey_all().await?;
        let order = map.topology.scan_order(moves);
        Ok(Walk {
            nodes: order.iter().filter_map(|id| map.node_of(id)).collect(),
            begun: Some((map, order)),
        })
    }

    /// What is known of a Cluster by now.
    pub(crate) fn map(&self) -> Option<Arc<Map>> {
        match self {
            Self::One(_) | Self::Watched(_) => None,
            Self::Cluster(cluster) => cluster.surveyor().map(),
        }
    }

    /// From where to where keys may have gone since what was known, up to the end of a walk.
    pub(crate) async fn moved_since(&self, before: Option<&Map>) -> Result<Moves, StoreError> {
        match (self, before) {
            (Self::Cluster(cluster), Some(before)) => {
                let after = cluster.surveyor().survey_all().await?;
                Ok(after.topology.moves_since(&before.topology))
            }
            _ => Ok(Moves::new()),
        }
    }

    /// Ends a walk: what moved if it may have missed entries that were there all the time.
    pub(crate) async fn missed_by(&self, walk: &Walk) -> Result<Option<Moves>, StoreError> {
        match (self, &walk.begun) {
            (Self::Cluster(cluster), Some((before, order))) => {
                let after = cluster.surveyor().survey_all().await?;
                let (before, after) = (&before.topology, &after.topology);
                let is_covered = after.is_covered_by(order, before);
                Ok((!is_covered).then(|| after.moves_since(before)))
            }
            (Self::Watched(watched), _) => {
                for node in &walk.nodes {
                    watched.confirm(node).await?;
                }
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    pub(crate) fn close(&self) {
        match self {
            Self::One(node) => node.close(),
            Self::Watched(watched) => watched.close(),
            Self::Cluster(cluster) => cluster.surveyor().close(),
        }
    }
}

/// A server that refuses to write is a master no more: it is asked anew what it is.
fn heed(node: &Node, outcome: &Outcome) {
    if let Ok(Some(Value::Error(error))) = outcome
        && error.starts_with(b"READONLY")
    {
        node.greet_again("it is a replica now");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lives::Lives;

    #[tokio::test]
    async fn what_no_named_master_acknowledged_is_not_confirmed() {
        let confirmed = async |url: &str| {
            let changes = Changes::new(false, 1, Lives::new(true));
            let url = RedisUrl::parse(url).unwrap();
            let servers = Servers::start(url, Options::default(), &changes);
            servers.confirm(None).await
        };
        assert_eq!(confirmed("redis://127.0.0.1:1").await, Ok(()));
        assert_eq!(confirmed("redis+cluster://127.0.0.1:1").await, Ok(()));
        let watched = confirmed("redis+sentinel://127.0.0.1:1/mymaster").await;
        assert!(watched.is_err_and(|error| error.may_have_happened()));
    }
}
