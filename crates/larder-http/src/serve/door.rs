//! Where connections come in: so many at once and no more; what goes wrong is waited out.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// How long to wait when the process or the machine has nothing left for another connection. Trying at once would
/// keep a processor busy, since the waiting connection makes the listener ready all the time.
const PAUSE: Duration = Duration::from_millis(100);
/// A fault that stays is logged once in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// A connection that came in.
pub(super) struct Entered {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    /// Given back when the connection ends.
    pub(super) place: OwnedSemaphorePermit,
}

pub(super) struct Door {
    listener: TcpListener,
    places: Arc<Semaphore>,
    logged_at: Option<Instant>,
}

impl Door {
    pub(super) fn new(listener: TcpListener, places: usize) -> Self {
        let places = places.min(Semaphore::MAX_PERMITS);
        Self {
            listener,
            places: Arc::new(Semaphore::new(places)),
            logged_at: None,
        }
    }

    /// The next connection, as soon as there is a place for it.
    pub(super) async fn next(&mut self) -> Entered {
        loop {
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
                // Nobody closes the semaphore.
                return std::future::pending().await;
            };
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    return Entered {
                        stream,
                        peer,
                        place,
                    };
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    self.log(&error);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn log(&mut self, error: &io::Error) {
        let is_due = self
            .logged_at
            .is_none_or(|logged_at| logged_at.elapsed() >= LOG_INTERVAL);
        if is_due {
            self.logged_at = Some(Instant::now());
            tracing::error!(%error, "connections can't be accepted for now: raise the limit of open files (ulimit -n) if this stays");
        }
    }
}

/// Whether the client gave up while it waited: the next one may be all right.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}
