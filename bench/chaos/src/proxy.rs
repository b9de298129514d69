//! A link to a server that can be cut without a word: what was sent is not delivered, and nothing is closed. And a name for a
//! server, that can become another one's: who is connected goes on talking to the first.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

/// So often a link that is cut looks whether it still is.
const LOOK: Duration = Duration::from_millis(5);

/// Listens until the program ends.
pub(crate) struct Proxy {
    port: u16,
    server: Arc<AtomicU16>,
    is_cut: Arc<AtomicBool>,
}

impl Proxy {
    pub(crate) fn to(server: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        let is_cut = Arc::new(AtomicBool::new(false));
        let server = Arc::new(AtomicU16::new(server));
        let (to, cut) = (Arc::clone(&server), Arc::clone(&is_cut));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (to, cut) = (Arc::clone(&to), Arc::clone(&cut));
                std::thread::spawn(move || link(&client, &to, &cut));
            }
        });
        Ok(Self {
            port,
            server,
            is_cut,
        })
    }

    /// Who connects from now on reaches another server.
    pub(crate) fn lead_to(&self, server: u16) {
        self.server.store(server, Ordering::SeqCst);
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
    }

    /// What was held back is delivered.
    pub(crate) fn mend(&self) {
        self.is_cut.store(false, Ordering::SeqCst);
    }
}

fn link(client: &TcpStream, server: &AtomicU16, cut: &Arc<AtomicBool>) {
    while cut.load(Ordering::SeqCst) {
        std::thread::sleep(LOOK);
    }
    let Ok(server) = TcpStream::connect(("127.0.0.1", server.load(Ordering::SeqCst))) else {
        let _ = client.shutdown(Shutdown::Both);
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    std::thread::scope(|scope| {
        scope.spawn(|| forward(client, &server, cut));
        forward(&server, client, cut);
    });
}

fn forward(mut from: &TcpStream, mut to: &TcpStream, cut: &AtomicBool) {
    let mut buffer = [0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        while cut.load(Ordering::SeqCst) {
            std::thread::sleep(LOOK);
        }
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
