//! Invalidations in: what the control plane tells of is done in the cache of this process, in order, until it is done.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use larder_core::api::{InvalidationPosition, MissedInvalidations, ToldInvalidation};
use larder_core::{Cache, Invalidated, Service, Target, WeakCache};
use tokio::sync::{Notify, watch};

use crate::fetch::is_tag;
use crate::known_good::{KeptPosition, KnownGood};

/// So many wait; past them everything of the service takes their place.
const MOST_WAITING: usize = 1_000;
/// What the store could not be told is looked after so often.
const LOOK: Duration = Duration::from_millis(200);

/// Up to where it is done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reached {
    pub(crate) position: Option<String>,
    /// Why the next one is not done yet.
    pub(crate) trouble: Option<String>,
}

/// What the control plane tells to invalidate.
pub(crate) struct Invalidations {
    service: Service,
    store_id: u32,
    cache: OnceLock<WeakCache>,
    waiting: Mutex<Waiting>,
    wake: Notify,
    reached: watch::Sender<Reached>,
    kept: Option<Arc<KnownGood<KeptPosition>>>,
}

#[derive(Default)]
struct Waiting {
    /// The position of the last that was heard of.
    received: Option<String>,
    queue: VecDeque<(String, Order)>,
    /// Whether it is not known what was done in the store: then everything of the service is invalidated first.
    is_to_be_emptied: bool,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Order {
    /// Nothing: this is where it begins.
    Stand,
    /// This; and a store that was told already.
    Invalidate(Target, Option<String>),
}

impl Invalidations {
    /// Goes on where what was kept says, if anything was.
    pub(crate) fn new(
        service: Service,
        store_id: u32,
        kept: Option<KnownGood<KeptPosition>>,
    ) -> Self {
        let read = kept.as_ref().map_or(Ok(None), KnownGood::look);
        let is_there = !matches!(read, Ok(None));
        let read = read
            .unwrap_or_default()
            .filter(|kept| kept.store_id == store_id);
        let position = read.map(|kept| kept.position);
        let position = position.filter(|position| is_tag(position));
        Self {
            kept: kept.map(Arc::new),
            service,
            store_id,
            cache: OnceLock::new(),
            waiting: Mutex::new(Waiting {
                received: position.clone(),
                queue: VecDeque::new(),
                // A store of this machine has had entries while another one was in use, or nobody knows since when.
                is_to_be_emptied: is_there && position.is_none() && store_id != 0,
            }),
            wake: Notify::new(),
            reached: watch::Sender::new(Reached {
                position,
                trouble: None,
            }),
        }
    }

    pub(crate) fn bind(&self, cache: WeakCache) {
        // A second one is another cache's governor as well, and invalidates nothing.
        let _ = self.cache.set(cache);
        self.wake.notify_one();
    }

    /// The position of the last that was heard of; empty: of none.
    pub(crate) fn received(&self) -> String {
        self.waiting().received.clone().unwrap_or_default()
    }

    /// Up to where it is done.
    pub(crate) fn reached(&self) -> watch::Receiver<Reached> {
        self.reached.subscribe()
    }

    /// Hears of one. What can't be read is taken to be everything: a lost invalidation is worse than misses.
    pub(crate) fn take(&self, id: Option<&str>, data: &[u8]) {
        let position = id.and_then(|id| id.strip_prefix(';'));
        let Some(position) = position.filter(|position| is_tag(position)) else {
            return;
        };
        self.put_told(position.to_owned(), serde_json::from_slice(data).ok());
    }

    /// Hears where it stands.
    pub(crate) fn stand(&self, data: &[u8]) {
        let standing: Option<InvalidationPosition> = serde_json::from_slice(data).ok();
        let Some(InvalidationPosition { position, gap }) =
            standing.filter(|standing| is_tag(&standing.position))
        else {
            return;
        };
        match gap {
            true => self.put_gap(position),
            false => self.put(position, Order::Stand),
        }
    }

    /// Hears what was missed.
    pub(crate) fn catch_up(&self, data: &[u8]) {
        let missed: Option<MissedInvalidations> = serde_json::from_slice(data).ok();
        let Some(missed) = missed.filter(|missed| is_tag(&missed.position)) else {
            return;
        };
        if missed.gap {
            return self.put_gap(missed.position);
        }
        for one in missed.invalidations {
            if is_tag(&one.position) {
                self.put_told(one.position, Some(one.told));
            }
        }
        if self.received() != missed.position {
            self.put(missed.position, Order::Stand);
        }
    }

    /// What somebody was told to do.
    fn order(&self, told: Option<ToldInvalidation>) -> Order {
        let order = told.and_then(|told| {
            let target = Target::read(&self.service, told.what, told.name.as_deref()).ok()?;
            Some(Order::Invalidate(target, told.done_in))
        });
        order.unwrap_or(Order::Invalidate(Target::Service, None))
    }

    /// What comes again is not done again.
    fn put_told(&self, position: String, told: Option<ToldInvalidation>) {
        if !is_behind(&position, &self.received()) {
            let order = self.order(told);
            self.put(position, order);
        }
    }

    fn put_gap(&self, position: String) {
        if position == self.received() {
            return;
        }
        tracing::info!(
            service = self.service.as_str(),
            "more invalidations were missed than the control plane keeps: everything of the service is invalidated"
        );
        self.put(position, Order::Invalidate(Target::Service, None));
    }

    fn put(&self, position: String, order: Order) {
        let mut waiting = self.waiting();
        waiting.received = Some(position.clone());
        let order = match std::mem::take(&mut waiting.is_to_be_emptied) {
            true => Order::Invalidate(Target::Service, None),
            false => order,
        };
        if waiting.queue.len() >= MOST_WAITING {
            waiting.queue.clear();
            let all = Order::Invalidate(Target::Service, None);
            waiting.queue.push_back((position, all));
        } else {
            waiting.queue.push_back((position, order));
        }
        drop(waiting);
        self.wake.notify_one();
    }

    /// Does what comes, until it is to end or the cache is gone.
    pub(crate) async fn run(&self, mut closing: watch::Receiver<bool>) {
        tokio::select! {
            () = self.obey() => {}
            _ = closing.changed() => {}
        }
    }

    async fn obey(&self) {
        loop {
            let next = self.waiting().queue.front().cloned();
            let (Some((position, order)), Some(cache)) = (next, self.cache.get()) else {
                self.wake.notified().await;
                continue;
            };
            let Some(cache) = cache.upgrade() else {
                return;
            };
            self.carry_out(&cache, order).await;
            self.settle(&position);
            self.keep(&position).await;
            self.reached.send_replace(Reached {
                position: Some(position),
                trouble: None,
            });
        }
    }

    /// One is done. All of the service may have taken its place meanwhile.
    fn settle(&self, position: &str) {
        let mut waiting = self.waiting();
        let front = waiting.queue.front();
        if front.is_some_and(|(front, _)| front == position) {
            waiting.queue.pop_front();
        }
    }

    /// Keeps up to where it is done for the next start: an embedded store outlives the process.
    async fn keep(&self, position: &str) {
        let Some(known_good) = self.kept.clone() else {
            return;
        };
        let kept = KeptPosition {
            store_id: self.store_id,
            position: position.to_owned(),
        };
        let written = tokio::task::spawn_blocking(move || known_good.write(&kept)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "up to where invalidations are done could not be kept for the next start");
        }
    }

    async fn carry_out(&self, cache: &Cache, order: Order) {
        let Order::Invalidate(target, done_in) = order else {
            return;
        };
        let what = target.what().as_str();
        let name = target.name().unwrap_or_default();
        if let Some(done_in) = done_in
            && cache.store_mark(self.store_id).await == Ok(Some(done_in))
        {
            cache.note_invalidated(&target);
            tracing::debug!(what, name, "invalidated by the control plane in the store");
            return;
        }
        let invalidated = cache.invalidate(&target).await.swept().await;
        tracing::info!(what, name, %invalidated, "invalidated, as the control plane says");
        if let Invalidated::Pending { why, .. } = invalidated {
            let why = format!("its store could not be told yet: {why}");
            self.reached
                .send_modify(|reached| reached.trouble = Some(why));
            // The outbox tells it as soon as it can be told.
            while !cache.outbox().is_empty() {
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a position is one that was received, or stands before it: it is the name of a database, a dot, and a number that grows.
fn is_behind(position: &str, received: &str) -> bool {
    match (read_position(position), read_position(received)) {
        (Some((database, number)), Some((other, last))) => database == other && number <= last,
        _ => position == received,
    }
}

fn read_position(position: &str) -> Option<(&str, u64)> {
    let (database, number) = position.rsplit_once('.')?;
    Some((database, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invalidations() -> Invalidations {
        Invalidations::new(Service::new("svc").unwrap(), 7, None)
    }

    fn queue(invalidations: &Invalidations) -> Vec<(String, Order)> {
        invalidations.waiting().queue.iter().cloned().collect()
    }

    #[test]
    fn what_can_not_be_read_is_everything_and_what_has_no_place_is_nothing() {
        let invalidations = invalidations();
        let all = Order::Invalidate(Target::Service, None);
        for (number, data) in [
            "{}",
            "nonsense",
            r#"{"what":"region","name":"eu"}"#,
            r#"{"what":"key","name":"cache:other:/a"}"#,
            r#"{"what":"tag"}"#,
        ]
        .into_iter()
        .enumerate()
        {
            invalidations.take(Some(&format!(";db.{number}")), data.as_bytes());
            let last = queue(&invalidations).pop().unwrap();
            assert_eq!(last, (format!("db.{number}"), all.clone()), "{data}");
        }
        let before = queue(&invalidations).len();
        for id in [None, Some("db.9"), Some(";a b"), Some(";\n")] {
            invalidations.take(id, br#"{"what":"service"}"#);
        }
        assert_eq!(queue(&invalidations).len(), before);
        assert_eq!(invalidations.received(), "db.4");
    }

    #[test]
    fn a_gap_is_everything_and_too_many_are_too() {
        let invalidations = invalidations();
        invalidations.stand(br#"{"position":"db.1","gap":false}"#);
        invalidations.stand(br#"{"position":"db.9","gap":true}"#);
        let all = Order::Invalidate(Target::Service, None);
        let expected = [
            ("db.1".to_owned(), Order::Stand),
            ("db.9".to_owned(), all.clone()),
        ];
        assert_eq!(queue(&invalidations), expected);
        for number in 10..=MOST_WAITING + 10 {
            let id = format!(";db.{number}");
            invalidations.take(Some(&id), br#"{"what":"tag","name":"a"}"#);
        }
        let (first, order) = queue(&invalidations).remove(0);
        assert!(queue(&invalidations).len() <= MOST_WAITING && order == all);
        assert_eq!(first, format!("db.{}", MOST_WAITING + 8));
    }

    #[test]
    fn what_comes_again_is_done_once() {
        let invalidations = invalidations();
        let told = |number: u64| {
            let id = format!(";db.{number}");
            invalidations.take(Some(&id), br#"{"what":"service"}"#);
        };
        let count = || queue(&invalidations).len();
        [8, 9, 10].into_iter().for_each(told);
        assert_eq!(count(), 3);
        [9, 10, 8].into_iter().for_each(told);
        invalidations.stand(br#"{"position":"db.10","gap":true}"#);
        let missed = br#"{"position":"db.10","gap":false,"invalidations":[{"position":"db.10","what":"service"}]}"#;
        invalidations.catch_up(missed);
        assert_eq!((count(), invalidations.received()), (3, "db.10".to_owned()));
        // A database that stands further back is an older copy, and another one's numbers are its own.
        invalidations.stand(br#"{"position":"db.4","gap":true}"#);
        told(5);
        invalidations.take(Some(";other.3"), br#"{"what":"service"}"#);
        assert_eq!(count(), 6);
    }

    #[test]
    fn a_store_of_which_it_is_not_known_what_was_done_in_it_is_emptied_first() {
        let all = Order::Invalidate(Target::Service, None);
        let begins_with = |store_id: u32, text: Option<&str>| {
            let folder = tempfile::tempdir().unwrap();
            let inner = folder.path().join("state");
            let service = Service::new("svc").unwrap();
            let known_good = || KnownGood::new(inner.clone(), service.clone());
            let position = "db.3".to_owned();
            let kept = KeptPosition {
                position,
                store_id: 7,
            };
            known_good().write(&kept).unwrap();
            let file = inner.join("invalidations/svc.json");
            match text {
                Some("") => std::fs::remove_file(file).unwrap(),
                Some(text) => std::fs::write(file, text).unwrap(),
                None => {}
            }
            let invalidations = Invalidations::new(service.clone(), store_id, Some(known_good()));
            let received = invalidations.received();
            invalidations.stand(br#"{"position":"db.9","gap":false}"#);
            invalidations.stand(br#"{"position":"db.10","gap":false}"#);
            let orders: Vec<Order> = queue(&invalidations).into_iter().map(|one| one.1).collect();
            assert_eq!(orders[1], Order::Stand, "once");
            (received, orders[0] == all)
        };
        assert_eq!(begins_with(7, None), ("db.3".to_owned(), false));
        assert_eq!(begins_with(8, None), (String::new(), true), "another store");
        assert_eq!(begins_with(7, Some("{")), (String::new(), true), "damaged");
        assert_eq!(
            begins_with(7, Some("")),
            (String::new(), false),
            "the first start"
        );
        assert_eq!(begins_with(0, None), (String::new(), false), "a server's");
    }
}
