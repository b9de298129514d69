//! What came of an invalidation, or would: in the store, in the instances, for the origin.

use std::time::Duration;

use larder_core::{Endpoint, Method, Service, Target};
use larder_model::Window;
use larder_model::api::{
    InstancesOutcome, Invalidation, InvalidationState, OriginLoad, PendingInstance, StoreOutcome,
    StoreState,
};

use super::record::{Record, outcome};
use crate::cause::Cause;
use crate::dashboard::lasts;
use crate::instances::{Reached, SETTLED_AFTER};
use crate::measured::REACH;
use crate::plane::Plane;

/// So many instances that have not done it are named.
const MOST_NAMED: usize = 100;

impl Record {
    /// How far it is now.
    pub(crate) fn describe(&self, plane: &Plane) -> Invalidation {
        let store = self.settled(plane);
        let now = crate::auto::now();
        let reached = plane.instances.reached(&self.service, now, |position| {
            let number = plane.invalidations.number(position);
            number.is_some_and(|number| number >= self.sequence)
        });
        let reached = Instances::of(reached, plane.instances.unsettled(&self.service, now));
        let state = match is_done(&store, &reached) {
            true => InvalidationState::Done,
            false => InvalidationState::Pending,
        };
        Invalidation {
            id: self.id.clone(),
            service_name: self.service.as_str().to_owned(),
            what: self.target.what(),
            name: self.target.name().map(str::to_owned),
            state,
            says: says(&self.target, &store, &reached),
            store,
            instances: reached.outcome,
            load: loaded_by(plane, &self.service, &self.target),
            at_seconds: self.at_seconds,
            author: self.author.name.clone(),
            author_verified: self.author.is_verified,
            reason: self.reason.clone(),
        }
    }

    /// How far it is in the store: what was pending may have been told meanwhile.
    fn settled(&self, plane: &Plane) -> StoreOutcome {
        let store = self.store();
        let shared = plane.store.as_ref();
        let is_settled =
            self.is_in_outbox() && shared.is_some_and(|shared| shared.is_settled(&self.service));
        if is_settled {
            let settled = outcome(StoreState::Done, store.name);
            self.set_store(settled.clone());
            self.set_in_outbox(false);
            return settled;
        }
        store
    }
}

/// Who has heard of it, and done it.
struct Instances {
    outcome: InstancesOutcome,
    /// For how many seconds those have been gone that have not done it: the last of them.
    gone_for: Option<u64>,
    /// How long ago the control plane was started, if there may be others that have not said anything since.
    unsettled: Option<Duration>,
}

impl Instances {
    fn of(reached: Vec<Reached>, unsettled: Option<Duration>) -> Self {
        let (done, rest): (Vec<_>, Vec<_>) = reached.into_iter().partition(|one| one.has_it);
        let (gone, pending): (Vec<_>, Vec<_>) = rest.into_iter().partition(|one| one.is_gone);
        let known = (done.len() + pending.len()) as u64;
        let mut pending: Vec<PendingInstance> = pending
            .into_iter()
            .map(|one| PendingInstance {
                instance: one.instance,
                seen_seconds_ago: one.seen_seconds_ago,
                why: one.why,
            })
            .collect();
        pending.truncate(MOST_NAMED);
        Self {
            gone_for: gone.iter().map(|one| one.seen_seconds_ago).min(),
            outcome: InstancesOutcome {
                known,
                done: done.len() as u64,
                pending,
                gone: gone.len() as u64,
            },
            unsettled,
        }
    }
}

fn is_done(store: &StoreOutcome, instances: &Instances) -> bool {
    let InstancesOutcome { known, done, .. } = instances.outcome;
    let by_all = done == known && instances.unsettled.is_none();
    match store.state {
        StoreState::Done => by_all,
        // Somebody must have done it somewhere.
        StoreState::None | StoreState::Unknown => by_all && known > 0,
        _ => false,
    }
}

/// What was done where, and what is pending, in words.
fn says(target: &Target, store: &StoreOutcome, instances: &Instances) -> String {
    let name = store.name.as_deref().unwrap_or("the store");
    let is_done = match (target, store.entries) {
        (Target::Tag(_), _) => format!("what depends on the tag is dead in {name}"),
        (_, Some(1)) => format!("1 entry removed in {name}"),
        (_, Some(entries)) => format!("{entries} entries removed in {name}"),
        (_, None) => format!("what it names is gone from {name}"),
    };
    let why = store.why.as_deref().unwrap_or("it did not say why");
    let in_store = match store.state {
        StoreState::None => "this control plane has no store of its own".to_owned(),
        StoreState::Counted => "nothing was changed".to_owned(),
        StoreState::Running => format!("{name} is being told"),
        StoreState::Sweeping => {
            format!("framed entries are dead in {name}, plain ones are being removed")
        }
        StoreState::Done => is_done,
        StoreState::Pending => {
            format!("pending in {name} ({why}): it is told as soon as it can be")
        }
        StoreState::Unknown => {
            "another control plane told its store, or this one was started anew since: the instances say how far it is".to_owned()
        }
    };
    let mut said = vec![in_store, by_instances(&instances.outcome)];
    said.extend(by_gone(instances));
    said.extend(instances.unsettled.map(|since| {
        let (seconds, most) = (since.as_secs(), SETTLED_AFTER.as_secs());
        format!("this control plane was started {seconds} s ago: other instances have up to {most} s to say how far they are")
    }));
    said.join("; ")
}

/// Those that are not waited for.
fn by_gone(instances: &Instances) -> Option<String> {
    let time = lasts(instances.gone_for?);
    Some(match instances.outcome.gone {
        1 => format!("1 has not been heard of for {time}: it is told when it comes back"),
        gone => {
            format!(
                "{gone} have not been heard of for {time} or longer: they are told when they come back"
            )
        }
    })
}

fn by_instances(instances: &InstancesOutcome) -> String {
    let InstancesOutcome {
        known,
        done,
        pending,
        ..
    } = instances;
    let names: Vec<&str> = pending.iter().map(|one| one.instance.as_str()).collect();
    match (*known, names.is_empty()) {
        (0, _) => {
            "no instance of the service is known here: one that follows it later is told then"
                .to_owned()
        }
        (1, true) => "the one instance that is known has done it".to_owned(),
        (_, true) => format!("all {known} instances that are known have done it"),
        (_, false) => {
            let shown = &names[..names.len().min(3)];
            let more = match names.len() - shown.len() {
                0 => String::new(),
                _ => format!(" and {} more", known - done - shown.len() as u64),
            };
            format!(
                "{done} of {known} instances have done it, pending at {}{more}",
                shown.join(", ")
            )
        }
    }
}

/// What an invalidation would do, which is not done.
pub(crate) async fn dry_run(
    plane: &Plane,
    service: &Service,
    target: &Target,
    cause: &Cause,
) -> Invalidation {
    let store = match &plane.store {
        None => outcome(StoreState::None, None),
        Some(shared) => {
            let count = shared.count(service, target).await;
            StoreOutcome {
                entries: count.entries,
                why: count.why,
                ..outcome(StoreState::Counted, Some(shared.name()))
            }
        }
    };
    let nobody_has_it = |_: &str| false;
    let reached = plane
        .instances
        .reached(service, crate::auto::now(), nobody_has_it);
    let load = loaded_by(plane, service, target);
    let instances = Instances::of(reached, None).outcome;
    Invalidation {
        id: String::new(),
        service_name: service.as_str().to_owned(),
        what: target.what(),
        name: target.name().map(str::to_owned),
        state: InvalidationState::DryRun,
        says: would(target, &store, instances.known, load.as_ref()),
        store,
        instances,
        load,
        at_seconds: crate::auto::now().as_secs(),
        author: cause.author.name.clone(),
        author_verified: cause.author.is_verified,
        reason: cause.reason.clone(),
    }
}

fn would(target: &Target, store: &StoreOutcome, known: u64, load: Option<&OriginLoad>) -> String {
    let name = store.name.as_deref().unwrap_or("the store");
    let why = store.why.as_deref();
    let in_store = match (store.state, store.entries) {
        (StoreState::None, _) => {
            "this control plane has no store of its own to count in".to_owned()
        }
        (_, Some(entries)) => {
            let (verb, least) = match (target, why) {
                (Target::Tag(_), None) => ("would be dead", ""),
                (Target::Tag(_), Some(_)) => ("would be dead", "at least "),
                _ => ("would be removed", ""),
            };
            let least_why = why.map_or_else(String::new, |why| format!(" ({why})"));
            let plural = if entries == 1 { "entry" } else { "entries" };
            format!("{least}{entries} {plural} in {name} {verb}{least_why}")
        }
        (_, None) => format!(
            "the entries in {name} could not be counted ({})",
            why.unwrap_or("it did not say why")
        ),
    };
    let told = match known {
        0 => "no instance of the service is known here".to_owned(),
        1 => "1 instance would be told".to_owned(),
        known => format!("{known} instances would be told"),
    };
    let load = load.map_or_else(
        || "of its traffic nothing was measured lately".to_owned(),
        |load| {
            let calls = crate::dashboard::number(load.extra_calls_per_second);
            let at_once = load.extra_calls_at_once.map_or_else(String::new, |at_once| {
                format!(", {} at once", crate::dashboard::number(at_once))
            });
            format!("up to {calls} more calls a second would reach the origin{at_once}, until entries are loaded anew")
        },
    );
    format!("{in_store}; {told}; {load}")
}

/// What it sends to the origin: what hits now, of all that it names. A key is too small a part to tell, and a pattern names no
/// endpoint.
fn loaded_by(plane: &Plane, service: &Service, target: &Target) -> Option<OriginLoad> {
    let mut sum = Window::default();
    for measured in plane.measured.list(Some(service), crate::auto::now()) {
        let is_meant = match target {
            Target::Key(_) | Target::Pattern(_) => false,
            Target::Service => true,
            Target::Endpoint(endpoint) => measured.endpoint == endpoint.template(),
            Target::Tag(tag) => {
                let endpoint = Method::new(&measured.method)
                    .ok()
                    .and_then(|method| Endpoint::new(method, &measured.endpoint).ok());
                endpoint.is_some_and(|endpoint| {
                    plane.registry.config(service, &endpoint).tags.contains(tag)
                })
            }
        };
        if is_meant {
            sum.merge(&measured.window);
        }
    }
    if sum.requests() == 0 {
        return None;
    }
    let seconds = REACH.as_secs_f64();
    let extra = sum.hits as f64 / seconds;
    let origin_ms_mean = sum.origin_ms_mean();
    Some(OriginLoad {
        requests_per_second: sum.requests() as f64 / seconds,
        extra_calls_per_second: extra,
        origin_ms_mean,
        extra_calls_at_once: origin_ms_mean.map(|mean| extra * mean / 1_000.0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(instance: &str, has_it: bool, is_gone: bool) -> Reached {
        Reached {
            instance: instance.to_owned(),
            seen_seconds_ago: if is_gone { 600 } else { 3 },
            has_it,
            is_gone,
            why: String::new(),
        }
    }

    fn said(
        state: StoreState,
        all: Vec<Reached>,
        started: Option<u64>,
    ) -> (bool, InstancesOutcome, String) {
        let store = outcome(state, Some("a store".to_owned()));
        let instances = Instances::of(all, started.map(Duration::from_secs));
        let is_done = is_done(&store, &instances);
        let says = says(&Target::Service, &store, &instances);
        (is_done, instances.outcome, says)
    }

    #[test]
    fn who_is_gone_is_told_of_and_not_waited_for() {
        let all = || {
            vec![
                reached("has-it", true, false),
                reached("had-it", true, true),
                reached("killed", false, true),
            ]
        };
        let (is_done, outcome, says) = said(StoreState::Done, all(), None);
        assert!(is_done, "{says}");
        assert_eq!((outcome.known, outcome.done, outcome.gone), (2, 2, 1));
        assert!(
            says.contains("1 has not been heard of for 10 min"),
            "{says}"
        );
        let mut more = all();
        more.push(reached("slow", false, false));
        let (is_done, outcome, says) = said(StoreState::Done, more, None);
        assert!(!is_done, "{says}");
        assert_eq!((outcome.known, outcome.done, outcome.gone), (3, 2, 1));
        assert_eq!(outcome.pending.len(), 1, "{says}");
        // Where nobody has done it, it is not done.
        let (is_done, _, says) = said(StoreState::None, vec![reached("a", false, true)], None);
        assert!(!is_done, "{says}");
    }

    #[test]
    fn right_after_a_start_nothing_is_done_yet() {
        let one = || vec![reached("a", true, false)];
        for state in [StoreState::Done, StoreState::Unknown] {
            let (is_done, _, says) = said(state, one(), Some(2));
            assert!(!is_done && says.contains("was started 2 s ago"), "{says}");
            assert!(said(state, one(), None).0);
        }
    }
}
