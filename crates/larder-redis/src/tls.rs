//! TLS: whom we trust, who we are, and what to do when it fails.
//!
//! TLS 1.2 or newer; the chain and the name are always checked.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, Error, InconsistentKeys, InvalidMessage,
    RootCertStore,
};
use tokio_rustls::TlsConnector;
use zeroize::{Zeroize as _, Zeroizing};

/// More than any chain has.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Why certificates or a key can't be used. Each says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file can't be read.
    #[error("{path} can't be read ({error}): name a file that this user may read", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A file is too large to hold certificates or a key.
    #[error("{path} is larger than 1 MiB: name a PEM file", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// There is no certificate in a file.
    #[error("{path} holds no certificate: name a PEM file, with -----BEGIN CERTIFICATE----- in it", path = path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// There is no key in a file.
    #[error("{path} holds no private key: name a PEM file with a key that no passphrase protects", path = path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// A certificate can't be an authority's.
    #[error(
        "a certificate in it can't be used ({0}): name the authority's own certificate, as PEM"
    )]
    NoAuthority(String),
    /// The key does not belong to the certificate.
    #[error(
        "the key is not that of the certificate: name the two that were made together, the server's own certificate first in its file"
    )]
    OtherKey,
    /// A key of a kind that is not known, or a certificate that can't be read.
    #[error("the certificate and its key can't be used ({0}): use an ECDSA, Ed25519 or RSA key")]
    Unusable(String),
}

/// Reads all certificates of a PEM file: authorities, or a client's chain with its own first.
///
/// # Errors
/// [`TlsError`] if it can't be read, or there is none in it.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(TlsError::NoCertificate {
            path: path.to_owned(),
        }),
    }
}

/// Reads the private key of a PEM file.
///
/// # Errors
/// [`TlsError`] if it can't be read, or there is none in it.
pub fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| TlsError::NoKey {
        path: path.to_owned(),
    })
}

/// A file that may hold a key: wiped when it is dropped.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let failed = |error| TlsError::Read {
        path: path.to_owned(),
        error,
    };
    // With room for all of it from the start, so that no part is left behind by growing.
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_FILE_BYTES as usize + 1));
    let file = File::open(path).map_err(failed)?;
    let read = file.take(MAX_FILE_BYTES + 1).read_to_end(&mut text);
    if read.map_err(failed)? as u64 > MAX_FILE_BYTES {
        return Err(TlsError::TooLarge {
            path: path.to_owned(),
        });
    }
    Ok(text)
}

/// How TLS is spoken. Its clones share one configuration, made when it is first needed.
#[derive(Clone, Default)]
pub struct Tls {
    /// None: the machine's.
    authorities: Option<Arc<RootCertStore>>,
    client: Option<Arc<SingleCertAndKey>>,
    connector: Arc<OnceLock<Result<TlsConnector, String>>>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field(
                "authorities",
                &self.authorities.as_ref().map(|all| all.len()),
            )
            .field("presents_one", &self.presents_one())
            .finish()
    }
}

impl Tls {
    /// Trusts these authorities, in place of the machine's.
    ///
    /// # Errors
    /// [`TlsError::NoAuthority`] if one of them can't be used.
    pub fn trust(self, authorities: Vec<CertificateDer<'static>>) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots
                .add(authority)
                .map_err(|error| TlsError::NoAuthority(error.to_string()))?;
        }
        Ok(Self {
            authorities: Some(Arc::new(roots)),
            client: self.client,
            connector: Arc::default(),
        })
    }

    /// Shows this certificate to servers that ask for one: the chain, the client's own first, and its key.
    ///
    /// # Errors
    /// [`TlsError::OtherKey`] if the key is not that of the certificate.
    pub fn present(
        self,
        chain: Vec<CertificateDer<'static>>,
        mut key: PrivateKeyDer<'static>,
    ) -> Result<Self, TlsError> {
        let signing = any_supported_type(&key);
        key.zeroize();
        let signing = signing.map_err(|error| TlsError::Unusable(error.to_string()))?;
        let certified = CertifiedKey::new(chain, signing);
        match certified.keys_match() {
            // Some kinds of keys do not tell: the server then will.
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(Error::InconsistentKeys(_)) => return Err(TlsError::OtherKey),
            Err(error) => return Err(TlsError::Unusable(error.to_string())),
        }
        Ok(Self {
            authorities: self.authorities,
            client: Some(Arc::new(SingleCertAndKey::from(certified))),
            connector: Arc::default(),
        })
    }

    /// Whether a certificate is shown to servers that ask for one.
    pub(crate) fn presents_one(&self) -> bool {
        self.client.is_some()
    }

    /// What makes connections secure; an error says what to do.
    pub(crate) fn connector(&self) -> Result<TlsConnector, String> {
        self.connector.get_or_init(|| self.make()).clone()
    }

    fn make(&self) -> Result<TlsConnector, String> {
        let roots = match &self.authorities {
            Some(authorities) => Arc::clone(authorities),
            None => Arc::new(machines_authorities()?),
        };
        let config = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots);
        let config = match &self.client {
            Some(client) => config.with_client_cert_resolver(Arc::clone(client) as _),
            None => config.with_no_client_auth(),
        };
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

fn machines_authorities() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err("this machine knows no certificate authority: install the package ca-certificates, or set REDIS_TLS_CA".to_owned());
    }
    Ok(roots)
}

/// What failed, and what to do where TLS tells it. That comes first: the rest may be cut.
pub(crate) fn explained(error: &io::Error) -> String {
    let inner = error.get_ref();
    let Some(tls) = inner.and_then(|inner| inner.downcast_ref::<Error>()) else {
        return error.to_string();
    };
    match next_step(tls) {
        Some(next) => format!("{next} ({tls})"),
        None => tls.to_string(),
    }
}

fn next_step(error: &Error) -> Option<&'static str> {
    let next = match error {
        Error::InvalidCertificate(error) => match error {
            // A bad signature: an authority of the same name, but another.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "its certificate is of no authority that we trust: name that authority's certificate in REDIS_TLS_CA"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "its certificate is for another name: connect by a name that it has, or give the server one for this name"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired: renew it on the server, and check this machine's clock"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet: check this machine's clock, and the server's"
            }
            _ => {
                "its certificate can't be taken: give the server one of its own, signed by an authority, as version 3"
            }
        },
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => {
            "it does not speak TLS: name its TLS port, or write redis:// if nobody can listen in between"
        }
        Error::PeerIncompatible(_) | Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            "it speaks no TLS that we take: allow TLS 1.2 or 1.3 on the server (tls-protocols)"
        }
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "it demands a client certificate: set REDIS_TLS_CERT and REDIS_TLS_KEY"
        }
        Error::AlertReceived(AlertDescription::HandshakeFailure) => {
            "it refuses the handshake: if it demands a client certificate, set REDIS_TLS_CERT and REDIS_TLS_KEY"
        }
        Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::DecryptError
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown,
        ) => {
            "it does not take our certificate: name one in REDIS_TLS_CERT that is valid and of an authority that the server trusts (tls-ca-cert-file)"
        }
        _ => return None,
    };
    Some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_one_configuration_and_it_is_made_once() {
        let tls = Tls::default().trust(Vec::new()).unwrap();
        let first = tls.connector().unwrap();
        let second = tls.clone().connector().unwrap();
        assert!(Arc::ptr_eq(first.config(), second.config()));
    }

    #[test]
    fn an_error_of_tls_says_what_to_do_first() {
        let error = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let said = explained(&io::Error::other(error));
        assert!(
            said.starts_with("its certificate is of no authority"),
            "{said}"
        );
        assert_eq!(explained(&io::Error::other("plain")), "plain");
    }
}
