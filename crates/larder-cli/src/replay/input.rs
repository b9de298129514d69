//! Where a log comes from, and how much of it was read.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, bail};

/// A log that is being read.
pub(crate) struct Input {
    from: Box<dyn Read + Send>,
    /// How many bytes there are; `None` if nobody knows.
    pub(crate) bytes: Option<u64>,
    read: Arc<AtomicU64>,
}

impl Input {
    /// Opens a file; `-` is standard input.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::of(Box::new(io::stdin()), None));
        }
        let shown = path.display();
        let file = File::open(path).with_context(|| format!("the log {shown} can't be opened"))?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            bail!("{shown} is a folder: name a log in it, or pipe several into `larder replay -`");
        }
        let bytes = metadata.is_file().then_some(metadata.len());
        Ok(Self::of(Box::new(file), bytes))
    }

    fn of(from: Box<dyn Read + Send>, bytes: Option<u64>) -> Self {
        Self {
            from,
            bytes,
            read: Arc::default(),
        }
    }

    /// Counts what was read, packed if it is packed.
    pub(crate) fn counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.read)
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}
