//! The way to a server: TCP, TLS or a socket file.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream, tcp, unix};
use tokio_rustls::client::TlsStream;

use crate::tls::Tls;
use crate::url::Address;

/// After so long without a word, the kernel asks whether the other side is still there; and again.
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_AGAIN: Duration = Duration::from_secs(3);
const KEEPALIVES: u32 = 3;

/// Anything that bytes go through.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {
    /// Its two directions.
    fn split(self: Box<Self>) -> (Input, Output);
}

/// Where replies come from.
pub(crate) type Input = Box<dyn AsyncRead + Send + Unpin>;

/// Where commands go to.
pub(crate) enum Output {
    /// Anybody may write, without waiting.
    Direct(Arc<Direct>),
    /// One task writes.
    Polled(Box<dyn AsyncWrite + Send + Unpin>),
}

impl Output {
    /// Writes some of the bytes, as soon as there is room. Nothing is written if it is dropped before it is ready.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Direct(direct) => direct.write(bytes).await,
            Self::Polled(output) => output.write(bytes).await,
        }
    }

    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Direct(_) => Ok(()),
            Self::Polled(output) => output.flush().await,
        }
    }
}

/// A socket's way out, in the clear.
pub(crate) enum Direct {
    Tcp(tcp::OwnedWriteHalf),
    Unix(unix::OwnedWriteHalf),
}

impl Direct {
    /// Writes what there is room for now; `WouldBlock` if there is none, or if that is not known.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(half) => half.try_write(bytes),
            Self::Unix(half) => half.try_write(bytes),
        }
    }

    async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self {
                Self::Tcp(half) => half.writable().await?,
                Self::Unix(half) => half.writable().await?,
            }
            match self.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return written,
            }
        }
    }
}

impl Stream for TcpStream {
    fn split(self: Box<Self>) -> (Input, Output) {
        let (input, output) = self.into_split();
        let output = Output::Direct(Arc::new(Direct::Tcp(output)));
        (Box::new(input), output)
    }
}

impl Stream for UnixStream {
    fn split(self: Box<Self>) -> (Input, Output) {
        let (input, output) = self.into_split();
        let output = Output::Direct(Arc::new(Direct::Unix(output)));
        (Box::new(input), output)
    }
}

impl Stream for TlsStream<TcpStream> {
    fn split(self: Box<Self>) -> (Input, Output) {
        let (input, output) = tokio::io::split(self);
        (Box::new(input), Output::Polled(Box::new(output)))
    }
}

/// Connects.
pub(crate) async fn connect(address: &Address, tls: &Tls) -> io::Result<Box<dyn Stream>> {
    match address {
        Address::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        Address::Tcp {
            host,
            port,
            tls: is_secured,
        } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            keep_alive(&stream)?;
            if *is_secured {
                secure(host, stream, tls).await
            } else {
                Ok(Box::new(stream))
            }
        }
    }
}

fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE_AGAIN)
        .with_retries(KEEPALIVES);
    socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// There is no way back to plain from here.
async fn secure(host: &str, stream: TcpStream, tls: &Tls) -> io::Result<Box<dyn Stream>> {
    let connector = tls.connector().map_err(io::Error::other)?;
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    Ok(Box::new(connector.connect(name, stream).await?))
}
