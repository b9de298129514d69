//! Errors as clients see them: `application/problem+json` (RFC 9457).

use std::borrow::Cow;

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
}

impl Problem {
    /// A problem that its status says all about.
    #[must_use]
    pub fn new(status: StatusCode) -> Self {
        Self {
            status,
            detail: None,
        }
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
        response
    }
}
