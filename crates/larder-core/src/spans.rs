//! A span for each lookup: which service, which store, what came of it; its length is what the lookup took. Only with the
//! feature `spans`: without it, there is nothing of this in a lookup.

#[cfg(not(feature = "spans"))]
pub(crate) use off::{is_near, lookup};
#[cfg(feature = "spans")]
pub(crate) use on::{is_near, lookup};

#[cfg(feature = "spans")]
mod on {
    use std::future::Future;

    use larder_model::Outcome;
    use tracing::Instrument as _;
    use tracing::field::Empty;

    use crate::answer::{Answer, LoadError};
    use crate::cache::Inner;

    /// What a lookup ended with.
    pub(crate) trait Ended {
        /// In a word; `None` for a failure.
        fn outcome(&self) -> Option<&'static str>;
    }

    impl<T, E> Ended for Result<Answer<T>, LoadError<E>> {
        fn outcome(&self) -> Option<&'static str> {
            self.as_ref().ok().map(|answer| answer.outcome.as_str())
        }
    }

    /// Of a plain read.
    impl<T> Ended for Option<T> {
        fn outcome(&self) -> Option<&'static str> {
            Some(match self {
                Some(_) => Outcome::Hit.as_str(),
                None => Outcome::Miss.as_str(),
            })
        }
    }

    /// A lookup, in its span.
    pub(crate) async fn lookup<T: Ended>(inner: &Inner, looking: impl Future<Output = T>) -> T {
        let span = tracing::info_span!(
            target: "larder::lookup",
            "larder lookup",
            service = inner.service.as_str(),
            store = %inner.store.name(),
            l1 = Empty,
            outcome = Empty,
            otel.status_code = Empty,
        );
        let ended = looking.instrument(span.clone()).await;
        match ended.outcome() {
            Some(outcome) => span.record("outcome", outcome),
            None => span
                .record("outcome", "failed")
                .record("otel.status_code", "ERROR"),
        };
        ended
    }

    /// The L1 answers: said of the span of the lookup that is under way.
    pub(crate) fn is_near() {
        tracing::Span::current().record("l1", true);
    }
}

#[cfg(not(feature = "spans"))]
mod off {
    use crate::cache::Inner;

    #[inline(always)]
    pub(crate) fn lookup<L>(_inner: &Inner, looking: L) -> L {
        looking
    }

    #[inline(always)]
    pub(crate) fn is_near() {}
}
