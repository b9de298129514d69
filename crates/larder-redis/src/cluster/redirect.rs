//! What a node of a Cluster says in place of doing what it was asked: nothing was done, so it is safe to ask elsewhere.

use std::str;

use crate::url::hosts::Host;

/// A refusal that says where, or when, to ask again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The slot is another node's.
    Moved(Host),
    /// The key may be on its way to another node: this once, ask there.
    Ask(Host),
    /// Of several keys some are on their way.
    TryAgain,
    /// The node, or the Cluster, can't serve at the moment.
    Down,
    /// It is no master any more.
    ReadOnly,
}

impl Refusal {
    /// Reads the error that a node answered; a host without a name is the node itself.
    pub(crate) fn read(error: &[u8], node: &Host) -> Option<Self> {
        let text = str::from_utf8(error).ok()?;
        let mut words = text.split_ascii_whitespace();
        let kind = words.next()?;
        match kind {
            "MOVED" | "ASK" => {
                let host = read_host(words.nth(1)?, node)?;
                Some(match kind {
                    "MOVED" => Self::Moved(host),
                    _ => Self::Ask(host),
                })
            }
            "TRYAGAIN" => Some(Self::TryAgain),
            "CLUSTERDOWN" | "MASTERDOWN" | "LOADING" => Some(Self::Down),
            "READONLY" => Some(Self::ReadOnly),
            _ => None,
        }
    }
}

/// A host and its port, told by a node.
pub(crate) fn read_host(text: &str, node: &Host) -> Option<Host> {
    let (name, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let name = match name.trim_matches(['[', ']']) {
        "" => node.name.clone(),
        // Its name is not known yet.
        "?" => return None,
        name => name.to_owned(),
    };
    Some(Host { name, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, port: u16) -> Host {
        Host {
            name: name.to_owned(),
            port,
        }
    }

    #[test]
    fn refusals_say_where_to_ask() {
        let node = host("10.0.0.1", 1);
        let read = |error: &str| Refusal::read(error.as_bytes(), &node);
        assert_eq!(
            read("MOVED 3999 127.0.0.1:6381"),
            Some(Refusal::Moved(host("127.0.0.1", 6_381)))
        );
        assert_eq!(
            read("MOVED 3999 :6381"),
            Some(Refusal::Moved(host("10.0.0.1", 6_381)))
        );
        assert_eq!(
            read("ASK 3999 ::1:6381"),
            Some(Refusal::Ask(host("::1", 6_381)))
        );
        assert_eq!(
            read("TRYAGAIN Multiple keys request during rehashing of slot"),
            Some(Refusal::TryAgain)
        );
        assert_eq!(
            read("CLUSTERDOWN Hash slot not served"),
            Some(Refusal::Down)
        );
        assert_eq!(read("READONLY You can't write"), Some(Refusal::ReadOnly));
        for other in [
            "",
            "MOVED",
            "MOVED 1",
            "MOVED 1 a",
            "MOVED 1 a:",
            "MOVED 1 a:0",
            "MOVED 1 ?:7",
            "MOVED 1 a:70000",
            "ERR MOVED 1 a:1",
            "OOM command not allowed",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
