//! What the control plane tells of changes, and changes that leave more than a policy.

use anyhow::bail;
use larder::Service;
use larder::api::{
    AuditHead, AuditList, Because, NewOverride, Override, OverrideList, PolicyReplacement,
    Replaced, RevisionDiff, RevisionList,
};
use reqwest::{Method, StatusCode, header};
use serde::Serialize;

use crate::args::Said;
use crate::policy_api::{ControlPlane, because, checked, tag};

/// What a replacement or a rollback is tried against, or done.
pub(crate) enum Doing<'a> {
    /// Only tried.
    Trying,
    /// Done if the service's policies still have this tag.
    If(&'a str),
}

impl ControlPlane {
    pub(crate) async fn revisions(
        &self,
        service: &Service,
        limit: u32,
    ) -> anyhow::Result<RevisionList> {
        self.get(&format!("/api/revisions/{service}?limit={limit}"))
            .await
    }

    /// What differs between two revisions; those left out are the one before, and the newest.
    pub(crate) async fn diff(
        &self,
        service: &Service,
        from: Option<u64>,
        to: Option<u64>,
    ) -> anyhow::Result<RevisionDiff> {
        let from = from.map(|from| format!("from={from}"));
        let to = to.map(|to| format!("to={to}"));
        let query: Vec<String> = from.into_iter().chain(to).collect();
        let query = query.join("&");
        self.get(&format!("/api/revisions/{service}/diff?{query}"))
            .await
    }

    /// Brings the policies of a revision back; with it comes the tag of the service's policies.
    pub(crate) async fn rollback(
        &self,
        service: &Service,
        revision: u64,
        said: &Said,
        doing: Doing<'_>,
    ) -> anyhow::Result<(Replaced, String)> {
        let path = format!("/api/revisions/{service}/{revision}/rollback");
        let body = Because {
            reason: said.reason.clone(),
            author: said.author(),
        };
        self.replaced(Method::POST, path, &body, doing).await
    }

    /// Gives a service other policies; with it comes the tag of the service's policies.
    pub(crate) async fn replace(
        &self,
        service: &Service,
        body: &PolicyReplacement,
        doing: Doing<'_>,
    ) -> anyhow::Result<(Replaced, String)> {
        let path = format!("/api/policies/{service}");
        self.replaced(Method::PUT, path, body, doing).await
    }

    async fn replaced(
        &self,
        method: Method,
        path: String,
        body: &impl Serialize,
        doing: Doing<'_>,
    ) -> anyhow::Result<(Replaced, String)> {
        let request = match doing {
            Doing::Trying => self.request(method, &format!("{path}?dry_run=true")),
            Doing::If(tag) => self.request(method, &path).header(header::IF_MATCH, tag),
        };
        let answer = self.send(request.body(serde_json::to_vec(body)?)).await?;
        if answer.status() == StatusCode::PRECONDITION_FAILED {
            bail!(
                "somebody changed these policies meanwhile: run this again to see what it would change now"
            );
        }
        let answer = checked(answer).await?;
        let tag = tag(&answer)?;
        Ok((self.read(answer).await?, tag))
    }

    pub(crate) async fn overrides(
        &self,
        service: Option<&Service>,
    ) -> anyhow::Result<OverrideList> {
        let query = service.map_or_else(String::new, |service| format!("?service={service}"));
        self.get(&format!("/api/overrides{query}")).await
    }

    /// Begins an override; in place of the one that is in force if it is to replace that.
    pub(crate) async fn begin_override(
        &self,
        new: &NewOverride,
        replaces: bool,
    ) -> anyhow::Result<Override> {
        let mut request = self.request(Method::POST, "/api/overrides");
        if replaces {
            request = request.header(header::IF_MATCH, "*");
        }
        let answer = self.send(request.body(serde_json::to_vec(new)?)).await?;
        match answer.status() {
            StatusCode::CONFLICT => {
                bail!("an override is in force for this endpoint: end it first, or say --replace")
            }
            StatusCode::PRECONDITION_FAILED => {
                bail!("no override is in force for this endpoint: leave --replace out")
            }
            _ => self.read(checked(answer).await?).await,
        }
    }

    /// Ends an override; `None` if there is none with this name.
    pub(crate) async fn end_override(
        &self,
        id: &str,
        said: &Said,
    ) -> anyhow::Result<Option<Override>> {
        let is_id = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_id {
            return Ok(None);
        }
        let path = because(format!("/api/overrides/{id}"), said);
        let answer = self.send(self.request(Method::DELETE, &path)).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        self.read(checked(answer).await?).await.map(Some)
    }

    pub(crate) async fn audit(
        &self,
        service: Option<&Service>,
        limit: u32,
    ) -> anyhow::Result<AuditList> {
        let only = service.map_or_else(String::new, |service| format!("&service={service}"));
        self.get(&format!("/api/audit?limit={limit}{only}")).await
    }

    pub(crate) async fn audit_head(&self) -> anyhow::Result<AuditHead> {
        self.get("/api/audit/head").await
    }
}
