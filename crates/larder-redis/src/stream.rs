//! The way to a server: TCP, TLS or a socket file.

use std::io;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::tls::Tls;
use crate::url::Address;

/// After so long without a word, the kernel asks whether the other side is still there; and again.
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_AGAIN: Duration = Duration::from_secs(3);
const KEEPALIVES: u32 = 3;

/// Anything that bytes go through.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

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
