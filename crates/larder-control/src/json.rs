//! JSON in and out.

use axum::extract::{FromRequest, Json, Request};
use bytes::Bytes;
use http::StatusCode;
use larder_http::Problem;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A body that is a JSON object of this type; what is not gets an answer that says why. That it came as
/// `application/json` was checked by the gate.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|rejection| problem(rejection.status(), &rejection.body_text()))?;
        // Serde would take the fields as an array, too.
        if bytes.trim_ascii_start().first() == Some(&b'[') {
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            return Err(problem(status, "the body is an array: send an object, {…}"));
        }
        if let Ok(document) = serde_json::from_slice(&bytes) {
            return Ok(Self(document));
        }
        // Once more, since that tells which field is wrong: to keep an eye on it takes twice the time.
        Json::from_bytes(&bytes)
            .map(|Json(document)| Self(document))
            .map_err(|rejection| problem(rejection.status(), &rejection.body_text()))
    }
}

fn problem(status: StatusCode, detail: &str) -> Problem {
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        return Problem::new(status).detail("the body is larger than 1 MiB: send it in parts");
    }
    Problem::new(status).detail(larder_model::escape(detail).into_owned())
}

/// A document as bytes. The documents of this crate have string keys and finite numbers, so that none fails.
pub(crate) fn bytes<T: Serialize>(document: &T) -> Bytes {
    serde_json::to_vec(document).unwrap_or_default().into()
}

/// [`bytes()`] as text.
pub(crate) fn text<T: Serialize>(document: &T) -> String {
    serde_json::to_string(document).unwrap_or_default()
}
