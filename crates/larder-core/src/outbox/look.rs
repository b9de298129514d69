//! Looks into the journals of this machine's processes, living and dead: nothing is adopted, applied or removed by that.

use std::path::Path;

use larder_model::Service;

use super::journal::{MAX_BYTES, Place};
use super::{Limits, Outbox, record};
use crate::private_folder::PrivateFolder;

impl Outbox {
    /// What the processes of this machine have pending for a store, as their journals say now: see [`Outbox::open`]. It is
    /// there to be asked: not handed to a cache, nothing of it is applied. A journal that can't be read is left out.
    #[must_use]
    pub fn look(folder: &Path, store_identity: &str, service: Service) -> Self {
        let place = Place::new(folder, store_identity);
        let outbox = Self::new(service, Limits::default());
        let Ok(folder) = PrivateFolder::open(folder) else {
            return outbox;
        };
        let names = folder.names().unwrap_or_default();
        for name in names.iter().filter(|name| place.is_journal(name)) {
            let replay = folder.read(name);
            if let Ok(replay) = replay.and_then(|file| record::replay(&file, MAX_BYTES)) {
                // In memory alone, as it is meant.
                let _volatile = outbox.add_items(&mut outbox.journal(), &replay.pending);
            }
        }
        outbox
    }
}
