//! JSON in and out.

use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, Json, Request};
use bytes::Bytes;
use http::StatusCode;
use larder_http::Problem;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A body that is a JSON document of this type; what is not gets an answer that says why.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let body = Json::<T>::from_request(request, state).await;
        body.map(|Json(document)| Self(document)).map_err(problem)
    }
}

fn problem(rejection: JsonRejection) -> Problem {
    let status = rejection.status();
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::new(status).detail("the body is larger than 1 MiB: send it in parts")
        }
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            Problem::new(status).detail("send JSON, with Content-Type: application/json")
        }
        _ => Problem::new(status).detail(larder_model::escape(&rejection.body_text()).into_owned()),
    }
}

/// A document as bytes. The documents of this crate have string keys and finite numbers, so that none fails.
pub(crate) fn bytes<T: Serialize>(document: &T) -> Bytes {
    serde_json::to_vec(document).unwrap_or_default().into()
}
