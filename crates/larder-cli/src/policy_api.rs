//! The control plane, as the command line talks to it.

use std::time::Duration;

use anyhow::{Context as _, bail};
use larder::api::{EndpointConfig, PolicyList, ServiceList};
use larder::{Endpoint, PolicyPatch, Service, Settings};
use reqwest::{Method, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

const TIMEOUT: Duration = Duration::from_secs(5);
/// No answer of a control plane is longer, in bytes.
const MAX_ANSWER: usize = 8 << 20;

/// A control plane.
pub(crate) struct ControlPlane {
    url: String,
    client: reqwest::Client,
}

impl ControlPlane {
    /// The one that the settings name; without a name, the one that would run on this machine.
    pub(crate) fn of(settings: &Settings) -> anyhow::Result<Self> {
        let local = || format!("http://127.0.0.1:{}", settings.control_port);
        let url = settings.control_plane_url.clone().unwrap_or_else(local);
        // Another one that was installed before does as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            client,
        })
    }

    pub(crate) async fn services(&self) -> anyhow::Result<ServiceList> {
        let answer = self.send(Method::GET, "/api/services", None::<&()>).await?;
        self.read(answer).await
    }

    pub(crate) async fn policies(&self, service: &Service) -> anyhow::Result<PolicyList> {
        let path = format!("/api/policies/{service}");
        let answer = self.send(Method::GET, &path, None::<&()>).await?;
        self.read(answer).await
    }

    /// The policy in force.
    pub(crate) async fn config(
        &self,
        service: &Service,
        endpoint: &Endpoint,
    ) -> anyhow::Result<EndpointConfig> {
        let path = path("config", service, endpoint);
        let answer = self.send(Method::GET, &path, None::<&()>).await?;
        self.read(answer).await
    }

    /// Sets a policy in the place of the one there was; answers what is in force now.
    pub(crate) async fn put(
        &self,
        service: &Service,
        endpoint: &Endpoint,
        patch: &PolicyPatch,
    ) -> anyhow::Result<EndpointConfig> {
        let path = path("policies", service, endpoint);
        let answer = self.send(Method::PUT, &path, Some(patch)).await?;
        self.read(answer).await
    }

    /// Sets a policy where there is none.
    #[cfg(feature = "demo")]
    pub(crate) async fn put_first(
        &self,
        service: &Service,
        endpoint: &Endpoint,
        patch: &PolicyPatch,
    ) -> anyhow::Result<()> {
        let request = self
            .request(Method::PUT, &path("policies", service, endpoint))
            .header(reqwest::header::IF_NONE_MATCH, "*")
            .body(serde_json::to_vec(patch)?);
        let answer = request.send().await.with_context(|| self.unreachable())?;
        if answer.status() == StatusCode::PRECONDITION_FAILED {
            return Ok(());
        }
        checked(answer).await?;
        Ok(())
    }

    /// Removes a policy; `false` if there was none.
    pub(crate) async fn delete(
        &self,
        service: &Service,
        endpoint: &Endpoint,
    ) -> anyhow::Result<bool> {
        let path = path("policies", service, endpoint);
        let answer = self.request(Method::DELETE, &path).send().await;
        let answer = answer.with_context(|| self.unreachable())?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        checked(answer).await?;
        Ok(true)
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client
            .request(method, format!("{}{path}", self.url))
            .header(reqwest::header::CONTENT_TYPE, "application/json")
    }

    async fn send<T: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&T>,
    ) -> anyhow::Result<Response> {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.body(serde_json::to_vec(body)?);
        }
        let answer = request.send().await.with_context(|| self.unreachable())?;
        checked(answer).await
    }

    async fn read<T: DeserializeOwned>(&self, answer: Response) -> anyhow::Result<T> {
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

/// The path of an endpoint's document.
fn path(kind: &str, service: &Service, endpoint: &Endpoint) -> String {
    let template = endpoint.template();
    let encoded: String = template
        .chars()
        .map(|character| match character {
            '{' => "%7B".to_owned(),
            '}' => "%7D".to_owned(),
            '*' => "%2A".to_owned(),
            // An encoded byte of the template stays one when the path is decoded.
            '%' => "%25".to_owned(),
            other => other.to_string(),
        })
        .collect();
    let method = match endpoint.method().is_get() {
        true => String::new(),
        false => format!("?method={}", endpoint.method()),
    };
    format!("/api/{kind}/{service}{encoded}{method}")
}

/// The answer, if it is one; else what the control plane says is wrong.
async fn checked(answer: Response) -> anyhow::Result<Response> {
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
