//! Policies for a limited time: begun, ended, and over by themselves.

use std::time::Duration;

use larder_model::api::{Action, NewOverride, Override};
use larder_model::{Endpoint, Mode, PolicyPatch, Service};
use serde_json::{Value, json};

use super::snapshot::describe;
use super::trail::{Made, Told};
use super::{ChangeError, Preconditions, Registry};
use crate::cause::Cause;
use crate::hex;
use crate::moment::{Expiry, Moment};
use crate::stored::{Identity, StoredOverride, identity};

/// No service has more overrides.
const MAX_OVERRIDES: usize = 200;
/// No override holds longer: 30 days. What is to hold longer is a policy.
const MAX_TIME: Duration = Duration::from_secs(30 * 86_400);
/// None holds shorter.
const MIN_TIME: Duration = Duration::from_secs(1);
/// How long the timer sleeps at most: a wall clock may be set meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

impl Registry {
    /// Begins an override; in the place of the one that is there if the preconditions name it.
    pub(crate) async fn begin_override(
        &self,
        service: &Service,
        new: NewOverride,
        preconditions: &Preconditions,
        cause: &Cause,
        now: Moment,
    ) -> Result<(Override, String), ChangeError> {
        let expiry = expiry(&new, now)?;
        check_patch(&new.policy)?;
        let endpoint: Endpoint = new
            .endpoint
            .parse()
            .map_err(|error| ChangeError::Endpoint {
                text: new.endpoint.chars().take(100).collect(),
                error,
            })?;
        let changing = self.begin(Some(service)).await?;
        let stored = self.stored(service)?;
        let key = identity(&endpoint);
        let old = stored.overrides.get(&key);
        let tag = old.map(|old| self.etag_of_override(&old.id));
        preconditions.check(tag.as_deref())?;
        if old.is_some() && preconditions.if_match.is_none() {
            return Err(ChangeError::Overridden);
        }
        if stored.overrides.len() >= MAX_OVERRIDES && old.is_none() {
            return Err(ChangeError::Full("200 overrides for this service"));
        }
        let over = StoredOverride {
            id: new_id()?,
            endpoint,
            patch: new.policy,
            author: cause.author.clone(),
            reason: cause.reason.clone(),
            began_at: now.wall.as_secs(),
            expiry,
        };
        let described = describe(service, &over);
        let told = Told {
            target: Some(over.endpoint.to_string()),
            before: old.map(|old| json!(describe(service, old))),
            after: json!(described),
        };
        let mut next = stored.next();
        next.overrides.insert(key, over);
        let made = Made {
            action: Action::OverrideBegan,
            cause,
            told: Some(told),
        };
        self.commit(changing, &stored, next, made).await?;
        let tag = self.etag_of_override(&described.id);
        Ok((described, tag))
    }

    /// The override with this name.
    pub(crate) fn override_in_force(&self, id: &str) -> Option<Override> {
        let (service, key) = self.find_override(id)?;
        let snapshot = self.service(&service)?;
        let over = snapshot.stored.overrides.get(&key)?;
        Some(describe(&service, over))
    }

    /// Ends an override.
    pub(crate) async fn end_override(
        &self,
        id: &str,
        preconditions: &Preconditions,
        cause: &Cause,
    ) -> Result<Override, ChangeError> {
        self.remove_override(id, preconditions, cause, Action::OverrideEnded)
            .await
    }

    /// Ends those whose time is over.
    pub(crate) async fn expire(&self, now: Moment) -> Result<(), ChangeError> {
        let cause = Cause::larder("its time is over");
        for snapshot in self.services().values() {
            let overrides = snapshot.stored.overrides.values();
            for over in overrides.filter(|over| over.expiry.is_past(now)) {
                let action = Action::OverrideExpired;
                let any = Preconditions::default();
                match self.remove_override(&over.id, &any, &cause, action).await {
                    // Somebody was faster.
                    Ok(_) | Err(ChangeError::NoOverride) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// How long until the next one is over, at most as long as the timer sleeps.
    pub(crate) fn sleep(&self, now: Moment) -> Duration {
        let services = self.services.load();
        let overrides = services
            .values()
            .flat_map(|snapshot| snapshot.stored.overrides.values());
        let left = overrides.map(|over| over.expiry.left(now)).min();
        left.map_or(LONGEST_SLEEP, |left| left.min(LONGEST_SLEEP))
    }

    async fn remove_override(
        &self,
        id: &str,
        preconditions: &Preconditions,
        cause: &Cause,
        action: Action,
    ) -> Result<Override, ChangeError> {
        // Of this service alone: another one that can't be read keeps no override from its end.
        let known = self.find_override(id).map(|(service, _)| service);
        let changing = self.begin(known.as_ref()).await?;
        let (service, key) = self.find_override(id).ok_or(ChangeError::NoOverride)?;
        preconditions.check(Some(&self.etag_of_override(id)))?;
        let stored = self.stored(&service)?;
        let mut next = stored.next();
        let over = next.overrides.remove(&key).ok_or(ChangeError::NoOverride)?;
        let ended = describe(&service, &over);
        let told = Told {
            target: Some(over.endpoint.to_string()),
            before: Some(json!(ended)),
            after: Value::Null,
        };
        let made = Made {
            action,
            cause,
            told: Some(told),
        };
        self.commit(changing, &stored, next, made).await?;
        Ok(ended)
    }

    fn find_override(&self, id: &str) -> Option<(Service, Identity)> {
        let services = self.services.load();
        services.values().find_map(|snapshot| {
            let mut overrides = snapshot.stored.overrides.iter();
            let (key, _) = overrides.find(|(_, over)| over.id == id)?;
            Some((snapshot.service().clone(), key.clone()))
        })
    }
}

fn expiry(new: &NewOverride, now: Moment) -> Result<Expiry, ChangeError> {
    let expiry = match (new.duration_seconds, new.expires_at_seconds) {
        (Some(seconds), None) => {
            let time = Duration::try_from_secs_f64(seconds).unwrap_or_default();
            Expiry::after(time, now)
        }
        (None, Some(at)) => Expiry::at(at, now),
        _ => {
            return Err(ChangeError::Override(
                "say either duration_seconds or expires_at_seconds",
            ));
        }
    };
    if (MIN_TIME..=MAX_TIME).contains(&expiry.left(now)) {
        return Ok(expiry);
    }
    Err(ChangeError::Override(
        "an override holds from now for 1 s to 30 days (2592000 s): what is to hold longer is a policy",
    ))
}

fn check_patch(patch: &PolicyPatch) -> Result<(), ChangeError> {
    if *patch == PolicyPatch::default() {
        return Err(ChangeError::Override("the override sets nothing"));
    }
    if matches!(patch.mode, Some(Mode::Auto | Mode::Shadow)) {
        return Err(ChangeError::Override(
            "an override's mode is on or off: auto and shadow are for policies",
        ));
    }
    Ok(())
}

fn new_id() -> Result<String, ChangeError> {
    let mut id = [0; 8];
    getrandom::fill(&mut id)
        .map_err(|_| ChangeError::Override("the system has no random numbers"))?;
    Ok(hex::encode(&id))
}
