//! The same over TLS.

use std::io;
use std::sync::Arc;

use axum::Router;
use futures_util::FutureExt as _;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
pub use tokio_rustls::rustls;

use super::connection::{Driven, Handshake};
use super::stream::PacedStream;
use super::{Limits, accepting};

/// Marks a request that came over TLS: among its extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverTls;

/// [`serve`](super::serve()) over TLS. The handshake has [`Limits::head_timeout`]. Which of HTTP/1.1 and HTTP/2 is spoken, the
/// configuration's `alpn_protocols` offer; requests carry [`OverTls`]. An answer without an end keeps its connection's buffers.
///
/// # Errors
/// As [`serve`](super::serve()).
pub fn serve_tls(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    config: Arc<rustls::ServerConfig>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> impl Future<Output = io::Result<()>> + Send {
    let handshake = Handshake {
        tls: Some(TlsAcceptor::from(config)),
    };
    accepting(listener, router, limits, handshake, shutdown.boxed()).boxed()
}

impl Driven {
    pub(super) async fn over_tls(mut self, tls: &TlsAcceptor, stream: PacedStream) {
        self.answering.is_over_tls = true;
        let (peer, limits) = (self.answering.peer, &self.answering.limits);
        let mut is_closing = self.is_closing.clone();
        let shaken = tokio::select! {
            shaken = timeout(limits.head_timeout, tls.accept(stream)) => shaken,
            // Nothing was asked yet.
            _ = is_closing.wait_for(|is_closing| *is_closing) => return,
        };
        let shaken = match shaken {
            Ok(Ok(shaken)) => shaken,
            Ok(Err(error)) => {
                tracing::debug!(%peer, %error, "no TLS came of a connection");
                return;
            }
            Err(_) => {
                tracing::debug!(%peer, "a TLS handshake took too long");
                return;
            }
        };
        // Nothing is handed over here.
        self.drive(shaken).await;
    }
}
