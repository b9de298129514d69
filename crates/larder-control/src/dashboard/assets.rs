//! What pages load: style and script, embedded in the binary.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, header};

use super::missing;
use crate::access::Caller;

const ASSETS: [(&str, &str, &str); 2] = [
    (
        "dashboard.css",
        "text/css; charset=utf-8",
        include_str!("../../assets/dashboard.css"),
    ),
    (
        "dashboard.js",
        "text/javascript; charset=utf-8",
        include_str!("../../assets/dashboard.js"),
    ),
];

/// Where an asset is; another address for another content, so that browsers may keep it.
pub(super) fn href(name: &str) -> String {
    let content = ASSETS.iter().find(|(known, ..)| *known == name);
    let mut hasher = DefaultHasher::new();
    content.map(|(.., content)| content).hash(&mut hasher);
    format!("/ui/assets/{name}?{:016x}", hasher.finish())
}

pub(super) async fn asset(caller: Caller, Path(name): Path<String>) -> Response {
    let Some((_, form, content)) = ASSETS.iter().find(|(known, ..)| *known == name) else {
        return missing(&caller, "There is no such file");
    };
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(form)),
        (
            header::CACHE_CONTROL,
            HeaderValue::from_static("private, max-age=31536000, immutable"),
        ),
    ];
    (headers, *content).into_response()
}
