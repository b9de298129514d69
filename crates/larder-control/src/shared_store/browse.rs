//! Looking into the store: a page of keys at a time, an entry with what a lookup of it would do. Looking changes nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use larder_core::{
    Cursor, Entry, EntryForm, Explainer, FixedGovernor, FrameError, Frames, Json, Key, LookedAt,
    Pattern, Policy, Service, StampState, Stored, Ttl,
};
use larder_model::api::{EntryDetail, EntryStamp, KeyExplanation, KeyList, KeySummary};

use super::SharedStore;

/// A look takes no longer.
const PATIENCE: Duration = Duration::from_secs(5);
/// A page is given as it is after this time, though it may hold more.
const ENOUGH: Duration = Duration::from_secs(1);
/// No more of a value is shown, in bytes.
const MAX_SHOWN: usize = 4_096;

impl SharedStore {
    /// A page of the keys that a pattern means: about so many.
    pub(crate) async fn keys(
        &self,
        pattern: &Pattern,
        after: Option<String>,
        limit: usize,
    ) -> Result<KeyList, String> {
        let walk = self.walk(pattern, after.map(Cursor), limit);
        let walked = tokio::time::timeout(PATIENCE, walk).await;
        walked.map_err(|_| "the store did not answer within 5 s".to_owned())?
    }

    async fn walk(
        &self,
        pattern: &Pattern,
        mut after: Option<Cursor>,
        limit: usize,
    ) -> Result<KeyList, String> {
        let began = Instant::now();
        // A scan may meet an entry twice.
        let mut found = BTreeMap::new();
        loop {
            let left = limit.saturating_sub(found.len()).max(1);
            let page = self.store.scan(Some(pattern), after.take(), left).await;
            let page = page.map_err(|error| error.to_string())?;
            for entry in page.entries {
                found.insert(entry.key.as_str().to_owned(), (entry.ttl, entry.bytes));
            }
            after = page.next;
            if after.is_none() || found.len() >= limit || began.elapsed() > ENOUGH {
                break;
            }
        }
        let keys = found.into_iter().map(|(key, (ttl, bytes))| KeySummary {
            key,
            ttl_seconds: ttl.map(|ttl| ttl.as_secs_f64()),
            bytes,
        });
        Ok(KeyList {
            service_name: pattern.service().to_owned(),
            store: self.name(),
            keys: keys.collect(),
            next: after.map(|cursor| cursor.0),
        })
    }

    /// What is known of a key, and what a lookup would do by this policy.
    pub(crate) async fn explain(
        &self,
        key: &Key,
        policy: Policy,
        said: String,
    ) -> Result<KeyExplanation, String> {
        let looking = self.look(key, policy, said);
        let looked = tokio::time::timeout(PATIENCE, looking).await;
        looked.map_err(|_| "the store did not answer within 5 s".to_owned())?
    }

    async fn look(
        &self,
        key: &Key,
        policy: Policy,
        said: String,
    ) -> Result<KeyExplanation, String> {
        let cache = self.cache(&Service::from(key)).await?;
        let explainer = Explainer {
            store: &*self.store,
            governor: &FixedGovernor::new(policy),
            frames: &self.frames,
            outbox: cache.outbox(),
        };
        let explained = explainer.explain(key).await;
        let explained = explained.map_err(|error| error.to_string())?;
        let stored = match &explained.entry {
            Some(_) => self.store.get(key, Ttl::MAX).await,
            None => Ok(None),
        };
        let stored = stored.map_err(|error| error.to_string())?;
        let rule = explained.rule;
        let entry = explained.entry.as_ref();
        Ok(KeyExplanation {
            key: key.as_str().to_owned(),
            store: self.name(),
            entry: entry.map(|entry| self.describe(key, entry, stored.as_ref())),
            lease_left_seconds: explained.lease.map(|left| left.as_secs_f64()),
            pending: explained.is_pending,
            lookup: rule.verdict().to_owned(),
            rule: rule.as_str().to_owned(),
            because: rule.sentence().to_owned(),
            policy: said,
        })
    }

    fn describe(&self, key: &Key, entry: &Entry, stored: Option<&Stored>) -> EntryDetail {
        let mut detail = EntryDetail {
            form: String::new(),
            bytes: entry.bytes,
            left_seconds: entry.left.map(|left| left.as_secs_f64()),
            age_seconds: None,
            fresh_seconds: None,
            packed: false,
            sealed: false,
            stamps: Vec::new(),
            value: None,
            value_bytes: None,
            why: None,
        };
        match &entry.form {
            EntryForm::Plain => {
                "plain".clone_into(&mut detail.form);
                if let Some(stored) = stored {
                    show(&mut detail, &stored.bytes);
                    if Json::parse(stored.bytes.clone()).is_err() {
                        detail.why = Some("it is no JSON: a lookup takes it for a miss".to_owned());
                    }
                }
            }
            EntryForm::Framed(framed) => {
                "framed".clone_into(&mut detail.form);
                frame(&mut detail, framed);
            }
            EntryForm::Unreadable(error) => {
                "unreadable".clone_into(&mut detail.form);
                detail.why = Some(self.unreadable(error));
                // One that isn't sealed where it should be is shown all the same.
                let plain = Frames::new(None);
                let most = larder_core::MAX_VALUE_BYTES;
                let read = stored.map(|stored| plain.decode(key, &stored.bytes, most));
                if let (FrameError::Unsealed, Some(Ok(frame))) = (error, read) {
                    show(&mut detail, &frame.payload);
                }
            }
        }
        detail
    }

    fn unreadable(&self, error: &FrameError) -> String {
        match error {
            FrameError::OtherKey => {
                "it is sealed with a key that the control plane does not have: LARDER_SEAL_KEYS"
                    .to_owned()
            }
            error => error.to_string(),
        }
    }
}

fn frame(detail: &mut EntryDetail, framed: &LookedAt) {
    detail.age_seconds = framed.age.map(|age| age.as_secs_f64());
    detail.fresh_seconds = Some(framed.frame.fresh.as_secs_f64());
    detail.packed = framed.wrapped.is_packed;
    detail.sealed = framed.wrapped.is_sealed;
    let stamps = framed.stamps.iter().map(|(stamp, state)| EntryStamp {
        name: stamp.name.to_string(),
        state: match state {
            StampState::Same => "same",
            StampState::Renewed => "renewed",
            StampState::OtherLife => "other_life",
            StampState::Pending => "pending",
        }
        .to_owned(),
    });
    detail.stamps = stamps.collect();
    show(detail, &framed.frame.payload);
}

/// As much of a value as is shown.
fn show(detail: &mut EntryDetail, value: &[u8]) {
    let shown = &value[..value.len().min(MAX_SHOWN)];
    let mut text = larder_model::escape(&String::from_utf8_lossy(shown)).into_owned();
    if shown.len() < value.len() {
        text.push('…');
    }
    detail.value = Some(text);
    detail.value_bytes = Some(value.len() as u64);
}
