//! Windows that wait for the next tick, bounded whatever is sent.

use std::collections::HashMap;
use std::time::Duration;

use larder_decide::Arrived;
use larder_model::{Endpoint, Service};

use super::check::Checked;

/// More windows are not kept until the next tick.
const MAX_WINDOWS: usize = 50_000;
/// Nor more records of keys, answers and invalidations.
const MAX_RECORDS: usize = 2_000_000;
/// Nor more of them of one endpoint: twenty instances' full windows, twice.
const MAX_RECORDS_OF_ENDPOINT: usize = 16_384;
/// No window is longer, in milliseconds: times within one count up to 43 minutes.
const MAX_LENGTH_MS: u64 = 2_600_000;

/// Windows by service and endpoint.
#[derive(Default)]
pub(super) struct Inbox {
    by_service: HashMap<Service, OfService>,
    windows: usize,
    records: usize,
    crowded_out: u64,
}

#[derive(Default)]
struct OfService {
    by_endpoint: HashMap<Endpoint, OfEndpoint>,
    windows: usize,
    records: usize,
}

#[derive(Default)]
struct OfEndpoint {
    windows: Vec<Arrived>,
    records: usize,
}

/// What waited for a tick.
#[derive(Debug, Default)]
pub(crate) struct Waited {
    pub(crate) by_service: HashMap<Service, HashMap<Endpoint, Vec<Arrived>>>,
    /// Windows for which there was no room, or none for their keys.
    pub(crate) crowded_out: u64,
}

impl Inbox {
    /// Takes a window's evidence over. One service takes no more than it leaves free, so that there is room for others.
    pub(super) fn put(&mut self, one: &mut Checked, now: Duration) {
        let Some(endpoint) = &one.endpoint else {
            return;
        };
        let of_service = self.by_service.entry(one.service.clone()).or_default();
        let of_endpoint = of_service.by_endpoint.entry(endpoint.clone()).or_default();
        // Single signals are one window.
        if let Some(last) = of_endpoint.windows.last_mut()
            && one.identity.is_none()
            && last.id.0.is_empty()
        {
            last.window.merge(&one.window);
            return;
        }
        if of_service.windows >= MAX_WINDOWS - self.windows {
            self.crowded_out += 1;
            return;
        }
        let room = (MAX_RECORDS - self.records).saturating_sub(of_service.records);
        let room = room.min(MAX_RECORDS_OF_ENDPOINT - of_endpoint.records);
        let mut arrived = arrived(one, now);
        if let Some(evidence) = &mut arrived.evidence {
            self.crowded_out += u64::from(!evidence.cut_to(room));
            self.records += evidence.records();
            of_service.records += evidence.records();
            of_endpoint.records += evidence.records();
        }
        self.windows += 1;
        of_service.windows += 1;
        of_endpoint.windows.push(arrived);
    }

    pub(super) fn take(&mut self) -> Waited {
        let taken = std::mem::take(self);
        let windows = |(endpoint, of): (Endpoint, OfEndpoint)| (endpoint, of.windows);
        let by_service = taken.by_service.into_iter();
        let by_service = by_service.map(|(service, of)| {
            let by_endpoint = of.by_endpoint.into_iter().map(windows).collect();
            (service, by_endpoint)
        });
        Waited {
            by_service: by_service.collect(),
            crowded_out: taken.crowded_out,
        }
    }
}

/// With its times by this process's clock: those of instances may be wrong.
fn arrived(one: &mut Checked, now: Duration) -> Arrived {
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
        evidence: one.evidence.take(),
        has_store_failed: one.has_store_failed,
    }
}

#[cfg(test)]
mod tests {
    use larder_model::{Evidence, Window};

    use super::*;
    use crate::measured::check::Identity;

    fn window(service: &str, endpoint: &str, records: u32) -> Checked {
        Checked {
            service: Service::new(service).unwrap(),
            endpoint: Some(endpoint.parse().unwrap()),
            is_watched: true,
            window: Window::default(),
            identity: Some(Identity {
                instance: "i-1".into(),
                boot: 1,
                sequence: 1,
            }),
            evidence: (records > 0).then(|| Evidence {
                erased: (0..records).collect(),
                ..Evidence::default()
            }),
            has_store_failed: false,
            times_ms: (5_000, 0),
            store_id: 0,
        }
    }

    fn put(inbox: &mut Inbox, times: usize, one: impl Fn() -> Checked) {
        for _ in 0..times {
            inbox.put(&mut one(), Duration::from_secs(1_000));
        }
    }

    #[test]
    fn one_service_leaves_room_for_others_and_what_has_none_is_counted() {
        let mut inbox = Inbox::default();
        put(&mut inbox, 2 * MAX_WINDOWS, || window("flood", "/a", 0));
        put(&mut inbox, 1_000, || window("other", "/a", 0));
        let waited = inbox.take();
        let count = |service: &str| {
            let of = &waited.by_service[&Service::new(service).unwrap()];
            of.values().map(Vec::len).sum::<usize>()
        };
        assert_eq!((count("flood"), count("other")), (MAX_WINDOWS / 2, 1_000));
        assert_eq!(waited.crowded_out, 3 * MAX_WINDOWS as u64 / 2);
        assert!(inbox.take().by_service.is_empty());
    }

    #[test]
    fn one_endpoint_has_no_more_records_than_a_tick_goes_through_at_once() {
        let mut inbox = Inbox::default();
        put(&mut inbox, 100, || window("svc", "/a", 256));
        put(&mut inbox, 1, || window("svc", "/b", 256));
        let waited = inbox.take();
        let of = &waited.by_service[&Service::new("svc").unwrap()];
        let evidence = |endpoint: &str| {
            let windows = &of[&endpoint.parse::<Endpoint>().unwrap()];
            let evidence = windows.iter().filter_map(|one| one.evidence.as_ref());
            evidence.cloned().collect::<Vec<_>>()
        };
        let all = evidence("/a");
        let records: usize = all.iter().map(Evidence::records).sum();
        assert_eq!((all.len(), records), (100, MAX_RECORDS_OF_ENDPOINT));
        assert!(all[99].erased_more, "that something was is told");
        assert_eq!(evidence("/b")[0].records(), 256);
        assert_eq!(waited.crowded_out, 36);
    }
}
