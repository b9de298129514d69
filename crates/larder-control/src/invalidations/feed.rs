//! The invalidations of a service, as one stream hears of them.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use larder_core::Service;
use tokio::sync::watch;

use super::Invalidations;

/// So many are told in one piece.
const AT_ONCE: usize = 32;
/// Past so many services that are, or were, followed those that are not any more are forgotten.
const MOST_HEADS: usize = 1_000;

/// Where one stream stands.
pub(crate) struct Feed {
    all: Arc<Invalidations>,
    service: Service,
    cursor: u64,
    /// Whether the client wants to know where it stands, and what it missed.
    stands: Option<bool>,
    head: watch::Receiver<u64>,
}

impl Invalidations {
    /// Follows a service from now on. `known`: the client knows of invalidations, and up to this position, if it says one.
    pub(crate) fn follow(
        self: &Arc<Self>,
        service: &Service,
        known: Option<&str>,
        head: u64,
    ) -> Feed {
        let wants = known.is_some();
        let known = known.filter(|position| !position.is_empty());
        // Before it is known where it stands: what is told from now on changes it.
        let changes = self.subscribe(service);
        let (cursor, gap) = self.stand(service, known, head);
        Feed {
            all: Arc::clone(self),
            service: service.clone(),
            cursor,
            stands: wants.then_some(gap),
            head: changes,
        }
    }

    fn subscribe(&self, service: &Service) -> watch::Receiver<u64> {
        let mut heads = self.heads();
        if heads.len() >= MOST_HEADS && !heads.contains_key(service) {
            heads.retain(|_, head| head.receiver_count() > 0);
        }
        let head = heads.entry(service.clone());
        head.or_insert_with(|| watch::Sender::new(0)).subscribe()
    }
}

impl Feed {
    /// What is to be said now; `None`: nothing.
    pub(crate) fn next(&mut self) -> Option<Bytes> {
        if let Some(gap) = self.stands.take() {
            return Some(self.standing(gap));
        }
        self.head.mark_unchanged();
        let mut piece = BytesMut::new();
        {
            let rings = self.all.rings();
            let ring = rings.get(&self.service)?;
            if self.cursor >= ring.floor {
                let limit = self.all.limit(u64::MAX);
                let behind = ring.after(self.cursor, limit).take(AT_ONCE);
                for record in behind {
                    self.cursor = record.sequence;
                    piece.extend_from_slice(&record.event());
                }
                return (!piece.is_empty()).then(|| piece.freeze());
            }
            // It was so slow that what it has not heard of is not kept any more.
            let last = ring.records.iter().rev().find(|record| record.is_told());
            self.cursor = last.map_or(ring.floor, |record| record.sequence);
        }
        Some(self.standing(true))
    }

    /// Waits until there may be something to say.
    pub(crate) async fn changed(&mut self) {
        if self.head.changed().await.is_err() {
            // Nobody is left who could tell of one.
            std::future::pending::<()>().await;
        }
    }

    fn standing(&self, gap: bool) -> Bytes {
        let standing = self.all.standing(self.cursor, gap);
        crate::streams::invalidations(&standing.position, &crate::json::bytes(&standing))
    }
}
