//! What is slow, and what all processes of a test share: the truth, and who asked for it when.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of the clock that all processes of a machine share.
pub(crate) type Nanos = u64;

/// Now.
pub(crate) fn now() -> Nanos {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(Duration::new(time.tv_sec as u64, time.tv_nsec as u32).as_nanos()).unwrap()
}

/// A load: who began it, and when; `None` at its end if he was killed in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) process: u32,
    pub(crate) begin: Nanos,
    pub(crate) end: Option<Nanos>,
}

/// A folder of files.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    folder: PathBuf,
}

impl Origin {
    pub(crate) fn in_folder(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    /// What loads that begin from now on find.
    pub(crate) fn change(&self, truth: &str) {
        let new = self.folder.join("new truth");
        std::fs::write(&new, truth).unwrap();
        std::fs::rename(new, self.folder.join("truth")).unwrap();
    }

    /// From now on no load ends, until [`Origin::open`].
    pub(crate) fn close(&self) {
        File::create(self.folder.join("closed")).unwrap();
    }

    pub(crate) fn open(&self) {
        std::fs::remove_file(self.folder.join("closed")).unwrap();
    }

    /// Finds the truth of its beginning.
    pub(crate) async fn load(self, takes: Duration) -> std::io::Result<String> {
        let begin = now();
        self.note("begin", begin)?;
        let truth = std::fs::read_to_string(self.folder.join("truth"))?;
        tokio::time::sleep(takes).await;
        while self.folder.join("closed").exists() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.note("end", begin)?;
        Ok(truth)
    }

    /// One write at the end of the file: not mixed with another process's, and not lost when this one is killed.
    fn note(&self, what: &str, begin: Nanos) -> std::io::Result<()> {
        let mut log = OpenOptions::new();
        let mut log = log.create(true).append(true).open(self.log())?;
        let line = format!("{what} {} {begin} {}\n", std::process::id(), now());
        log.write_all(line.as_bytes())
    }

    fn log(&self) -> PathBuf {
        self.folder.join("loads")
    }

    /// The loads that there were, in the order of their beginnings.
    pub(crate) fn loads(&self) -> Vec<Load> {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let mut loads: Vec<Load> = Vec::new();
        for line in log.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [what, process, begin, at] = words[..] else {
                panic!("{line}")
            };
            let (process, begin) = (process.parse().unwrap(), begin.parse().unwrap());
            match what {
                "begin" => loads.push(Load {
                    process,
                    begin,
                    end: None,
                }),
                _ => {
                    let own = |load: &&mut Load| (load.process, load.begin) == (process, begin);
                    let load = loads.iter_mut().find(own).unwrap();
                    load.end = Some(at.parse().unwrap());
                }
            }
        }
        loads.sort_by_key(|load| load.begin);
        loads
    }
}
