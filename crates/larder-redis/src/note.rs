//! What a server remembers of its present life: that a service has only plain entries of it.
//!
//! It must be gone when the server is restarted, be no key (which could be evicted, flushed, moved to another node, restored
//! with the entries, and need rights of its own), and lie in each node of a Cluster. So it is a script, which servers keep in
//! memory by the name that its text has; the life stands in the text, so that it says nothing of any other, wherever it
//! is carried to.

use crate::life::Life;
use crate::scripts::sha1_hex;

/// A note on a service.
pub(crate) struct Note {
    text: String,
    name: String,
}

impl Note {
    pub(crate) fn of(life: &Life, service: &str) -> Self {
        let text = format!("return 'larder: {service} is swept in {:016x}'", life.id);
        Self {
            name: sha1_hex(text.as_bytes()),
            text,
        }
    }

    /// Answered with a text if it is there, with an error if not.
    pub(crate) fn question(&self) -> [&[u8]; 3] {
        [b"EVALSHA", self.name.as_bytes(), b"0"]
    }

    /// Leaves it there.
    pub(crate) fn load(&self) -> [&[u8]; 3] {
        [b"SCRIPT", b"LOAD", self.text.as_bytes()]
    }

    /// The same for one who may not do that; a server may forget it sooner.
    pub(crate) fn run(&self) -> [&[u8]; 3] {
        [b"EVAL", self.text.as_bytes(), b"0"]
    }
}
