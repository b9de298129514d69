//! A start while PostgreSQL is away: it is waited for, and who asks meanwhile is told.

use std::os::fd::AsFd as _;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::StatusCode;
use larder_http::{Limits, Problem};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::database::OpenError;
use crate::plane::{ControlPlane, RunError, Settings};
use crate::tls::Tls;

/// After this it is tried again; each time twice as long, at most as long as below.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(5);

impl ControlPlane {
    /// Opens the database as [`ControlPlane::open`] does, and waits for one that is away. Meanwhile `listener` answers that the
    /// process lives (`/healthz`), and to all else that it is not ready. `None`: `shutdown` came first.
    ///
    /// # Errors
    /// A [`RunError`]; [`RunError::Open`] for what waiting does not mend.
    pub fn open_when_there<'a>(
        settings: Settings,
        listener: &'a TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'a,
    ) -> impl Future<Output = Result<Option<Self>, RunError>> + Send {
        Self::opened_when_there(settings, listener, shutdown.boxed()).boxed()
    }

    async fn opened_when_there(
        settings: Settings,
        listener: &TcpListener,
        shutdown: BoxFuture<'_, ()>,
    ) -> Result<Option<Self>, RunError> {
        let away = match Self::open(settings.clone()).await {
            Err(error) if error.is_temporary() => error,
            opened => return Ok(Some(opened?)),
        };
        tracing::warn!(error = %away, "waiting for the database; /healthz answers meanwhile, /readyz says that it is not ready");
        let tls = settings.tls.clone().map(Tls::open).transpose();
        let tls = tls.map_err(OpenError::from)?;
        let answering = std::net::TcpListener::from(listener.as_fd().try_clone_to_owned()?);
        let answering = TcpListener::from_std(answering)?;
        let (done, ended) = oneshot::channel::<()>();
        let ended = async {
            // Sent or dropped: it is the end.
            let _ = ended.await;
        };
        let serving = async {
            let (router, limits) = (router(), Limits::default());
            match &tls {
                None => larder_http::serve(answering, router, limits, ended).await,
                Some(tls) => {
                    larder_http::serve_tls(answering, router, limits, tls.config(), ended).await
                }
            }
        };
        let opening = async {
            let opened = tokio::select! {
                opened = reopen(settings) => opened.map(Some),
                () = shutdown => Ok(None),
            };
            drop(done);
            opened
        };
        let (served, opened) = tokio::join!(serving, opening);
        served?;
        Ok(opened?)
    }
}

async fn reopen(settings: Settings) -> Result<ControlPlane, OpenError> {
    let mut wait = FIRST;
    loop {
        tokio::time::sleep(wait).await;
        wait = (2 * wait).min(LONGEST);
        match ControlPlane::open(settings.clone()).await {
            Err(error) if error.is_temporary() => {
                tracing::warn!(%error, "the database is still away");
            }
            opened => return opened,
        }
    }
}

fn router() -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .fallback(async || {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE)
                .retry_after(LONGEST)
                .detail("the control plane waits for its database: services go on with the policies that they have")
        })
}
