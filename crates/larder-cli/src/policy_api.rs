//! The control plane, as the command line talks to it.

use std::time::Duration;

use anyhow::{Context as _, bail};
use larder::api::{
    EndpointConfig, Explanation, InstanceList, PolicyDocument, PolicyList, ServiceList,
};
use larder::{Endpoint, PolicyPatch, Service, Settings};
use reqwest::{Method, Response, StatusCode, header};
use serde::de::DeserializeOwned;

use crate::args::Said;

const TIMEOUT: Duration = Duration::from_secs(5);
/// No answer of a control plane is longer, in bytes.
const MAX_ANSWER: usize = 8 << 20;

/// A control plane.
pub(crate) struct ControlPlane {
    url: String,
    client: reqwest::Client,
}

/// A policy as somebody set it, and the tag that tells it from what is set later.
pub(crate) struct Tagged {
    pub(crate) policy: PolicyPatch,
    pub(crate) tag: String,
}

impl ControlPlane {
    /// The one that the settings name; without a name, the one that would run on this machine.
    pub(crate) fn of(settings: &Settings) -> anyhow::Result<Self> {
        let local = || format!("http://127.0.0.1:{}", settings.control_port);
        let url = settings.control_plane_url.clone().unwrap_or_else(local);
        // Another one that was installed before does as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        if let Some(warning) = settings.control_key_warning() {
            eprintln!("larder: {}", larder::escape(&warning));
        }
        if let Some(key) = &settings.control_key {
            let shown = larder::control_authorization(&url, key)
                .context("LARDER_CONTROL_KEY can't be sent to CONTROL_PLANE_URL")?;
            client = client.default_headers([(header::AUTHORIZATION, shown)].into_iter().collect());
        }
        if url.starts_with("http://") {
            // Else a machine without certificate authorities could not even speak plain HTTP.
            client = client.tls_certs_only([]);
        } else if let Some(path) = &settings.control_tls_ca {
            client = client.tls_certs_only(larder::control_authorities(path)?);
        }
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            client: client.build().context(
                "can't set up HTTPS: install ca-certificates, or use an http: URL in CONTROL_PLANE_URL",
            )?,
        })
    }

    pub(crate) async fn services(&self) -> anyhow::Result<ServiceList> {
        self.get("/api/services").await
    }

    /// The instances of a service, or of all.
    pub(crate) async fn instances(
        &self,
        service: Option<&Service>,
    ) -> anyhow::Result<InstanceList> {
        match service {
            Some(service) => self.get(&format!("/api/instances?service={service}")).await,
            None => self.get("/api/instances").await,
        }
    }

    pub(crate) async fn policies(&self, service: &Service) -> anyhow::Result<PolicyList> {
        self.get(&format!("/api/policies/{service}")).await
    }

    /// The policy in force.
    pub(crate) async fn config(
        &self,
        service: &Service,
        endpoint: &Endpoint,
    ) -> anyhow::Result<EndpointConfig> {
        self.get(&path("config", service, endpoint)).await
    }

    /// What was decided for an endpoint; as it was at a time, in seconds since 1970.
    pub(crate) async fn explain(
        &self,
        service: &Service,
        endpoint: &Endpoint,
        at: Option<u64>,
    ) -> anyhow::Result<Explanation> {
        let mut path = path("explain", service, endpoint);
        if let Some(at) = at {
            path.push(if path.contains('?') { '&' } else { '?' });
            path.push_str(&format!("at={at}"));
        }
        self.get(&path).await
    }

    /// The policy that was set for an endpoint, whatever the names of its parameters.
    pub(crate) async fn policy(
        &self,
        service: &Service,
        endpoint: &Endpoint,
    ) -> anyhow::Result<Option<Tagged>> {
        let path = path("policies", service, endpoint);
        let answer = self.send(self.request(Method::GET, &path)).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let answer = checked(answer).await?;
        let tag = tag(&answer)?;
        let document: PolicyDocument = self.read(answer).await?;
        Ok(Some(Tagged {
            policy: document.policy,
            tag,
        }))
    }

    /// Sets a policy in the place of the one with this tag, or where there is none; answers what is in force now,
    /// `None` if somebody else was faster.
    pub(crate) async fn put(
        &self,
        service: &Service,
        endpoint: &Endpoint,
        patch: &PolicyPatch,
        old: Option<&str>,
        said: &Said,
    ) -> anyhow::Result<Option<EndpointConfig>> {
        let path = because(path("policies", service, endpoint), said);
        let request = self.request(Method::PUT, &path);
        let request = match old {
            Some(tag) => request.header(header::IF_MATCH, tag),
            None => request.header(header::IF_NONE_MATCH, "*"),
        };
        let request = request.body(serde_json::to_vec(patch)?);
        let answer = self.send(request).await?;
        if answer.status() == StatusCode::PRECONDITION_FAILED {
            return Ok(None);
        }
        self.read(checked(answer).await?).await.map(Some)
    }

    /// Removes a policy; `false` if there was none.
    pub(crate) async fn delete(
        &self,
        service: &Service,
        endpoint: &Endpoint,
        said: &Said,
    ) -> anyhow::Result<bool> {
        let path = because(path("policies", service, endpoint), said);
        let answer = self.send(self.request(Method::DELETE, &path)).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        checked(answer).await?;
        Ok(true)
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client
            .request(method, format!("{}{path}", self.url))
            .header(header::CONTENT_TYPE, "application/json")
    }

    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Response> {
        request.send().await.with_context(|| self.unreachable())
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let answer = self.send(self.request(Method::GET, path)).await?;
        self.read(checked(answer).await?).await
    }

    pub(crate) async fn read<T: DeserializeOwned>(&self, answer: Response) -> anyhow::Result<T> {
        let body = bounded(answer).await?;
        serde_json::from_slice(&body)
            .with_context(|| format!("{} answers, but not as a control plane of Larder", self.url))
    }

    fn unreachable(&self) -> String {
        format!(
            "the control plane at {} can't be reached: start it (`larder up` or `larder control`), or set CONTROL_PLANE_URL",
            self.url
        )
    }
}

/// The path of an endpoint's document. What is percent-encoded in a template stays so: the control plane reads it as it
/// comes.
fn path(kind: &str, service: &Service, endpoint: &Endpoint) -> String {
    let template = endpoint.template();
    let encoded: String = template
        .chars()
        .map(|character| match character {
            '{' => "%7B".to_owned(),
            '}' => "%7D".to_owned(),
            '*' => "%2A".to_owned(),
            other => other.to_string(),
        })
        .collect();
    let method = match endpoint.method().is_get() {
        true => String::new(),
        false => format!("?method={}", endpoint.method()),
    };
    format!("/api/{kind}/{service}{encoded}{method}")
}

/// The path, with who changes something there, and why.
pub(crate) fn because(mut path: String, said: &Said) -> String {
    let author = said.author().map(|author| ("author", author));
    let reason = said.reason.clone().map(|reason| ("reason", reason));
    for (name, value) in author.into_iter().chain(reason) {
        path.push(if path.contains('?') { '&' } else { '?' });
        path.push_str(name);
        path.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() {
                path.push(char::from(byte));
            } else {
                path.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    path
}

/// What tells the document of an answer from what is set later.
pub(crate) fn tag(answer: &Response) -> anyhow::Result<String> {
    let tag = answer.headers().get(header::ETAG);
    let tag = tag.and_then(|tag| tag.to_str().ok());
    tag.map(str::to_owned)
        .context("the control plane's answer has no ETag")
}

/// The answer, if it is one; else what the control plane says is wrong.
pub(crate) async fn checked(answer: Response) -> anyhow::Result<Response> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let body = bounded(answer).await.unwrap_or_default();
    let problem: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    match problem.get("detail").and_then(serde_json::Value::as_str) {
        Some(detail) => bail!("{detail}"),
        None => bail!("the control plane answers {status}"),
    }
}

async fn bounded(mut answer: Response) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > MAX_ANSWER {
            bail!("the control plane's answer is longer than 8 MiB");
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
