//! What hyper and axum let through that must not get through: a request that names no host or two, too many headers,
//! a body that announces to be too large.

use http::uri::Authority;
use http::{Request, StatusCode, Version, header};

use super::Limits;
use super::connection::too_large;
use crate::Problem;

pub(super) fn check<B: http_body::Body>(
    request: &Request<B>,
    limits: &Limits,
) -> Result<(), Problem> {
    if request.headers().len() > limits.headers {
        let problem = Problem::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        return Err(problem.detail(format!(
            "the request has more than the {} headers allowed",
            limits.headers
        )));
    }
    check_host(request)?;
    if request.body().size_hint().lower() > limits.body_bytes {
        return Err(too_large(limits));
    }
    Ok(())
}

/// One host, the same everywhere (RFC 9112 section 3.2, RFC 9113 section 8.3.1). Where the URI and `Host` differ, a
/// cache and the handler behind it may each believe another (CVE-2016-4553).
fn check_host<B>(request: &Request<B>) -> Result<(), Problem> {
    let authority = request.uri().authority();
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host,
        (None, _) if authority.is_some() && request.version() == Version::HTTP_2 => return Ok(()),
        (None, _) if request.version() < Version::HTTP_11 => return Ok(()),
        (None, _) => return Err(bad_host("the request names no host: send one Host header")),
        (Some(_), Some(_)) => {
            return Err(bad_host("the request has two Host headers: send one"));
        }
    };
    let Ok(host) = Authority::try_from(host.as_bytes()) else {
        return Err(bad_host("the request's Host is not a host's name"));
    };
    if host.as_str().contains('@') {
        return Err(bad_host("the request's Host has a user's name in it"));
    }
    // Authorities are equal whatever the case of their letters.
    if authority.is_some_and(|authority| *authority != host) {
        return Err(bad_host(
            "the request's URI and its Host name two different hosts: make them equal",
        ));
    }
    Ok(())
}

fn bad_host(detail: &'static str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST).detail(detail)
}
