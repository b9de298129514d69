//! Where the control plane may listen.

use std::net::SocketAddr;

/// Why the control plane won't listen at an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "without API keys anybody who reaches {0} could change policies: make one first (larder key create --role admin --all-services --name …), or listen on 127.0.0.1 or [::1]"
)]
pub struct BindError(pub SocketAddr);

/// Whether an address is one that only this machine reaches.
pub(crate) fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Whether the control plane may listen at an address: on loopback only, as long as it does not ask for API keys.
///
/// # Errors
/// A [`BindError`] for any other address.
pub(crate) fn check_bind(address: SocketAddr, asks_for_keys: bool) -> Result<(), BindError> {
    if asks_for_keys || is_loopback(address) {
        Ok(())
    } else {
        Err(BindError(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_keys_on_loopback_only() {
        for address in ["127.0.0.1:8000", "127.9.9.9:1", "[::1]:8000"] {
            let address = address.parse().unwrap();
            assert_eq!(check_bind(address, false), Ok(()), "{address}");
        }
        for address in ["0.0.0.0:8000", "[::]:8000", "192.168.1.1:80", "10.0.0.1:1"] {
            let address = address.parse().unwrap();
            assert!(check_bind(address, false).is_err(), "{address}");
            assert_eq!(check_bind(address, true), Ok(()), "{address}");
        }
    }
}
