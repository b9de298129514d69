//! Which life a server is in. After a restart, or when another was made the master, it may have lost what was acknowledged
//! before: entries of another life may be such as had been deleted.

use twox_hash::XxHash3_64;

use crate::node::seed;
use crate::probe::field;

/// A replication history that there is none of.
const NO_HISTORY: &str = "0000000000000000000000000000000000000000";

/// The life of a server, as it tells it in the greeting.
///
/// `run_id` is another one after each restart. `master_replid` is another one after each promotion: a master that was
/// demoted and promoted again keeps its `run_id`. It changes with a master's first replica, and an hour after the last one
/// has left, too, where nothing is lost: that costs what is kept, and no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Life {
    /// That of no other life. Where the server does not tell which it is in: of no other connection.
    pub(crate) id: u64,
    /// `None`: it does not tell.
    history: Option<String>,
    /// Whether all that it has was written in this life: it loaded nothing, and took nothing over from a master. One that
    /// was a replica forgets its master an hour after it lost its own last replica; how much it was told it goes on counting.
    /// That one loaded an AOF can't be told any more once `appendonly` was switched off.
    pub(crate) is_first: bool,
}

impl Life {
    /// By what `INFO` told of the server, its replication, and its persistence.
    pub(crate) fn read(server: &str, replication: &str, persistence: &str) -> Self {
        let process = field(server, "run_id:").filter(|process| !process.is_empty());
        let history = history(replication);
        let (Some(process), Some(history)) = (process, history) else {
            return Self {
                id: seed().max(1),
                history: None,
                is_first: false,
            };
        };
        let is = |info: &str, name: &str, what: &str| field(info, name).as_deref() == Some(what);
        Self {
            id: XxHash3_64::oneshot(format!("{process} {history}").as_bytes()).max(1),
            history: Some(history),
            is_first: is(persistence, "rdb_last_load_keys_loaded:", "0")
                && is(persistence, "aof_enabled:", "0")
                && is(replication, "master_replid2:", NO_HISTORY)
                && is(replication, "master_repl_offset:", "0"),
        }
    }

    /// Whether the server tells which life it is in.
    pub(crate) fn is_told(&self) -> bool {
        self.history.is_some()
    }

    /// Whether it is another one by what `INFO` tells of the replication now.
    pub(crate) fn is_over(&self, replication: &str) -> bool {
        self.history.is_some() && self.history != history(replication)
    }
}

fn history(replication: &str) -> Option<String> {
    field(replication, "master_replid:")
        .filter(|history| !history.is_empty() && history != NO_HISTORY)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: &str = "# Server\r\nrun_id:aaaa\r\nhz:10\r\n";
    const FRESH: &str = "rdb_last_load_keys_loaded:0\r\naof_enabled:0\r\n";

    fn replication(history: &str, before: &str) -> String {
        format!(
            "role:master\r\nmaster_replid:{history}\r\nmaster_replid2:{before}\r\nmaster_repl_offset:0\r\n"
        )
    }

    #[test]
    fn a_life_is_a_process_and_a_history() {
        let first = replication("bbbb", NO_HISTORY);
        let life = Life::read(SERVER, &first, FRESH);
        assert!(life.is_told() && life.is_first && life.id != 0);
        assert_eq!(Life::read(SERVER, &first, FRESH), life);
        assert!(!life.is_over(&first));
        let promoted = replication("cccc", "bbbb");
        assert!(life.is_over(&promoted) && life.is_over(""));
        let promoted = Life::read(SERVER, &promoted, FRESH);
        assert!(promoted.id != life.id && !promoted.is_first);
        let restarted = Life::read("run_id:dddd\r\n", &first, FRESH);
        assert!(restarted.id != life.id);
        let forgotten = first.replace("offset:0", "offset:50");
        assert!(!Life::read(SERVER, &forgotten, FRESH).is_first);
        for loaded in [
            "rdb_last_load_keys_loaded:1\r\naof_enabled:0\r\n",
            "rdb_last_load_keys_loaded:0\r\naof_enabled:1\r\n",
            "aof_enabled:0\r\n",
            "",
        ] {
            assert!(!Life::read(SERVER, &first, loaded).is_first, "{loaded}");
        }
    }

    #[test]
    fn a_life_that_is_not_told_is_nobody_elses() {
        for (server, replication) in [
            ("", replication("bbbb", NO_HISTORY)),
            (SERVER, String::new()),
            (SERVER, replication(NO_HISTORY, NO_HISTORY)),
        ] {
            let read = || Life::read(server, &replication, FRESH);
            let (one, other) = (read(), read());
            assert!(!one.is_told() && !one.is_first && one.id != other.id);
            assert!(!one.is_over("master_replid:bbbb"));
        }
    }
}
