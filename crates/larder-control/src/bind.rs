//! Where the control plane may listen.

use std::net::SocketAddr;

/// Why the control plane won't listen at an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "without API keys anybody who reaches {0} could change policies: listen on 127.0.0.1 or [::1], and let other machines in by an SSH tunnel or a proxy that checks who they are"
)]
pub struct BindError(pub SocketAddr);

/// Whether the control plane may listen at an address: on loopback only, as long as there are no API keys.
///
/// # Errors
/// A [`BindError`] for any other address.
pub fn check_bind(address: SocketAddr) -> Result<(), BindError> {
    if address.ip().to_canonical().is_loopback() {
        Ok(())
    } else {
        Err(BindError(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_only() {
        for address in ["127.0.0.1:8000", "127.9.9.9:1", "[::1]:8000"] {
            assert_eq!(check_bind(address.parse().unwrap()), Ok(()), "{address}");
        }
        for address in ["0.0.0.0:8000", "[::]:8000", "192.168.1.1:80", "10.0.0.1:1"] {
            assert!(check_bind(address.parse().unwrap()).is_err(), "{address}");
        }
    }
}
