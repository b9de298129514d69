//! What was read of a log, and which of its lines are looked up.

use larder_core::Key;
use larder_logs::{Flaw, Method, Request};
use serde::Serialize;

use crate::replay::endpoints::EndpointId;
use crate::replay::targets::{Meaning, Targets};

/// A line that is no log line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Unreadable {
    /// Its number; the first line's is 1.
    pub(crate) line: u64,
    /// Its beginning.
    pub(crate) text: String,
    pub(crate) why: String,
}

/// What was read of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct LinesRead {
    pub(crate) lines: u64,
    /// Lines that are no log lines.
    pub(crate) unreadable: u64,
    pub(crate) first_unreadable: Option<Unreadable>,
    /// Requests with another method than GET.
    pub(crate) other_methods: u64,
    /// GETs whose status was not asked for.
    pub(crate) other_statuses: u64,
    /// GETs whose path was not asked for.
    pub(crate) not_included: u64,
    /// GETs for which Larder has no key.
    pub(crate) without_key: u64,
    /// Requests that are earlier than one before them.
    pub(crate) went_back: u64,
    /// The first request's time, and the latest one's, in milliseconds since 1970.
    #[serde(skip)]
    pub(crate) span_ms: Option<(u64, u64)>,
}

impl LinesRead {
    pub(crate) fn note_unreadable(&mut self, line: u64, text: String, flaw: Flaw) {
        self.unreadable += 1;
        self.first_unreadable.get_or_insert_with(|| Unreadable {
            line,
            text,
            why: flaw.to_string(),
        });
    }

    /// The lookup that a request is, if it is to be replayed; else it is counted why not.
    pub(crate) fn lookup<'a>(
        &mut self,
        statuses: &[u16],
        targets: &'a mut Targets,
        request: &Request<'_>,
    ) -> Option<(&'a Key, EndpointId)> {
        if request.method != Method::Get {
            self.other_methods += 1;
            return None;
        }
        if !statuses.is_empty() && !statuses.contains(&request.status) {
            self.other_statuses += 1;
            return None;
        }
        match targets.meaning(&request.target) {
            Meaning::Lookup { key, endpoint } => {
                self.note_time(request.at_ms);
                Some((key, *endpoint))
            }
            Meaning::NotIncluded => {
                self.not_included += 1;
                None
            }
            Meaning::NoKey => {
                self.without_key += 1;
                None
            }
        }
    }

    fn note_time(&mut self, at_ms: u64) {
        let (_, latest) = self.span_ms.get_or_insert((at_ms, at_ms));
        self.went_back += u64::from(at_ms < *latest);
        *latest = at_ms.max(*latest);
    }
}
