//! Who may do what: keys in memory, who is let in by them, and to what.
//!
//! Keys lie in the database, and all of them in memory. Another process may change them there (`larder key`, another
//! replica): a number in the database tells of that, and is looked at every two seconds, and when a key is shown that is not
//! known. As long as there never was a key, whoever is on this machine may do all, and nobody else anything.

mod bad;
mod caller;
mod change;
mod following;
mod guard;
mod key;
mod keyring;
mod log_in;
mod password;
mod rates;
mod services;
pub(crate) mod session;
mod table;
mod token;
pub(crate) mod user;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use larder_model::api::ApiKey;
use tokio::sync::Mutex;

use bad::Bad;
pub(crate) use caller::{Caller, Need, SignedIn, Who, not_there};
pub(crate) use change::AccessChange;
pub(crate) use following::run;
pub(crate) use guard::{charge_signals, check};
pub(crate) use key::{Key, StoredKey, StreamOfKey};
pub use keyring::{Keyring, KeyringError};
pub(crate) use log_in::LogInError;
use password::Desk;
pub(crate) use password::{Hashed, PasswordError};
pub(crate) use services::Services;
pub(crate) use session::{Ticket, no_cookie};
pub(crate) use token::{Digest, is_in as is_key_in};
pub(crate) use user::{NewUserOf, StoredUser, UserError, Wanted};

use crate::database::Database;
use rates::{Buckets, Many, OF_FAILURES};
use token::Shown;

/// The database is not asked more often, whatever is shown.
const PACE: Duration = Duration::from_millis(100);

/// Who may do what.
pub(crate) struct Access {
    database: Database,
    /// `None`: not read yet.
    known: ArcSwapOption<Known>,
    /// What was shown, and is none.
    bad: Bad,
    /// When the database was last asked.
    asked: Mutex<Option<Instant>>,
    failures: Many<IpAddr>,
    desk: Desk,
    log_ins_of_addresses: Many<IpAddr>,
    log_ins_of_accounts: Many<String>,
    /// What users take, by their names.
    users: std::sync::Mutex<HashMap<String, Arc<Buckets>>>,
    /// Those of everybody, where there are no keys.
    local: Buckets,
    /// Whether only this machine reaches the control plane.
    is_on_loopback: AtomicBool,
}

/// All keys, as they were at a version.
struct Known {
    version: u64,
    keys: HashMap<String, Key>,
    /// Whether there is, or was, a user.
    has_users: bool,
}

/// What somebody shows.
pub(crate) enum Credential {
    Key(Shown),
    Session(Ticket),
}

/// Whose an address is; all are one where the server does not say.
fn network_of(address: Option<IpAddr>) -> IpAddr {
    rates::network(address.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED.into()))
}

/// Why somebody is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// The keys were not read yet.
    Loading,
    /// There are no keys, and the control plane, or he, is not on this machine.
    NoKeys,
    /// He shows nothing.
    Nothing,
    /// He shows no key, or not one.
    NoKey,
    /// There is no such key.
    OtherKey,
    /// His session is over.
    NoSession,
    /// The database does not tell whether he has a session.
    Unasked,
    Revoked,
    Expired,
    /// He showed too many that are none: again after this time.
    TooOften(Duration),
}

impl Access {
    pub(crate) fn new(database: Database) -> Self {
        Self {
            database,
            known: ArcSwapOption::empty(),
            bad: Bad::default(),
            asked: Mutex::default(),
            failures: Many::default(),
            desk: Desk::default(),
            log_ins_of_addresses: Many::default(),
            log_ins_of_accounts: Many::default(),
            users: std::sync::Mutex::default(),
            local: Buckets::default(),
            is_on_loopback: AtomicBool::new(true),
        }
    }

    /// Says that other machines reach the control plane.
    pub(crate) fn is_reached_by_others(&self) {
        self.is_on_loopback.store(false, Ordering::Relaxed);
    }

    /// Whether there is, or was, a key or a user; `None` before that is known.
    pub(crate) fn is_protected(&self) -> Option<bool> {
        let known = self.known.load();
        known
            .as_ref()
            .map(|known| known.has_users || !known.keys.is_empty())
    }

    /// Whether there is, or was, a user.
    pub(crate) fn has_users(&self) -> bool {
        let known = self.known.load();
        known.as_ref().is_some_and(|known| known.has_users)
    }

    /// Reads the keys, if they are others than those in memory. Whether they were.
    pub(crate) async fn refresh(&self) -> Result<bool, sqlx::Error> {
        let mut asked = self.asked.lock().await;
        *asked = Some(Instant::now());
        self.read().await
    }

    /// [`Access::refresh`], unless that was done a moment ago: `None` then.
    async fn refresh_in_its_pace(&self) -> Option<Result<bool, sqlx::Error>> {
        let mut asked = self.asked.try_lock().ok()?;
        let now = Instant::now();
        if asked.is_some_and(|asked| now.saturating_duration_since(asked) < PACE) {
            return None;
        }
        *asked = Some(now);
        Some(self.read().await)
    }

    async fn read(&self) -> Result<bool, sqlx::Error> {
        let version = self.database.access_version().await?;
        let before = self.known.load_full();
        if before
            .as_ref()
            .is_some_and(|known| known.version == version)
        {
            return Ok(false);
        }
        let has_users = self.database.has_users().await?;
        let stored = self.database.api_keys().await?;
        let before = before.as_ref().map(|known| &known.keys);
        let key = |stored: StoredKey| {
            let before = before.and_then(|keys| keys.get(&stored.id));
            (stored.id.clone(), Key::new(stored, before))
        };
        let keys = stored.into_iter().map(key).collect();
        self.known.store(Some(Arc::new(Known {
            version,
            keys,
            has_users,
        })));
        self.bad.clear();
        Ok(true)
    }

    /// Who shows this, if he shows anything. Whatever asks the database is boxed: a future of many KiB would be moved with each
    /// request, which most often needs none of it.
    pub(crate) async fn identify(
        &self,
        shown: Option<Result<Credential, ()>>,
        address: Option<IpAddr>,
    ) -> Result<Caller, Unknown> {
        match self.is_protected() {
            None => return Err(Unknown::Loading),
            Some(false) if self.is_local(address) => return Ok(Caller::local()),
            Some(false) => return Err(Unknown::NoKeys),
            Some(true) => {}
        }
        let found = match shown {
            None => return Err(Unknown::Nothing),
            Some(Err(())) => Err(Unknown::NoKey),
            Some(Ok(Credential::Key(shown))) => self.find(&shown).await.map(Caller::of_key),
            Some(Ok(Credential::Session(ticket))) => {
                return Box::pin(self.find_session_of(ticket, network_of(address))).await;
            }
        };
        found.map_err(|unknown| {
            let address = network_of(address);
            let taken = self.failures.take(address, &OF_FAILURES, rates::now());
            taken.err().map_or(unknown, Unknown::TooOften)
        })
    }

    /// Who has a session. Each that is none costs a question to the database: so from where too many of them came, no more is
    /// asked.
    async fn find_session_of(&self, ticket: Ticket, address: IpAddr) -> Result<Caller, Unknown> {
        let taken = self.failures.take(address, &OF_FAILURES, rates::now());
        taken.map_err(Unknown::TooOften)?;
        let found = self.find_session(ticket).await;
        // That the database did not answer is not held against anybody.
        if matches!(found, Ok(_) | Err(Unknown::Unasked)) {
            self.failures.give_back(&address, &OF_FAILURES);
        }
        found
    }

    /// Whether a session is over; `false` where the database does not say.
    pub(crate) async fn has_ended(&self, ticket: &Ticket) -> bool {
        let now = crate::auto::now().as_secs();
        let found = self.database.session(ticket.digest(), now).await;
        matches!(found, Ok(None))
    }

    /// Without keys: whether he is on this machine, as far as the connection tells.
    fn is_local(&self, address: Option<IpAddr>) -> bool {
        self.is_on_loopback.load(Ordering::Relaxed)
            && address.is_some_and(|address| address.to_canonical().is_loopback())
    }

    /// The key that is shown.
    async fn find(&self, shown: &Shown) -> Result<Key, Unknown> {
        if let Some(found) = self.look(shown) {
            return found;
        }
        if self.bad.has(shown.digest) {
            return Err(Unknown::OtherKey);
        }
        // It may have been made a moment ago, by another process.
        match Box::pin(self.refresh_in_its_pace()).await {
            None => return Err(Unknown::OtherKey),
            Some(Err(error)) => tracing::warn!(%error, "the database can't be asked for keys"),
            Some(Ok(_)) => {
                if let Some(found) = self.look(shown) {
                    return found;
                }
                self.bad.put(shown.digest);
            }
        }
        Err(Unknown::OtherKey)
    }

    /// The same in memory; `None`: there is none, or its secret is another.
    fn look(&self, shown: &Shown) -> Option<Result<Key, Unknown>> {
        let known = self.known.load();
        let key = known.as_ref()?.keys.get(&shown.id)?;
        if !key.stored.digest.is(shown.digest) {
            return None;
        }
        let now = crate::auto::now().as_secs();
        if key.stored.revoked_at.is_some() {
            return Some(Err(Unknown::Revoked));
        }
        if key.stored.expires_at.is_some_and(|at| at <= now) {
            return Some(Err(Unknown::Expired));
        }
        key.was_used(now);
        Some(Ok(key.clone()))
    }

    /// All keys, oldest first, with what is not written down yet of their use.
    pub(crate) async fn list(&self) -> Result<Vec<ApiKey>, sqlx::Error> {
        let stored = self.database.api_keys().await?;
        let known = self.known.load();
        let describe = |stored: StoredKey| {
            let key = known.as_ref().and_then(|known| known.keys.get(&stored.id));
            let mut described = stored.describe();
            let used_at = key.and_then(Key::used_at);
            described.used_at_seconds = described.used_at_seconds.max(used_at);
            described
        };
        Ok(stored.into_iter().map(describe).collect())
    }

    /// Writes down which keys were used lately.
    async fn write_uses(&self) -> Result<(), sqlx::Error> {
        let known = self.known.load_full();
        let keys = known.iter().flat_map(|known| known.keys.values());
        let mut uses: Vec<_> = keys
            .filter_map(|key| Some((key.stored.id.clone(), key.unwritten_use()?)))
            .collect();
        // In one order on all replicas, so that none waits for another that waits for it.
        uses.sort_unstable();
        if uses.is_empty() {
            return Ok(());
        }
        self.database.note_uses(&uses).await
    }
}
