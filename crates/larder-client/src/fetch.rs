//! The wire to the control plane: bounded in time and size, and it goes nowhere else.

use std::path::{Path, PathBuf};
use std::time::Duration;

use larder_core::api::{InstanceReport, SignalBatch};
use larder_core::{Secret, Service};
use reqwest::header::HeaderValue;
use reqwest::{Certificate, ClientBuilder, StatusCode, header};
use url::{Host, Url};

use crate::client::StartError;

/// No answer is larger, in bytes.
pub(crate) const MAX_ANSWER: usize = 8 << 20;
/// What a stream of server-sent events is called.
const EVENTS: &str = "text/event-stream";
/// A tag that is longer is not used.
const MAX_ETAG: usize = 256;

/// Why a text is not the URL of a control plane. The URL is not shown: it may hold a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// It is no URL at all, or not of HTTP.
    #[error("the control plane's URL is not one: write http://127.0.0.1:8000")]
    NotHttp,
    /// It has a user, a query or a fragment.
    #[error(
        "the control plane's URL has a user name, a password, a query or a fragment: leave them out"
    )]
    Extra,
}

/// Why a key can't be sent to a control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlKeyError {
    /// It would go over the network in clear.
    #[error(
        "an API key is sent over http: to this machine alone, since others could read it on the way: use an https: URL"
    )]
    InClear,
    /// It would go nowhere.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// It is no text of a key.
    #[error("this is no API key: write it as `larder key create` printed it (lrd_…)")]
    NoKey,
}

/// Why the authorities of a file can't be trusted.
#[derive(Debug, thiserror::Error)]
#[error("can't use the authorities in {path}: {why}; name a PEM file with their certificates")]
pub struct AuthoritiesError {
    path: PathBuf,
    why: String,
}

/// Why the control plane gave no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("it can't be reached ({0})")]
    Unreachable(String),
    #[error("it answered with status {status}{next}", status = .0, next = next_step(*.0))]
    Status(StatusCode),
    #[error("its answer is larger than 8 MiB")]
    TooLarge,
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    #[error("it can't be reached ({0})")]
    Unreachable(String),
    #[error("it answered with status {status}{next}", next = next_step(*.status))]
    Status {
        status: StatusCode,
        /// When to come again, if it said so.
        after: Option<Duration>,
    },
    #[error("what it answered is no stream of events")]
    ContentType,
}

/// What the control plane answered.
pub(crate) enum Fetched {
    /// It is one of those that are known: this one, if the answer says which.
    Known(Option<String>),
    Changed {
        body: Vec<u8>,
        etag: Option<String>,
    },
}

/// The control plane, for one service.
pub(crate) struct Remote {
    http: reqwest::Client,
    /// For what has no end: it may be silent, and whoever reads it knows for how long.
    endless: reqwest::Client,
    config: Url,
    stream: Url,
    signals: Url,
    instances: Url,
    invalidated: Url,
}

impl Remote {
    pub(crate) fn new(
        url: &str,
        key: Option<&Secret>,
        authorities: Option<&Path>,
        service: &Service,
    ) -> Result<Self, StartError> {
        let base = parse(url)?;
        let authorization = key.map(|key| authorization(&base, key)).transpose()?;
        // Fails where the program has a provider already, which then is the one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let trusted = match (base.scheme(), authorities) {
            ("https", Some(file)) => Trusted::These(control_authorities(file)?),
            ("https", None) => Trusted::Machine(machine_authorities()?.into()),
            // Else a machine without certificate authorities could not even speak plain HTTP.
            _ => Trusted::These(Vec::new()),
        };
        let http_client = |set: fn(ClientBuilder) -> ClientBuilder| {
            http_client(trusted.clone(), authorization.clone(), set)
        };
        let at = |path: &str| {
            let mut url = base.clone();
            let prefix = base.path().trim_end_matches('/');
            url.set_path(&format!("{prefix}{path}"));
            url
        };
        Ok(Self {
            http: http_client(|builder| {
                builder
                    .read_timeout(Duration::from_secs(2))
                    .timeout(Duration::from_secs(10))
                    .pool_max_idle_per_host(2)
            })?,
            endless: http_client(|builder| builder.pool_max_idle_per_host(0))?,
            config: at(&format!("/api/config/{service}")),
            stream: at(&format!("/api/stream/{service}")),
            signals: at("/api/signals/batch"),
            instances: at("/api/instances"),
            invalidated: at(&format!("/api/invalidated/{service}")),
        })
    }

    /// Begins to follow the service; `known` is the id of the version that is here already, `position` where this process is in
    /// the service's invalidations, empty if nowhere yet.
    pub(crate) async fn stream(
        &self,
        known: Option<&str>,
        position: &str,
    ) -> Result<reqwest::Response, StreamError> {
        let request = self.endless.get(self.stream.clone());
        let mut request = request
            .header(header::ACCEPT, EVENTS)
            .header("larder-invalidations", position);
        if let Some(known) = known {
            request = request.header("last-event-id", known);
        }
        let response = request.send().await;
        let response = response.map_err(|error| StreamError::Unreachable(cause(error)))?;
        let status = response.status();
        if status != StatusCode::OK {
            let after = retry_after(&response);
            return Err(StreamError::Status { status, after });
        }
        let form = response.headers().get(header::CONTENT_TYPE);
        let form = form.and_then(|form| form.to_str().ok()).unwrap_or("");
        let essence = form.split(';').next().unwrap_or("").trim();
        if !essence.eq_ignore_ascii_case(EVENTS) {
            return Err(StreamError::ContentType);
        }
        Ok(response)
    }

    /// Tells which policies are in force here.
    pub(crate) async fn announce(&self, report: &InstanceReport) -> Result<(), FetchError> {
        self.post(&self.instances, report).await
    }

    /// What was invalidated behind a position.
    pub(crate) async fn missed(&self, position: &str) -> Result<Vec<u8>, FetchError> {
        let mut url = self.invalidated.clone();
        url.query_pairs_mut().append_pair("after", position);
        let response = self.http.get(url).send().await.map_err(unreachable)?;
        match response.status() {
            StatusCode::OK => read(response).await,
            other => Err(FetchError::Status(other)),
        }
    }

    /// The service's policies, unless they have one of these tags; and where its invalidations stand, if that was said.
    pub(crate) async fn config(
        &self,
        known: &[&str],
    ) -> Result<(Fetched, Option<String>), FetchError> {
        let mut request = self.http.get(self.config.clone());
        if !known.is_empty() {
            request = request.header(header::IF_NONE_MATCH, known.join(", "));
        }
        let response = request.send().await.map_err(unreachable)?;
        let tag_in = |name: &str| {
            let value = response.headers().get(name)?.to_str().ok()?;
            is_tag(value).then(|| value.to_owned())
        };
        let (etag, position) = (tag_in("etag"), tag_in("larder-invalidations"));
        match response.status() {
            StatusCode::NOT_MODIFIED if !known.is_empty() => {
                return Ok((Fetched::Known(etag), position));
            }
            StatusCode::OK => {}
            other => return Err(FetchError::Status(other)),
        }
        let body = read(response).await?;
        Ok((Fetched::Changed { body, etag }, position))
    }

    /// Delivers windows. A status says that the control plane has made up its mind about them.
    pub(crate) async fn report(&self, batch: &SignalBatch) -> Result<(), FetchError> {
        self.post(&self.signals, batch).await
    }

    async fn post<T: serde::Serialize>(&self, url: &Url, document: &T) -> Result<(), FetchError> {
        let request = self.http.post(url.clone()).json(document);
        let response = request.send().await.map_err(unreachable)?;
        match response.status() {
            status if status.is_success() => Ok(()),
            status => Err(FetchError::Status(status)),
        }
    }
}

/// After how many seconds the control plane asks to come again.
fn retry_after(response: &reqwest::Response) -> Option<Duration> {
    let after = response.headers().get(header::RETRY_AFTER)?;
    let seconds: u64 = after.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Whether this can be sent as a tag.
pub(crate) fn is_tag(text: &str) -> bool {
    text.len() <= MAX_ETAG && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn parse(url: &str) -> Result<Url, UrlError> {
    let url = Url::parse(url).map_err(|_| UrlError::NotHttp)?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(UrlError::NotHttp);
    }
    let is_plain = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if is_plain {
        Ok(url)
    } else {
        Err(UrlError::Extra)
    }
}

/// What to do where an answer's status asks for it.
fn next_step(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => {
            ": it wants an API key in LARDER_CONTROL_KEY; larder key create --role report makes one"
        }
        StatusCode::FORBIDDEN => ": the API key in LARDER_CONTROL_KEY must have the role report",
        StatusCode::NOT_FOUND => ": the API key in LARDER_CONTROL_KEY must be for this service",
        _ => "",
    }
}

/// The value of the header `Authorization` by which a key is shown to the control plane with this URL.
///
/// # Errors
/// A [`ControlKeyError`] where others could read it on the way, where that is no URL, or where it is no text of a key.
pub fn control_authorization(url: &str, key: &Secret) -> Result<HeaderValue, ControlKeyError> {
    authorization(&parse(url)?, key)
}

fn authorization(url: &Url, key: &Secret) -> Result<HeaderValue, ControlKeyError> {
    if url.scheme() != "https" && !is_this_machine(url) {
        return Err(ControlKeyError::InClear);
    }
    let text = Secret::new(format!("Bearer {}", key.expose().trim()));
    let mut value = HeaderValue::from_str(text.expose()).map_err(|_| ControlKeyError::NoKey)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Whether what is sent to a URL does not leave this machine.
fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.to_canonical().is_loopback(),
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        None => false,
    }
}

/// The authorities in a PEM file.
///
/// # Errors
/// An [`AuthoritiesError`] that says what to do.
pub fn control_authorities(path: &Path) -> Result<Vec<Certificate>, AuthoritiesError> {
    let failed = |why: String| AuthoritiesError {
        path: path.to_owned(),
        why,
    };
    let text = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    let authorities = Certificate::from_pem_bundle(&text);
    let authorities = authorities.map_err(|error| failed(error.to_string()))?;
    if authorities.is_empty() {
        return Err(failed("it holds no certificate in PEM".to_owned()));
    }
    Ok(authorities)
}

/// Whom a control plane is believed by.
#[derive(Clone)]
enum Trusted {
    /// These authorities.
    These(Vec<Certificate>),
    /// Those of the machine, read once for all clients: that takes longer than all else at the start of a service.
    Machine(Box<rustls::ClientConfig>),
}

fn machine_authorities() -> Result<rustls::ClientConfig, StartError> {
    let loaded = rustls_native_certs::load_native_certs();
    let mut roots = rustls::RootCertStore::empty();
    let (added, ignored) = roots.add_parsable_certificates(loaded.certs);
    let error = loaded.errors.first().map(ToString::to_string);
    if added == 0 {
        let none = || "this machine has no certificate authorities that can be used".to_owned();
        return Err(StartError::Http(error.unwrap_or_else(none)));
    }
    if ignored > 0 || error.is_some() {
        tracing::warn!(
            ignored,
            error,
            "not all certificate authorities of this machine can be used"
        );
    }
    let config = rustls::ClientConfig::builder().with_root_certificates(roots);
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn http_client(
    trusted: Trusted,
    authorization: Option<HeaderValue>,
    set: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> Result<reqwest::Client, StartError> {
    let builder = reqwest::Client::builder()
        .user_agent(concat!("larder/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .connect_timeout(Duration::from_secs(1))
        .default_headers(
            authorization
                .map(|value| (header::AUTHORIZATION, value))
                .into_iter()
                .collect(),
        );
    let builder = match trusted {
        Trusted::These(authorities) => builder.tls_certs_only(authorities),
        Trusted::Machine(config) => builder.tls_backend_preconfigured(*config),
    };
    set(builder)
        .build()
        .map_err(|error| StartError::Http(error.to_string()))
}

async fn read(mut response: reqwest::Response) -> Result<Vec<u8>, FetchError> {
    if response
        .content_length()
        .is_some_and(|length| length > MAX_ANSWER as u64)
    {
        return Err(FetchError::TooLarge);
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(FetchError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn unreachable(error: reqwest::Error) -> FetchError {
    FetchError::Unreachable(cause(error))
}

/// The innermost cause, which is what helps; without the URL.
pub(crate) fn cause(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_url_of_a_control_plane_is_an_error() {
        for url in ["", "127.0.0.1:8000", "ftp://a", "http://", "redis://a"] {
            assert_eq!(parse(url), Err(UrlError::NotHttp), "{url}");
        }
        for url in ["http://u:p@a", "http://a/?key=1", "http://a/#b"] {
            assert_eq!(parse(url), Err(UrlError::Extra), "{url}");
        }
        assert!(parse("https://control.example.com/larder/").is_ok());
        let error = control_authorization("127.0.0.1:8000", &Secret::new("k".to_owned()));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("write http://127.0.0.1:8000"), "{error}");
    }

    #[test]
    fn a_key_leaves_this_machine_sealed_or_not_at_all() {
        let send = |url: &str, key: &str| {
            let key = Secret::new(key.to_owned());
            authorization(&parse(url).unwrap(), &key)
        };
        for url in [
            "http://127.0.0.1:8000",
            "http://127.9.9.9",
            "http://LOCALHOST:1",
            "http://[::1]:8000",
            "http://[::ffff:127.0.0.1]",
            "https://control.example.com",
        ] {
            let sent = send(url, "lrd_1_2\n").unwrap();
            assert_eq!(sent, "Bearer lrd_1_2", "{url}");
            assert!(sent.is_sensitive());
        }
        for url in [
            "http://control.example.com",
            "http://10.0.0.1:8000",
            "http://localhost.example.com",
            "http://127.0.0.1.example.com",
            "http://[::2]",
            "http://0.0.0.0:8000",
        ] {
            assert_eq!(send(url, "k"), Err(ControlKeyError::InClear), "{url}");
        }
        assert_eq!(
            send("http://127.0.0.1", "a\nb: c"),
            Err(ControlKeyError::NoKey)
        );
    }
}
