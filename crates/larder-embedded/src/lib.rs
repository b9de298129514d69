//! Larder's embedded store: one folder on LMDB, shared by the processes of a machine. No server.
//!
//! ```
//! use larder_core::{Guard, Key, NewEntry, Store, Ttl};
//! use larder_embedded::{EmbeddedStore, Options};
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! # let folder = tempfile::tempdir().unwrap();
//! # let folder = folder.path().join("store");
//! let store = EmbeddedStore::open(&folder, Options::default()).unwrap();
//! let key = Key::new("product-service", "/products").unwrap();
//! let entry = NewEntry {
//!     key: key.clone(),
//!     bytes: "[]".into(),
//!     ttl: Ttl::new(std::time::Duration::from_secs(300)).unwrap(),
//!     guard: Guard::Always,
//! };
//! assert!(store.set(entry).await.unwrap().is_stored());
//! assert_eq!(store.get(&key, Ttl::MAX).await.unwrap().unwrap().bytes, "[]");
//! # });
//! ```
//!
//! # The folder
//!
//! It belongs to the user who uses it, with mode 0700, and holds
//!
//! - `data.mdb`: LMDB's file, never larger than `max_bytes`; four databases: `entries` (key → record), `expiry` (when an
//!   entry may end → key), `leases` (key → who may fill it), `versions` (what entries depend on → its version);
//! - `lock.mdb`: LMDB's own lock file;
//! - `control`: the block that the processes share in memory: settings fixed at creation, counters, marks (which
//!   transaction changed the keys of a place last), and how often each entry was read of late;
//! - `lock`: held shared by those who have the folder open, alone by the first while it checks the folder;
//! - `damaged/`: the last `data.mdb` that was found damaged, set aside.
//!
//! All of it may be deleted while nobody has it open. Deleted or exchanged while it is open, it is used no more: that is noticed
//! within a second, and before each delete; then it answers nothing more, and takes nothing.
//!
//! # What it withstands
//!
//! - `kill -9` of any process at any instant: what was reported as stored is there, nothing is corrupt. Nothing is synced to the
//!   disk at a write, so after a power cut (another boot without an orderly close) the folder starts empty.
//! - Damage: LMDB doesn't notice it and would take the process along, so the first opener walks the whole file without
//!   mapping it; every record has a checksum besides.
//! - A writer that was stopped in mid-write: others' writes give up at their deadline, and at once while it lasts. Reads go on.
//! - A writer that is killed or stopped anywhere around its commit: no process serves, by a proof, what a delete that returned had
//!   ended; what it was about to write has no proof meanwhile.
//! - A reader that was stopped in mid-read, and so keeps freed pages from being used: sets are refused while there is room to
//!   delete, and when that ends too, the store is emptied, so that no delete need find it full.
//! - A full disk, a folder of others, a network file system, another PID namespace: [`OpenError`] says what to do.

mod apply;
mod beside;
mod clear;
mod clock;
mod control;
mod evict;
mod folder;
mod free_list;
mod leases;
mod lmdb;
mod look;
mod opening;
mod preparing;
mod progress;
mod queue;
mod readers;
mod record;
mod reserve;
mod scanning;
mod shared_memory;
mod store;
mod versions;
mod waiting;
mod walk;
mod writer;

pub use clock::BootClock;
pub use folder::OpenError;
pub use opening::Options;
pub use store::EmbeddedStore;
