//! Writes: entries are stored, filled and deleted; each ends the lease of its key.

use std::sync::Arc;

use larder_core::mutants::{Guard, is_off};
use larder_core::{Key, Lease, NewEntry, Skip, StoreError, Written};
use tokio::time::Instant;

use crate::command::{Command, Expect};
use crate::deadline::by;
use crate::lease::{Expected, lease_key, token_text};
use crate::node::Node;
use crate::probe::shown_bytes;
use crate::resp::Value;
use crate::scripts::{self, Call};
use crate::servers::{Answer, Outcome};
use crate::store::{BATCH, RedisStore};

/// So many bytes of values are sent in one batch, unless a single value has more.
const BATCH_BYTES: usize = 8 << 20;

/// The `UNLINK` of a lease, and the command behind it that stores the entry.
type StoreWords<'a> = ([&'a [u8]; 2], [&'a [u8]; 4]);

/// An entry's life, as it is written.
struct Life {
    /// Whether in whole seconds: so are entries that other programs read.
    is_in_seconds: bool,
    number: String,
}

impl Life {
    fn of(entry: &NewEntry) -> Self {
        let is_in_seconds = may_be_json(&entry.bytes);
        Self {
            is_in_seconds,
            number: match is_in_seconds {
                true => entry.ttl.as_secs().to_string(),
                false => entry.ttl.as_millis().to_string(),
            },
        }
    }
}

/// Whether what was to be done in one step can't be: its slot is on its way to another server, or the user may not do that
/// with leases.
fn is_for_two_steps(answer: &Answer) -> bool {
    let words: [&[u8]; 3] = [b"TRYAGAIN", b"ASK ", b"NOPERM"];
    match &answer.outcome {
        Ok(Some(Value::Error(error))) => words.iter().any(|word| error.starts_with(word)),
        _ => false,
    }
}

/// An error, or the first of several answers that is one.
fn error_in(value: &Value) -> Option<&[u8]> {
    match value {
        Value::Error(error) => Some(error),
        Value::Array(values) => values.iter().find_map(error_in),
        _ => None,
    }
}

/// Whether bytes begin as JSON text may; frames do not.
fn may_be_json(bytes: &[u8]) -> bool {
    let may_begin = |byte: &u8| byte.is_ascii_digit() || b" \t\r\n{[\"-tfn".contains(byte);
    bytes.first().is_none_or(may_begin)
}

impl RedisStore {
    /// In batches; what comes behind one without an answer, or of which none could be sent, is not begun, so that a server
    /// that hangs costs one deadline.
    pub(crate) async fn write_many(&self, entries: &[NewEntry]) -> Vec<Written> {
        self.prepare_all(entries.iter().map(|entry| &entry.key))
            .await;
        let mut written = Vec::with_capacity(entries.len());
        for batch in batches(entries) {
            let outcomes = self.write_batch(batch).await;
            let is_failed = |outcome: &Written| matches!(outcome, Written::Skipped(Skip::Store(_)));
            let is_over = outcomes.contains(&Written::Unknown) || outcomes.iter().all(is_failed);
            written.extend(outcomes);
            if is_over {
                break;
            }
        }
        written.resize(entries.len(), StoreError::NotBegun.into());
        written
    }

    pub(crate) async fn write_one(&self, entry: &NewEntry) -> Result<Written, StoreError> {
        if !self.fits(entry) {
            return Ok(Written::Skipped(Skip::TooLarge));
        }
        self.prepare(&entry.key).await?;
        let mut answers = match entry.guard.lease() {
            Some(lease) => self.fill(&[(entry, lease)]).await,
            None => self.store(&[entry]).await,
        };
        let answer = answers
            .pop()
            .unwrap_or(Answer::failed(StoreError::NotBegun));
        answer.outcome.as_ref().map_err(Clone::clone)?;
        Ok(self.settle_write(entry, answer))
    }

    /// What could not be read back is not written.
    fn fits(&self, entry: &NewEntry) -> bool {
        entry.bytes.len() <= self.max_value_bytes
    }

    /// What the entries of a batch became; those that are stored go out before those that are filled.
    async fn write_batch(&self, entries: &[NewEntry]) -> Vec<Written> {
        let fitting = || entries.iter().filter(|entry| self.fits(entry));
        let stored: Vec<&NewEntry> = fitting()
            .filter(|entry| entry.guard.lease().is_none())
            .collect();
        let filled: Vec<(&NewEntry, &Lease)> = fitting()
            .filter_map(|entry| Some((entry, entry.guard.lease()?)))
            .collect();
        let (mut stored, mut filled) = (
            self.store(&stored).await.into_iter(),
            self.fill(&filled).await.into_iter(),
        );
        let settle = |entry: &NewEntry| {
            if !self.fits(entry) {
                return Written::Skipped(Skip::TooLarge);
            }
            let answer = match entry.guard.lease() {
                Some(_) => filled.next(),
                None => stored.next(),
            };
            let answer = answer.unwrap_or(Answer::failed(StoreError::NotBegun));
            self.settle_write(entry, answer)
        };
        entries.iter().map(settle).collect()
    }

    /// Stores entries, and ends their leases in the same step.
    async fn store(&self, entries: &[&NewEntry]) -> Vec<Answer> {
        let texts: Vec<(String, Life)> = entries
            .iter()
            .map(|entry| (lease_key(entry.key.as_str()), Life::of(entry)))
            .collect();
        let words: Vec<StoreWords<'_>> = std::iter::zip(entries, &texts)
            .map(|(entry, (lease, life))| {
                let word: &[u8] = match life.is_in_seconds {
                    true => b"SETEX",
                    false => b"PSETEX",
                };
                let key = entry.key.as_str().as_bytes();
                (
                    [&b"UNLINK"[..], lease.as_bytes()],
                    [word, key, life.number.as_bytes(), &entry.bytes],
                )
            })
            .collect();
        let one_step = std::iter::zip(entries, &words).map(|(entry, (unlink, set))| {
            Command::in_one_step(unlink, set).guarded(Some(&entry.guard))
        });
        let one_step: Vec<Command<'_>> = one_step.collect();
        let deadline = Instant::now() + self.deadline;
        let named = self.servers.named().await;
        self.count_all(entries.iter().map(|entry| &entry.key));
        let mut answers = self.servers.ask_over(&one_step).await;
        let left = (0..answers.len()).filter(|index| is_for_two_steps(&answers[*index]));
        let left: Vec<usize> = left.collect();
        if !left.is_empty() {
            let steps = left.iter().map(|index| (entries[*index], &words[*index]));
            let stored = by(deadline, self.store_in_two(steps)).await;
            let stored =
                stored.unwrap_or_else(|| vec![Answer::failed(StoreError::TimedOut); left.len()]);
            for (index, answer) in std::iter::zip(left, stored) {
                answers[index] = answer;
            }
        }
        self.count_all(entries.iter().map(|entry| &entry.key));
        self.count_only_confirmed(&mut answers, named).await;
        answers
    }

    /// A master that has a successor may answer, and what it took is lost: what it replaced may be in the other one. So this
    /// is known to be stored only if the Sentinels still name the master.
    async fn count_only_confirmed(&self, answers: &mut [Answer], named: Option<Arc<Node>>) {
        let is_stored = |answer: &Answer| matches!(&answer.outcome, Ok(Some(value)) if error_in(value).is_none());
        if !answers.iter().any(is_stored) {
            return;
        }
        if let Err(error) = self.servers.confirm(named).await {
            let stored = answers.iter_mut().filter(|answer| is_stored(answer));
            stored.for_each(|answer| *answer = Answer::failed(error.clone()));
        }
    }

    /// The same where that can't be: where a slot is on its way, say, its keys may lie in two servers. A load whose lease is
    /// granted between the steps finds that its entry has changed.
    async fn store_in_two<'a>(
        &self,
        entries: impl Iterator<Item = (&'a NewEntry, &'a StoreWords<'a>)>,
    ) -> Vec<Answer> {
        let mut commands = Vec::new();
        for (entry, (unlink, set)) in entries {
            let guard = Some(&entry.guard);
            commands.push(Command::new(unlink, Expect::Integer).guarded(guard));
            commands.push(Command::new(set, Expect::Ok).guarded(guard));
        }
        let answers = self.servers.ask_over(&commands).await;
        answers.into_iter().skip(1).step_by(2).collect()
    }

    /// Fills: stores entries for who holds their leases.
    async fn fill(&self, entries: &[(&NewEntry, &Lease)]) -> Vec<Answer> {
        if entries.is_empty() {
            return Vec::new();
        }
        let now = self.now();
        let texts: Vec<(String, String, Expected, Vec<u8>, Life)> = entries
            .iter()
            .map(|(entry, lease)| {
                let expected = Expected::read(lease).unwrap_or_default();
                let argument = expected.argument(now);
                (
                    lease_key(entry.key.as_str()),
                    token_text(lease.token),
                    expected,
                    argument,
                    Life::of(entry),
                )
            })
            .collect();
        let calls = std::iter::zip(entries, &texts).map(
            |((entry, _), (lease, token, expected, argument, life))| Call {
                words: vec![
                    b"2",
                    lease.as_bytes(),
                    entry.key.as_str().as_bytes(),
                    token.as_bytes(),
                    argument,
                    if life.is_in_seconds { b"EX" } else { b"PX" },
                    life.number.as_bytes(),
                    &entry.bytes,
                ],
                guard: Some(&entry.guard),
                over: Some(expected.over).filter(|_| !is_off(Guard::FillIsBound)),
            },
        );
        let calls: Vec<Call<'_>> = calls.collect();
        self.count_all(entries.iter().map(|(entry, _)| &entry.key));
        let answers = self.fill.call(&self.servers, &calls).await;
        self.count_all(entries.iter().map(|(entry, _)| &entry.key));
        for ((entry, lease), answer) in std::iter::zip(entries, &answers) {
            // The connection is another one: others need not wait for the lease to end by itself.
            if matches!(answer.outcome, Ok(None)) && entry.guard.allows() {
                self.drop_lease(lease);
            }
        }
        answers
    }

    /// What this process changes it knows at once: before it is sent, and when it is done. In between others may have read.
    pub(crate) fn count_all<'a>(&self, keys: impl Iterator<Item = &'a Key>) {
        for key in keys {
            self.changes.count(key.as_str().as_bytes());
        }
    }

    fn settle_write(&self, entry: &NewEntry, answer: Answer) -> Written {
        match &answer.outcome {
            Err(error) => return error.clone().into(),
            Ok(None) => return Written::Refused,
            Ok(Some(value)) => {
                if let Some(error) = error_in(value) {
                    return StoreError::Refused(shown_bytes(error)).into();
                }
            }
        }
        match entry.guard.lease().map(|_| scripts::number(&answer)) {
            None | Some(Some(1)) => Written::Stored,
            Some(Some(2)) => Written::Superseded,
            Some(_) => Written::Refused,
        }
    }

    /// Deletes entries, and ends their leases before: what can be deleted; an error if that is not all.
    pub(crate) async fn delete_all(&self, keys: &[Key]) -> Result<u64, StoreError> {
        let mut deleted = Unlinked::default();
        let named = self.servers.named().await;
        for keys in keys.chunks(BATCH) {
            let leases: Vec<String> = keys.iter().map(|key| lease_key(key.as_str())).collect();
            let leases = leases.iter().map(String::as_bytes);
            let leases: Vec<&[u8]> = leases.filter(|_| !is_off(Guard::DeleteEndsLease)).collect();
            let keys: Vec<&[u8]> = keys.iter().map(|key| key.as_str().as_bytes()).collect();
            let redirects = self.servers.redirects();
            self.unlink(&leases, &keys, &mut deleted).await;
            // Where both were sent on, the lease may have ended behind the entry, with a fill in between.
            if self.servers.redirects() != redirects && deleted.is_to_go_on() {
                self.unlink(&[], &keys, &mut deleted).await;
            }
            if !deleted.is_to_go_on() {
                break;
            }
        }
        let deleted = deleted.end()?;
        self.servers.confirm(named).await?;
        Ok(deleted)
    }

    /// Deletes keys: what can be deleted; an error if that is not all.
    pub(crate) async fn unlink_all<'a>(
        &self,
        keys: impl Iterator<Item = &'a [u8]>,
    ) -> Result<u64, StoreError> {
        let keys: Vec<&[u8]> = keys.collect();
        let mut deleted = Unlinked::default();
        for keys in keys.chunks(BATCH) {
            self.unlink(&[], keys, &mut deleted).await;
            if !deleted.is_to_go_on() {
                break;
            }
        }
        deleted.end()
    }

    /// Deletes keys, leases before entries.
    async fn unlink(&self, leases: &[&[u8]], entries: &[&[u8]], deleted: &mut Unlinked) {
        let together = self.servers.keys_per_command().min(BATCH);
        let parts = leases.chunks(together).chain(entries.chunks(together));
        let unlinks: Vec<Vec<&[u8]>> = parts
            .map(|keys| [&[&b"UNLINK"[..]], keys].concat())
            .collect();
        let commands = unlinks
            .iter()
            .map(|unlink| Command::new(unlink, Expect::Integer));
        let commands: Vec<Command<'_>> = commands.collect();
        entries.iter().for_each(|key| self.changes.count(key));
        let outcomes = self.servers.ask(&commands).await;
        entries.iter().for_each(|key| self.changes.count(key));
        let of_leases = leases.chunks(together).count();
        for (index, outcome) in outcomes.into_iter().enumerate() {
            match count(outcome) {
                Ok(count) if index >= of_leases => deleted.entries += count,
                Ok(_) => {}
                Err(failure) => deleted.failures.push(failure),
            }
        }
    }
}

/// What came of deletes.
#[derive(Default)]
struct Unlinked {
    entries: u64,
    failures: Vec<StoreError>,
}

impl Unlinked {
    /// A server that is away costs nothing, one that hangs a deadline.
    fn is_to_go_on(&self) -> bool {
        !self.failures.iter().any(StoreError::may_have_happened)
    }

    fn end(self) -> Result<u64, StoreError> {
        match worst(self.failures) {
            Some(failure) => Err(failure),
            None => Ok(self.entries),
        }
    }
}

/// Of several failures the one to tell: what may have happened comes first.
pub(crate) fn worst(failures: Vec<StoreError>) -> Option<StoreError> {
    let worst = failures.iter().position(StoreError::may_have_happened);
    failures.into_iter().nth(worst.unwrap_or(0))
}

fn count(outcome: Outcome) -> Result<u64, StoreError> {
    match outcome? {
        Some(Value::Integer(count)) => Ok(u64::try_from(count).unwrap_or(0)),
        Some(Value::Error(error)) => Err(StoreError::Refused(shown_bytes(&error))),
        _ => Err(StoreError::Refused("no reply".to_owned())),
    }
}

/// The entries in parts, each small enough to be on its way at once.
fn batches(mut entries: &[NewEntry]) -> impl Iterator<Item = &[NewEntry]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |entry: &&NewEntry| {
            bytes += entry.bytes.len();
            bytes <= BATCH_BYTES
        };
        let count = entries.iter().take(BATCH).take_while(fits).count().max(1);
        let batch;
        (batch, entries) = entries.split_at_checked(count)?;
        Some(batch)
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use larder_core::{Guard, Ttl};

    use super::*;

    #[test]
    fn a_batch_has_no_more_entries_and_bytes_than_may_be_on_their_way() {
        let entries = |count: usize, bytes: usize| -> Vec<NewEntry> {
            let entry = NewEntry {
                key: Key::new("svc", "/a").unwrap(),
                bytes: vec![b'1'; bytes].into(),
                ttl: Ttl::new(Duration::from_secs(1)).unwrap(),
                guard: Guard::Always,
            };
            vec![entry; count]
        };
        let sizes = |count, bytes| -> Vec<usize> {
            batches(&entries(count, bytes)).map(<[_]>::len).collect()
        };
        assert!(sizes(0, 1).is_empty());
        assert_eq!(sizes(1_001, 1), [500, 500, 1]);
        assert_eq!(sizes(20, 1 << 20), [8, 8, 4]);
        assert_eq!(sizes(2, 9 << 20), [1, 1]);
    }
}
