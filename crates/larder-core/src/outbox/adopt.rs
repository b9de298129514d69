//! Takes over the journals that dead processes left: those whose lock can be taken. At a start, what stands in those of
//! living processes counts, too.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::invalidation::Item;
use super::journal::{self, MAX_BYTES};
use super::record::{self, Replay};
use super::{Kept, Outbox};
use crate::mutants::{Guard, is_off};
use crate::private_folder::PrivateFolder;

/// So often journals are listed anew at a start, where one is removed while they are read.
const MOST_LOOKS: usize = 100;

impl Outbox {
    /// Takes over what dead processes of the same store left; answers how many journals that were. Reads and writes
    /// files.
    pub fn adopt(&self) -> usize {
        if is_off(Guard::JournalIsAdopted) {
            return 0;
        }
        let mut adopted = 0;
        for (folder, name) in self.journals() {
            match self.adopt_one(&folder, &name) {
                Ok(is_adopted) => adopted += usize::from(is_adopted),
                Err(error) => {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                    self.journal().warn_of(&name, &error);
                }
            }
        }
        if adopted > 0 {
            self.wake.notify_one();
        }
        adopted
    }

    /// Takes what living processes have pending to be pending here, too. What this process's own life before left may be among
    /// it: adopted by one of them, and not applied yet. It is applied more than once then, which costs misses. Reads and writes
    /// files.
    pub(super) fn heed_living(&self) {
        if is_off(Guard::JournalIsAdopted) || is_off(Guard::LivingAreHeeded) {
            return;
        }
        let mut pending = Vec::new();
        for _ in 0..MOST_LOOKS {
            let mut is_whole = true;
            for (folder, name) in self.journals() {
                if self.journal().is_own(&name) {
                    continue;
                }
                match read(&folder, &name) {
                    Ok(Some(replay)) => pending.extend(self.judge(&name, replay)),
                    // What was in it may stand in one that was not there yet when they were listed.
                    Ok(None) => is_whole = false,
                    // It was told of when it could not be adopted.
                    Err(_) => {}
                }
            }
            if is_whole {
                break;
            }
        }
        if !pending.is_empty() {
            self.copy(&pending);
        }
    }

    /// The journals of the store that there are, and their folder.
    fn journals(&self) -> Vec<(PathBuf, String)> {
        let Some(place) = self.journal().place().cloned() else {
            return Vec::new();
        };
        let names = PrivateFolder::make(&place.folder)
            .and_then(|()| PrivateFolder::open(&place.folder)?.names());
        let names = names.unwrap_or_else(|error| {
            self.journal().warn(&error);
            Vec::new()
        });
        let journals = names.into_iter().filter(|name| place.is_journal(name));
        journals.map(|name| (place.folder.clone(), name)).collect()
    }

    fn adopt_one(&self, folder: &Path, name: &str) -> io::Result<bool> {
        match open(folder, name)? {
            Some((folder, file)) => self.take_over(folder, name, file),
            None => Ok(false),
        }
    }

    fn take_over(&self, folder: PrivateFolder, name: &str, file: File) -> io::Result<bool> {
        // Who removed it meanwhile had its lock, and has taken what was in it.
        if !journal::lock(&file)? || !folder.leads_to(name, &file) {
            return Ok(false);
        }
        let replay = record::replay(&file, MAX_BYTES)?;
        let pending = self.judge(name, replay);
        let count = pending.len();
        if !self.copy(&pending) || folder.remove(name).is_err() {
            self.journal().keep(folder, name.to_owned(), file);
        }
        self.adopted.fetch_add(1, Ordering::Relaxed);
        let name = larder_model::escape(name);
        tracing::info!(
            journal = %name,
            pending = count,
            "adopted what a process left that ended before the store could confirm it"
        );
        Ok(true)
    }

    /// Whether it stands in this process's own journal now.
    fn copy(&self, pending: &[Item]) -> bool {
        let mut journal = self.journal();
        let kept = self.add_items(&mut journal, pending);
        let copy = journal.take_unsynced();
        // Nobody who adds something waits for the disk.
        drop(journal);
        if let Some(copy) = copy {
            copy.sync();
        }
        kept == Kept::Pending
    }

    /// What must be applied. What a line that can't be read named is not known: then it is taken to be everything of the
    /// services that are known, since a lost invalidation is worse than misses.
    fn judge(&self, name: &str, replay: Replay) -> Vec<Item> {
        let mut pending = replay.pending;
        if replay.unreadable == 0 && !replay.is_cut {
            return pending;
        }
        self.unreadable
            .fetch_add(replay.unreadable as u64, Ordering::Relaxed);
        let name = larder_model::escape(name);
        tracing::warn!(
            journal = %name,
            unreadable = replay.unreadable,
            too_large = replay.is_cut,
            "a journal is damaged: all of its services is invalidated"
        );
        for service in replay.services.iter().chain([&self.service]) {
            pending.extend(Item::all_of(service));
        }
        pending
    }
}

/// A journal; `None` if it was removed meanwhile.
fn open(folder: &Path, name: &str) -> io::Result<Option<(PrivateFolder, File)>> {
    let folder = PrivateFolder::open(folder)?;
    match folder.read(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => Ok(Some((folder, opened?))),
    }
}

/// What stands in a journal, whoever has its lock; `None` if it was removed meanwhile.
fn read(folder: &Path, name: &str) -> io::Result<Option<Replay>> {
    match open(folder, name)? {
        Some((_, file)) => record::replay(&file, MAX_BYTES).map(Some),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use larder_model::{Key, Service};

    use super::*;
    use crate::outbox::{Invalidation, Limits};

    #[test]
    fn a_journal_that_another_took_over_after_it_was_opened_is_not_taken_twice() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("journal");
        let open = || {
            let service = Service::new("svc").unwrap();
            Outbox::open(&path, "store", service, Limits::default())
        };
        let (slow, quick, dead) = (open(), open(), open());
        let key = Key::new("svc", "/a").unwrap();
        let kept = dead.add(Invalidation::Keys(vec![key.clone()]));
        assert_eq!(kept, Kept::Pending);
        drop(dead);
        let folder = PrivateFolder::open(&path).unwrap();
        let name = folder.names().unwrap();
        let name = name.iter().find(|name| name.ends_with(".journal")).unwrap();
        let file = folder.read(name).unwrap();
        assert_eq!(quick.adopt(), 1);
        assert!(!slow.take_over(folder, name, file).unwrap());
        assert!(quick.hides(&key) && !slow.hides(&key));
    }
}
