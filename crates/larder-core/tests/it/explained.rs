//! A key is explained by the rules that a lookup goes by, and looking changes nothing.

use std::sync::Arc;
use std::time::Duration;

use larder_core::{
    Acquired, Cache, Explainer, FixedGovernor, Frames, InProcess, Invalidation, Outbox,
    OutboxLimits, Policy, PolicyPatch, Rule, Service, Stamp, StampState, Store, Tag, VersionName,
};

use crate::{Failed, key, policy};

struct Case {
    store: Arc<InProcess>,
    cache: Cache,
    outbox: Outbox,
    policy: Policy,
}

impl Case {
    fn new(patch: PolicyPatch) -> Self {
        let store = Arc::new(InProcess::new(1 << 20));
        let service = Service::new("svc").unwrap();
        let policy = policy(&patch);
        let cache = Cache::builder(service.clone())
            .store(Arc::clone(&store) as _)
            .governor(Arc::new(FixedGovernor::new(policy.clone())))
            .l1_bytes(0)
            .build();
        Self {
            store,
            cache,
            outbox: Outbox::new(service, OutboxLimits::default()),
            policy,
        }
    }

    async fn explain(&self) -> larder_core::Explanation {
        let explainer = Explainer {
            store: &*self.store,
            governor: &FixedGovernor::new(self.policy.clone()),
            frames: &Frames::new(None),
            outbox: &self.outbox,
        };
        explainer.explain(&key("/a")).await.unwrap()
    }

    async fn rule(&self) -> Rule {
        self.explain().await.rule
    }

    async fn load(&self) {
        let load = || async { Ok::<_, Failed>(1) };
        self.cache.get_or_load(&key("/a"), load).await.unwrap();
    }
}

fn tagged() -> PolicyPatch {
    PolicyPatch {
        tags: Some(vec![Tag::new("t").unwrap()]),
        ..PolicyPatch::default()
    }
}

#[tokio::test]
async fn a_plain_entry_is_fresh_until_something_stands_above_it() {
    let mut case = Case::new(PolicyPatch::default());
    assert_eq!(case.rule().await, Rule::Absent);
    assert_eq!(case.rule().await, Rule::Absent, "looking made nothing");
    case.load().await;
    assert_eq!(case.rule().await, Rule::Fresh);
    case.policy = case.policy.clone().with_mode(larder_core::Mode::Off);
    assert_eq!(case.rule().await, Rule::PolicyOff);
    case.policy = case.policy.clone().with_mode(larder_core::Mode::On);
    let _kept = case.outbox.add(Invalidation::Keys(vec![key("/a")]));
    let explained = case.explain().await;
    assert_eq!(
        (explained.rule, explained.is_pending),
        (Rule::Pending, true)
    );
}

#[tokio::test]
async fn a_lease_is_seen_and_neither_taken_nor_ended() {
    let case = Case::new(PolicyPatch::default());
    let seconds = Duration::from_secs(60);
    let acquired = case.store.acquire(&[key("/a")], seconds).await.unwrap();
    let Some(Acquired::Granted { lease, .. }) = acquired.into_iter().next() else {
        panic!("nobody else has it");
    };
    let explained = case.explain().await;
    assert_eq!(explained.rule, Rule::Leased);
    assert!(explained.lease.unwrap() > Duration::from_secs(30));
    assert_eq!(case.store.extend(&[lease], seconds).await, Ok(vec![true]));
}

#[tokio::test]
async fn an_entry_is_dead_once_a_stamp_was_renewed_and_no_version_is_made_by_looking() {
    let case = Case::new(tagged());
    let name = VersionName::Tag(Tag::new("t").unwrap());
    let names = std::slice::from_ref(&name);
    let beside = case.store.beside(&key("/a"), names).await.unwrap();
    assert_eq!(beside.versions, [None]);
    assert_eq!(case.store.beside(&key("/a"), names).await.unwrap(), beside);
    case.load().await;
    let states = |explained: &larder_core::Explanation| -> Vec<(Stamp, StampState)> {
        match &explained.entry.as_ref().unwrap().form {
            larder_core::EntryForm::Framed(looked_at) => looked_at.stamps.clone(),
            other => panic!("{other:?}"),
        }
    };
    let explained = case.explain().await;
    assert_eq!(explained.rule, Rule::Fresh);
    assert!(
        states(&explained)
            .iter()
            .all(|(_, state)| *state == StampState::Same)
    );
    assert!(
        case.cache
            .invalidate_tag(&Tag::new("t").unwrap())
            .await
            .is_done()
    );
    let explained = case.explain().await;
    assert_eq!(explained.rule, Rule::Dead);
    let states = states(&explained);
    let renewed: Vec<_> = states
        .iter()
        .filter(|(_, state)| *state == StampState::Renewed)
        .collect();
    assert!(
        matches!(&renewed[..], [(stamp, _)] if stamp.name == name),
        "{states:?}"
    );
}

#[tokio::test]
async fn what_a_lookup_does_is_what_the_rule_says() {
    let patch = PolicyPatch {
        ttl_seconds: Some(0.05),
        jitter: Some(0.0),
        stale_while_revalidate_seconds: Some(60.0),
        ..PolicyPatch::default()
    };
    let case = Case::new(patch);
    case.load().await;
    while case.rule().await == Rule::Fresh {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(case.rule().await, Rule::StaleWhileRevalidate);
    let load = || async { Ok::<_, Failed>(2) };
    let answer = case.cache.get_or_load(&key("/a"), load).await.unwrap();
    assert_eq!(
        (answer.value, answer.outcome),
        (1, larder_core::Outcome::Stale)
    );
}

/// Jitter leaves parts of milliseconds, which a frame does not hold and the store in the process does.
#[tokio::test]
async fn a_framed_entry_is_a_hit_in_the_very_moment_it_was_stored() {
    let case = Case::new(tagged());
    for _ in 0..200 {
        case.load().await;
        let load = || async { Ok::<_, Failed>(2) };
        let answer = case.cache.get_or_load(&key("/a"), load).await.unwrap();
        assert_eq!(
            (answer.value, answer.outcome),
            (1, larder_core::Outcome::Hit)
        );
        assert!(case.cache.delete(&key("/a")).await.is_done());
    }
}
