//! What the routes that change something, or tell of changes, have in common.

use std::time::Duration;

use http::{HeaderMap, HeaderName, StatusCode, header};
use larder_http::Problem;

use crate::cause::{Cause, CauseError};
use crate::database::is_busy;
use crate::registry::{ChangeError, Preconditions, Tags};
use crate::target::Peer;

/// Who is told that the database does not answer may ask again after this.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Makes a change, also if its client goes away, with whom the handler ends: else it could be in the database and not
/// in force.
pub(super) async fn to_its_end<T: Send + 'static>(
    change: impl Future<Output = T> + Send + 'static,
) -> Result<T, Problem> {
    tokio::spawn(change).await.map_err(|error| {
        tracing::error!(%error, "a change came to no end");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR)
            .detail("the change failed: the control plane's log says why")
    })
}

/// [`to_its_end`] for one that may not be made.
pub(super) async fn made<T: Send + 'static>(
    change: impl Future<Output = Result<T, ChangeError>> + Send + 'static,
) -> Result<T, Problem> {
    to_its_end(change).await?.map_err(problem)
}

pub(super) fn preconditions(headers: &HeaderMap) -> Result<Preconditions, Problem> {
    let tags = |name: HeaderName| -> Result<Option<Tags>, Problem> {
        let Some(value) = headers.get(&name) else {
            return Ok(None);
        };
        let text = value.to_str().map_err(|_| {
            Problem::new(StatusCode::BAD_REQUEST)
                .detail("If-Match and If-None-Match take * or what came as ETag")
        })?;
        Ok(Some(Tags(text.to_owned())))
    };
    Ok(Preconditions {
        if_match: tags(header::IF_MATCH)?,
        if_none_match: tags(header::IF_NONE_MATCH)?,
    })
}

pub(super) fn problem(error: ChangeError) -> Problem {
    let status = match &error {
        ChangeError::Policy(_)
        | ChangeError::PolicyOf { .. }
        | ChangeError::Endpoint { .. }
        | ChangeError::Twice(_)
        | ChangeError::Override(_) => StatusCode::UNPROCESSABLE_ENTITY,
        ChangeError::Precondition => StatusCode::PRECONDITION_FAILED,
        ChangeError::Absent | ChangeError::NoOverride | ChangeError::NoRevision(_) => {
            StatusCode::NOT_FOUND
        }
        ChangeError::Full(_) | ChangeError::Overridden => StatusCode::CONFLICT,
        ChangeError::TooOften => StatusCode::TOO_MANY_REQUESTS,
        ChangeError::OtherKey { .. } | ChangeError::Unreadable { .. } => {
            tracing::error!(%error, "a change can't be made");
            StatusCode::INTERNAL_SERVER_ERROR
        }
        ChangeError::Busy => StatusCode::SERVICE_UNAVAILABLE,
        ChangeError::Database(source) | ChangeError::Unsure(source) => {
            tracing::error!(error = %source, "the database did not take a change");
            StatusCode::SERVICE_UNAVAILABLE
        }
    };
    let problem = match status {
        StatusCode::SERVICE_UNAVAILABLE => Problem::new(status).retry_after(RETRY_AFTER),
        status => Problem::new(status),
    };
    problem.detail(larder_model::escape(&error.to_string()).into_owned())
}

/// What somebody says of a change, checked.
pub(super) fn cause(
    author: Option<String>,
    reason: Option<String>,
    peer: Peer,
) -> Result<Cause, Problem> {
    peer.cause(author, reason).map_err(unsaid)
}

pub(super) fn unsaid(error: CauseError) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY).detail(error.to_string())
}

/// The database can't be asked.
pub(crate) fn unread(error: sqlx::Error) -> Problem {
    if is_busy(&error) {
        return problem(ChangeError::Busy);
    }
    tracing::error!(%error, "the database can't be read");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE)
        .retry_after(RETRY_AFTER)
        .detail(
            "the database did not answer: try again in some seconds; GET /readyz says when it is back",
        )
}

/// How a list is asked for: a page of it, which begins before the last of the one before.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    before: Option<u64>,
    limit: Option<u32>,
}

/// So many are in a page that asks for no number.
const PAGE: u32 = 50;
/// None has more.
const MAX_PAGE: u32 = 500;

impl Page {
    pub(super) fn new(before: Option<u64>, limit: Option<u32>) -> Self {
        Self { before, limit }
    }

    /// What comes before this number, and how much of it.
    pub(super) fn bounds(&self) -> (u64, u32) {
        let limit = self.limit.unwrap_or(PAGE).clamp(1, MAX_PAGE);
        (self.before.unwrap_or(u64::MAX), limit)
    }
}

/// The `before` of the next page, if this one is full.
pub(crate) fn next_before(last: Option<u64>, length: usize, limit: u32) -> Option<u64> {
    let is_full = length >= limit as usize;
    last.filter(|last| is_full && *last > 1)
}
