//! Loads under way and leases, as threads meet in them, under shuttle: some thousands of orders, taken by chance.
//!
//! What runs here is the product's own text, `larder-core/src/flight.rs` and `in_process/leases.rs`, with shuttle's locks and atomics
//! where the product has those of `std`. Around it stands what `load.rs` `Lookup::board`, `hold.rs` `Departure::clear`, `departure.rs`
//! `Departure::finish`, `invalidate.rs` `Cache::delete_many` and `in_process.rs` do with it, step by step and without the rest.

#[allow(dead_code, unreachable_pub)]
#[path = "../../../crates/larder-core/src/flight.rs"]
mod flight;
#[allow(dead_code)]
#[path = "../../../crates/larder-core/src/in_process/leases.rs"]
mod leases;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use larder_core::{Acquired, Key, Lease, Released, Stored};
use shuttle::sync::RwLock;
use shuttle::sync::atomic::AtomicU64 as Number;
use shuttle::{future, thread};

use crate::mutants::{self, Guard};
use flight::{Boarding, FillRight, Flight, Flights, Landing, Shared};
use leases::Leases;
use sync::{Mutex, Ordering};

mod sync {
    pub(super) use shuttle::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
    pub(super) use shuttle::sync::{Mutex, MutexGuard};
}

const ORDERS: usize = 5_000;
/// Time stands still.
const NOW: Duration = Duration::from_secs(1);
const LEASE: Duration = Duration::from_secs(2);

/// The store in the process, with one key.
struct Store {
    key: Key,
    entry: Mutex<Option<u64>>,
    /// Held shared by fills, alone by deletes.
    fills: RwLock<()>,
    leases: Leases,
}

impl Store {
    fn read(&self) -> Option<u64> {
        *self.entry.lock().unwrap()
    }

    fn acquire(&self) -> Acquired {
        let found = || {
            self.read().map(|value| Stored {
                bytes: value.to_string().into(),
                framed: false,
                ttl: None,
                foreign: false,
                incarnation: 0,
                proof: None,
            })
        };
        self.leases.acquire(&self.key, (NOW, LEASE), found)
    }

    fn fill(&self, lease: &Lease, right: &FillRight, value: u64) -> bool {
        let _shared = self.fills.read().unwrap();
        let put = || *self.entry.lock().unwrap() = Some(value);
        right.holds() && self.leases.end_with(lease, NOW, None, put)
    }

    fn delete(&self) {
        let _alone = self.fills.write().unwrap();
        self.leases.end_of(&self.key);
        *self.entry.lock().unwrap() = None;
    }
}

/// A process, and the truth that it loads.
struct Process {
    store: Store,
    flights: Flights,
    truth: Number,
    /// What was true when the last invalidation that returned was called.
    heeded: Number,
    wrong: Wrong,
}

/// What is done otherwise than in the product: each must be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// A load is closed to those who come only when it has filled.
    ClosesLate,
}

impl Process {
    fn new(wrong: Wrong) -> Arc<Self> {
        Arc::new(Self {
            store: Store {
                key: Key::new("svc", "/a").unwrap(),
                entry: Mutex::new(None),
                fills: RwLock::new(()),
                leases: Leases::new(),
            },
            flights: Flights::new(),
            truth: Number::new(0),
            heeded: Number::new(0),
            wrong,
        })
    }

    /// A lookup, judged.
    fn lookup(&self) {
        let heeds = self.heeded.load(Ordering::SeqCst);
        let value = self.board();
        assert!(value >= heeds, "{value} was true before {heeds} was told");
    }

    fn board(&self) -> u64 {
        if let Some(value) = self.store.read() {
            return value;
        }
        let joined_at = Instant::now();
        for _ in 0..3 {
            match self.flights.board(&self.store.key) {
                Boarding::Pilot(flight) => return self.load(&flight),
                Boarding::Passenger(flight) => match future::block_on(flight.wait()) {
                    Landing::Value { value, shared, .. } if flight.is_for(shared, joined_at) => {
                        return *value.downcast_ref().unwrap();
                    }
                    _ => {}
                },
                Boarding::Full => break,
            }
        }
        self.truth.load(Ordering::SeqCst)
    }

    fn load(&self, flight: &Arc<Flight>) -> u64 {
        flight.begin(Instant::now());
        let lease = match self.store.acquire() {
            Acquired::Granted { lease, found: None } => Some(lease),
            Acquired::Granted {
                lease,
                found: Some(found),
            } => {
                let text = std::str::from_utf8(&found.bytes).unwrap();
                let value = text.parse().unwrap();
                self.land(flight, value, Shared::Early);
                self.release(&lease, Released::Failed);
                return value;
            }
            // It waited for as long as it may.
            Acquired::Held { .. } | Acquired::Uncached { .. } => None,
        };
        flight.begin(Instant::now());
        let value = self.truth.load(Ordering::SeqCst);
        if self.wrong != Wrong::ClosesLate {
            self.flights.remove(&self.store.key, flight);
        }
        let is_filled = lease.is_some_and(|lease| self.fill(&lease, flight.right(), value));
        let shared = match is_filled {
            true => Shared::All,
            false => Shared::Early,
        };
        self.land(flight, value, shared);
        value
    }

    fn fill(&self, lease: &Lease, right: &FillRight, value: u64) -> bool {
        if !right.holds() {
            self.release(lease, Released::Uncached);
            return false;
        }
        self.store.fill(lease, right, value)
    }

    fn release(&self, lease: &Lease, released: Released) {
        self.store.leases.end(lease, NOW, Some(released));
    }

    fn land(&self, flight: &Arc<Flight>, value: u64, shared: Shared) {
        self.flights.remove(&self.store.key, flight);
        flight.land(Landing::Value {
            value: Arc::new(value),
            json: None,
            shared,
        });
    }

    /// The truth changes, and is invalidated: by this process, or by another one that shares its store.
    fn invalidate(&self, is_own: bool) {
        let now = self.truth.fetch_add(1, Ordering::SeqCst) + 1;
        let end = || {
            if is_own {
                self.flights.end(&self.store.key);
            }
        };
        end();
        self.store.delete();
        end();
        self.heeded.fetch_max(now, Ordering::SeqCst);
    }
}

/// Three lookups, of which two come one behind the other, and two invalidations.
fn meet(is_own: bool, wrong: Wrong) {
    let process = Process::new(wrong);
    let of = |run: fn(&Process, bool)| {
        let process = Arc::clone(&process);
        thread::spawn(move || run(&process, is_own))
    };
    let threads = [
        of(|process, _| process.lookup()),
        of(|process, _| {
            process.lookup();
            process.lookup();
        }),
        of(Process::invalidate),
        of(Process::invalidate),
    ];
    for thread in threads {
        thread.join().unwrap();
    }
    // Nothing old is left, nor a load, nor a lease.
    process.lookup();
    let next = process.flights.board(&process.store.key);
    assert!(matches!(next, Boarding::Pilot(_)), "a load is left over");
    let next = process.store.acquire();
    assert!(
        !matches!(next, Acquired::Held { .. }),
        "a lease is left over"
    );
}

/// By mere chance; and by priorities that change at few points, which finds what needs one thread to come far while another stands.
fn in_many_orders(run: fn()) {
    shuttle::check_random(run, ORDERS);
    shuttle::check_pct(run, ORDERS, 3);
}

fn breaks(run: fn()) -> bool {
    catch_unwind(AssertUnwindSafe(|| in_many_orders(run))).is_err()
}

#[test]
fn nothing_old_is_given_out_and_nothing_is_left_over() {
    in_many_orders(|| meet(false, Wrong::Nothing));
    in_many_orders(|| meet(true, Wrong::Nothing));
}

#[test]
fn who_joined_a_load_that_did_not_fill_needs_another() {
    assert!(breaks(|| {
        mutants::without(Guard::JoinersShareWhatIsFilled, || {
            meet(false, Wrong::Nothing);
        });
    }));
}

#[test]
fn a_load_is_closed_before_its_fill() {
    assert!(breaks(|| meet(false, Wrong::ClosesLate)));
}
