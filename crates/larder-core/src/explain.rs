//! What is known of a key, and what a lookup of it would do now, by which rule. Looking changes nothing.

use std::time::Duration;

use larder_model::Key;

use crate::frame::{Frame, FrameError, Frames, Freshness, Wrapped};
use crate::governor::{Gate, Governor};
use crate::json::Json;
use crate::outbox::Outbox;
use crate::store::{Store, StoreError, Stored, Ttl};
use crate::version::{Stamp, VersionName, is_of_life};

/// What a lookup goes by.
pub struct Explainer<'a> {
    /// Where entries are.
    pub store: &'a dyn Store,
    /// The policies.
    pub governor: &'a dyn Governor,
    /// What framed entries are read with.
    pub frames: &'a Frames,
    /// What the store could not be told.
    pub outbox: &'a Outbox,
}

/// What is known of a key.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// The entry; `None` if there is none.
    pub entry: Option<Entry>,
    /// How long the lease of a load that is under way holds, unless it is extended. Who holds it can't be known.
    pub lease: Option<Duration>,
    /// Whether an invalidation of it is pending.
    pub is_pending: bool,
    /// What a lookup would do now.
    pub rule: Rule,
}

/// An entry that was looked at.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its size in the store, in bytes.
    pub bytes: u64,
    /// What is left of its life; `None` if it has no end, or that was not told.
    pub left: Option<Duration>,
    /// How it lies there.
    pub form: EntryForm,
}

/// How an entry lies in the store.
#[derive(Debug, Clone)]
pub enum EntryForm {
    /// As JSON text.
    Plain,
    /// In a frame.
    Framed(Box<LookedAt>),
    /// So that it can't be used.
    Unreadable(FrameError),
}

/// A framed entry that was looked at.
#[derive(Debug, Clone)]
pub struct LookedAt {
    /// What it says of itself.
    pub frame: Frame,
    /// How its value is stored.
    pub wrapped: Wrapped,
    /// How old it is; `None` if another program changed its life.
    pub age: Option<Duration>,
    /// What it may be served for at that age, by the policy in force.
    pub freshness: Option<Freshness>,
    /// Whether its server has lost nothing since it was stored.
    pub is_of_this_life: bool,
    /// What it depends on, and how that stands.
    pub stamps: Vec<(Stamp, StampState)>,
}

/// How what an entry depends on stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StampState {
    /// It is what it was.
    Same,
    /// It was renewed, and so invalidated.
    Renewed,
    /// Its server may have lost an invalidation: it was told in another life of it.
    OtherLife,
    /// It is to be renewed, and the store does not know of it yet.
    Pending,
}

/// By what rule a lookup would do what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The policy in force caches nothing here: it loads, and fills nothing.
    PolicyOff,
    /// An invalidation is pending: it loads, and fills nothing.
    Pending,
    /// The policy's TTL is 0: it loads, and fills nothing.
    NoTtl,
    /// The entry is fresh.
    Fresh,
    /// It is served, and loaded anew in the background.
    StaleWhileRevalidate,
    /// It loads; if that fails, the entry is served.
    StaleIfError,
    /// It waits for the load that has the lease.
    Leased,
    /// There is no entry.
    Absent,
    /// The entry's time is over.
    Over,
    /// What the entry depends on was renewed, or its server has lost writes.
    Dead,
    /// The entry can't be read.
    Unreadable,
}

impl Rule {
    /// The word for programs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PolicyOff => "policy_off",
            Self::Pending => "pending",
            Self::NoTtl => "no_ttl",
            Self::Fresh => "fresh",
            Self::StaleWhileRevalidate => "stale_while_revalidate",
            Self::StaleIfError => "stale_if_error",
            Self::Leased => "leased",
            Self::Absent => "absent",
            Self::Over => "over",
            Self::Dead => "dead",
            Self::Unreadable => "unreadable",
        }
    }

    /// What a lookup would do, in a word: hit, stale, wait, load or bypass.
    #[must_use]
    pub fn verdict(self) -> &'static str {
        match self {
            Self::PolicyOff => "bypass",
            Self::Fresh => "hit",
            Self::StaleWhileRevalidate => "stale",
            Self::Leased => "wait",
            _ => "load",
        }
    }

    /// Whether what it would load, itself or in the background, would be stored.
    #[must_use]
    pub fn fills(self) -> bool {
        !matches!(
            self,
            Self::PolicyOff | Self::Pending | Self::NoTtl | Self::Fresh | Self::Leased
        )
    }

    /// What a lookup would do, and why, in one sentence.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::PolicyOff => {
                "the policy in force caches nothing here: it would load, and store nothing"
            }
            Self::Pending => {
                "an invalidation is pending that the store does not know of: it would load, and store nothing"
            }
            Self::NoTtl => "the policy's TTL is 0: it would load, and store nothing",
            Self::Fresh => "the entry is fresh: it would be served",
            Self::StaleWhileRevalidate => {
                "the entry is stale, but may be served while it is loaded anew in the background"
            }
            Self::StaleIfError => {
                "the entry is stale: it would load, store that, and serve the old one only if the load fails"
            }
            Self::Leased => "another load holds the lease: it would wait for that load's value",
            Self::Absent => "there is no entry: it would load, and store that",
            Self::Over => "the entry's time is over: it would load, and store that",
            Self::Dead => {
                "the entry is dead, since what it depends on was renewed or its server lost writes: it would load, and store that"
            }
            Self::Unreadable => "the entry can't be read: it would load, and store that",
        }
    }
}

impl Explainer<'_> {
    /// What is known of a key now.
    ///
    /// # Errors
    /// A [`StoreError`] if the store could not be asked.
    pub async fn explain(&self, key: &Key) -> Result<Explanation, StoreError> {
        let gate = self.governor.gate(key);
        let stored = self.store.get(key, Ttl::MAX).await?;
        let frame = stored.as_ref().map(|stored| {
            let frame = self
                .frames
                .decode(key, &stored.bytes, larder_model::MAX_VALUE_BYTES);
            (frame, Wrapped::of(&stored.bytes))
        });
        let names: Vec<VersionName> = match &frame {
            Some((Ok(frame), _)) => frame
                .stamps
                .iter()
                .map(|stamp| stamp.name.clone())
                .collect(),
            _ => Vec::new(),
        };
        let beside = self.store.beside(key, &names).await?;
        let (mut entry, mut rule) = (None, Rule::Absent);
        if let (Some(stored), Some((frame, wrapped))) = (stored, frame) {
            let form = match (frame, wrapped) {
                (Ok(frame), Some(wrapped)) => {
                    let looked_at = self.look_at(key, &stored, frame, wrapped, &beside.versions);
                    EntryForm::Framed(Box::new(looked_at))
                }
                (Err(FrameError::NotFramed), _) => EntryForm::Plain,
                (Err(error), _) => EntryForm::Unreadable(error),
                (Ok(_), None) => EntryForm::Unreadable(FrameError::Malformed),
            };
            rule = rule_of(&form, &stored);
            entry = Some(Entry {
                bytes: stored.bytes.len() as u64,
                left: stored.ttl,
                form,
            });
        }
        let is_pending = self.outbox.hides(key);
        rule = overruled(rule, gate, is_pending, beside.lease.is_some());
        Ok(Explanation {
            entry,
            lease: beside.lease,
            is_pending,
            rule,
        })
    }

    fn look_at(
        &self,
        key: &Key,
        stored: &Stored,
        frame: Frame,
        wrapped: Wrapped,
        versions: &[Option<crate::version::Version>],
    ) -> LookedAt {
        let service = larder_model::Service::from(key);
        let state = |(stamp, now): (&Stamp, &Option<crate::version::Version>)| {
            let state = match now {
                _ if self.outbox.hides_version(&service, &stamp.name) => StampState::Pending,
                Some(now) if !is_of_life(stamp.version.incarnation, now.incarnation) => {
                    StampState::OtherLife
                }
                Some(now) if now.value == stamp.version.value => StampState::Same,
                _ => StampState::Renewed,
            };
            (stamp.clone(), state)
        };
        let stamps = frame.stamps.iter().zip(versions).map(state).collect();
        let age = frame.age(stored.ttl);
        let gate = self.governor.gate(key);
        let mut cut = frame.clone();
        cut.cut_to(gate.ttl.map_or(Duration::ZERO, Ttl::get));
        cut.stale_while_revalidate = cut.stale_while_revalidate.min(gate.stale_while_revalidate);
        cut.stale_if_error = cut.stale_if_error.min(gate.stale_if_error);
        LookedAt {
            age,
            freshness: age.map(|age| cut.freshness(age)),
            is_of_this_life: is_of_life(frame.incarnation, stored.incarnation),
            stamps,
            wrapped,
            frame,
        }
    }
}

/// What the entry alone says.
fn rule_of(form: &EntryForm, stored: &Stored) -> Rule {
    let looked_at = match form {
        EntryForm::Plain if Json::parse(stored.bytes.clone()).is_ok() => return Rule::Fresh,
        EntryForm::Plain | EntryForm::Unreadable(_) => return Rule::Unreadable,
        EntryForm::Framed(looked_at) => looked_at,
    };
    let is_alive = looked_at.is_of_this_life
        && looked_at
            .stamps
            .iter()
            .all(|(_, state)| *state == StampState::Same);
    match looked_at.freshness {
        None => Rule::Unreadable,
        Some(_) if !is_alive => Rule::Dead,
        Some(Freshness::Fresh) => Rule::Fresh,
        Some(Freshness::StaleWhileRevalidate) => Rule::StaleWhileRevalidate,
        Some(Freshness::StaleIfError) => Rule::StaleIfError,
        Some(Freshness::Over) => Rule::Over,
    }
}

/// What stands above the entry.
fn overruled(rule: Rule, gate: Gate, is_pending: bool, is_leased: bool) -> Rule {
    let is_served = matches!(rule, Rule::Fresh | Rule::StaleWhileRevalidate);
    match rule {
        _ if !gate.cache_enabled => Rule::PolicyOff,
        _ if is_pending => Rule::Pending,
        _ if gate.ttl.is_none() => Rule::NoTtl,
        _ if is_leased && !is_served => Rule::Leased,
        rule => rule,
    }
}
