//! What a process saw, as it writes it down: records of one size in a file of its own, which `kill -9` does not take back.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::instant::Nanos;
use crate::keys::Kind;

/// One thing that a process saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) what: What,
    /// The key's number; the kind's, for an invalidation of a kind; the tag's.
    pub(crate) subject: u32,
    pub(crate) begin: Nanos,
    pub(crate) end: Nanos,
    /// When the load of the value that was returned began.
    pub(crate) load_begin: Nanos,
    /// When it ended.
    pub(crate) made: Nanos,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum What {
    /// The process is ready; its journal was adopted by then.
    Started = 0,
    /// A lookup returned a value that the cache had.
    Hit,
    /// A stale one.
    Stale,
    /// One that was loaded.
    Loaded,
    /// A lookup returned a value that a `set` stored.
    Set,
    /// A lookup returned nothing, or the loader's own error.
    Nothing,
    /// A lookup failed that may not.
    Failed,
    /// A loader was called.
    Load,
    /// The process got no processor for so long, and could do nothing.
    Stalled,
    /// A value was set.
    Stored,
    /// `delete` of a key, done.
    Deleted,
    /// `clear` of a kind, done.
    Cleared,
    /// `invalidate_tag`, done.
    TagDone,
    /// `invalidate_endpoint` of a kind, done for framed entries.
    EndpointDone,
    /// The plain entries behind it are removed.
    EndpointSwept,
    /// `invalidate_service`, done for framed entries.
    ServiceDone,
    /// The plain entries behind it are removed.
    ServiceSwept,
    /// A `delete` that is pending, or the like: holds for this process.
    DeletePending,
    ClearPending,
    TagPending,
    EndpointPending,
    ServicePending,
}

impl What {
    const ALL: [Self; 22] = [
        Self::Started,
        Self::Hit,
        Self::Stale,
        Self::Loaded,
        Self::Set,
        Self::Nothing,
        Self::Failed,
        Self::Load,
        Self::Stalled,
        Self::Stored,
        Self::Deleted,
        Self::Cleared,
        Self::TagDone,
        Self::EndpointDone,
        Self::EndpointSwept,
        Self::ServiceDone,
        Self::ServiceSwept,
        Self::DeletePending,
        Self::ClearPending,
        Self::TagPending,
        Self::EndpointPending,
        Self::ServicePending,
    ];

    /// Whether a lookup is over.
    pub(crate) fn is_lookup(self) -> bool {
        use What::{Failed, Hit, Loaded, Nothing, Set, Stale};
        matches!(self, Hit | Stale | Loaded | Set | Nothing | Failed)
    }

    /// Whether a lookup returned a value that a load made.
    pub(crate) fn is_read(self) -> bool {
        matches!(self, Self::Hit | Self::Stale | Self::Loaded)
    }

    /// Whether it says what must not be returned from its end on.
    pub(crate) fn is_obligation(self) -> bool {
        self as u8 >= Self::Stored as u8
    }

    pub(crate) fn is_pending(self) -> bool {
        self as u8 >= Self::DeletePending as u8
    }

    /// Whether framed entries are invalidated by a version, which other processes may know for a while yet.
    pub(crate) fn is_by_version(self) -> bool {
        use What::{EndpointDone, ServiceDone, TagDone};
        matches!(self, TagDone | EndpointDone | ServiceDone)
    }
}

impl Event {
    /// Whether it is about this key; for others than the process itself (`is_own`) plain entries go with the sweep.
    pub(crate) fn names(&self, key: usize, is_own: bool) -> bool {
        use What::{
            ClearPending, Cleared, DeletePending, Deleted, EndpointDone, EndpointPending,
            EndpointSwept, ServiceDone, ServicePending, ServiceSwept, Stored, TagDone, TagPending,
        };
        let subject = self.subject as usize;
        let kind = Kind::of(key);
        match self.what {
            Stored | Deleted | DeletePending => subject == key,
            Cleared | ClearPending | EndpointSwept | EndpointPending => subject == kind as usize,
            EndpointDone => subject == kind as usize && (is_own || kind.is_framed()),
            TagDone | TagPending => kind.is_framed() && key % crate::keys::TAGS == subject,
            ServiceDone => is_own || kind.is_framed(),
            ServiceSwept | ServicePending => true,
            _ => false,
        }
    }
}

const BYTES: usize = 40;
/// So much is written at once, unless something is written that must be known.
const BUFFER: usize = BYTES * 256;

/// Where a process writes down what it saw.
pub(crate) struct Log(Mutex<(File, Vec<u8>)>);

impl Log {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        Ok(Self(Mutex::new((File::create(path)?, Vec::new()))))
    }

    pub(crate) fn write(&self, event: Event) -> io::Result<()> {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, buffer) = &mut *log;
        buffer.extend_from_slice(&(event.what as u32).to_le_bytes());
        buffer.extend_from_slice(&event.subject.to_le_bytes());
        for instant in [event.begin, event.end, event.load_begin, event.made] {
            buffer.extend_from_slice(&instant.to_le_bytes());
        }
        let is_urgent = event.what.is_obligation() || event.what == What::Started;
        if is_urgent || buffer.len() >= BUFFER {
            file.write_all(buffer)?;
            buffer.clear();
        }
        Ok(())
    }

    pub(crate) fn flush(&self) -> io::Result<()> {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, buffer) = &mut *log;
        file.write_all(buffer)?;
        buffer.clear();
        Ok(())
    }
}

/// What a process wrote down; the last record of a killed one may be cut.
pub(crate) fn read(path: &Path) -> io::Result<Vec<Event>> {
    let bytes = std::fs::read(path)?;
    let records = bytes.chunks_exact(BYTES);
    Ok(records.filter_map(Event::read).collect())
}

impl Event {
    fn read(record: &[u8]) -> Option<Self> {
        let u32_at = |at: usize| Some(u32::from_le_bytes(record.get(at..at + 4)?.try_into().ok()?));
        let u64_at = |at: usize| Some(u64::from_le_bytes(record.get(at..at + 8)?.try_into().ok()?));
        Some(Self {
            what: *What::ALL.get(u32_at(0)? as usize)?,
            subject: u32_at(4)?,
            begin: u64_at(8)?,
            end: u64_at(16)?,
            load_begin: u64_at(24)?,
            made: u64_at(32)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_up_to_where_a_kill_cut_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let log = Log::create(&path).unwrap();
        let events = What::ALL.map(|what| Event {
            what,
            subject: 7,
            begin: 1,
            end: 2,
            load_begin: 3,
            made: 4,
        });
        events.iter().for_each(|event| log.write(*event).unwrap());
        log.flush().unwrap();
        let file = File::options().append(true).open(&path).unwrap();
        (&file).write_all(&[1; BYTES - 1]).unwrap();
        assert_eq!(read(&path).unwrap(), events);
    }
}
