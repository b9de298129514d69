//! Windows that wait for the next tick, bounded whatever is sent.

use std::collections::HashMap;
use std::time::Duration;

use larder_decide::Arrived;
use larder_model::{Endpoint, Service};

use super::check::Checked;

/// More windows are not kept until the next tick.
const MAX_WINDOWS: usize = 50_000;
/// Nor more records of keys and answers.
const MAX_RECORDS: usize = 2_000_000;
/// No window is longer, in milliseconds: times within one count up to 43 minutes.
const MAX_LENGTH_MS: u64 = 2_600_000;

/// Windows by service and endpoint.
#[derive(Default)]
pub(super) struct Inbox {
    by_service: HashMap<Service, HashMap<Endpoint, Vec<Arrived>>>,
    windows: usize,
    records: usize,
}

impl Inbox {
    pub(super) fn put(&mut self, one: &Checked, now: Duration) {
        let Some(endpoint) = &one.endpoint else {
            return;
        };
        let records = one
            .evidence
            .as_ref()
            .map_or(0, |it| it.keys.len() + it.answers.len());
        if self.windows >= MAX_WINDOWS || self.records + records > MAX_RECORDS {
            return;
        }
        let endpoints = self.by_service.entry(one.service.clone()).or_default();
        let waiting = endpoints.entry(endpoint.clone()).or_default();
        let arrived = arrived(one, now);
        // Single signals are one window.
        if let Some(last) = waiting.last_mut()
            && one.identity.is_none()
            && last.id.0.is_empty()
        {
            last.window.merge(&one.window);
            return;
        }
        self.windows += 1;
        self.records += records;
        waiting.push(arrived);
    }

    pub(super) fn take(&mut self) -> HashMap<Service, HashMap<Endpoint, Vec<Arrived>>> {
        std::mem::take(self).by_service
    }
}

/// With its times by this process's clock: those of instances may be wrong.
fn arrived(one: &Checked, now: Duration) -> Arrived {
    let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let (length_ms, ended_ago_ms) = one.times_ms;
    let ended_ms = now_ms.saturating_sub(ended_ago_ms);
    let id = one.identity.as_ref();
    Arrived {
        store: one.store_id,
        id: id.map_or_else(Default::default, |id| {
            (id.instance.clone(), id.boot, id.sequence)
        }),
        began_ms: ended_ms.saturating_sub(length_ms.min(MAX_LENGTH_MS)),
        ended_ms,
        window: one.window,
        evidence: one.evidence.clone(),
    }
}
