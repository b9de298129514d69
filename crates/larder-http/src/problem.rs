//! Errors as clients see them: `application/problem+json` (RFC 9457).

use std::borrow::Cow;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

/// An error for a client, as `application/problem+json`.
///
/// ```
/// use axum::response::IntoResponse;
/// use larder_http::Problem;
///
/// async fn handler() -> Result<&'static str, Problem> {
///     Err(Problem::new(http::StatusCode::NOT_FOUND).detail("there is no such product"))
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    detail: Option<Cow<'static, str>>,
    retry_after: Option<Duration>,
}

impl Problem {
    /// A problem that its status says all about.
    #[must_use]
    pub fn new(status: StatusCode) -> Self {
        Self {
            status,
            detail: None,
            retry_after: None,
        }
    }

    /// Says when to come again (`Retry-After`, in whole seconds, rounded up).
    #[must_use]
    pub fn retry_after(mut self, time: Duration) -> Self {
        self.retry_after = Some(time);
        self
    }

    /// Says what is wrong, and what to do.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }
}

impl Problem {
    /// What is wrong, and what to do, if that was said.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        self.detail.as_deref()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let title = self.status.canonical_reason().unwrap_or("Error");
        let mut document = serde_json::json!({ "title": title, "status": self.status.as_u16() });
        if let Some(detail) = self.detail {
            document["detail"] = detail.into();
        }
        let mut response = (self.status, document.to_string()).into_response();
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(time) = self.retry_after {
            let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
