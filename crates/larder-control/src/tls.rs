//! TLS by two files, read anew when they change: a certificate is renewed without a restart. What is no good is said, and the
//! one before it goes on being shown.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use larder_http::rustls;
use larder_model::Secret;
use ring::digest::{Context, SHA256};
use rustix::fs::{FileType, Mode, OFlags};
use rustls::crypto::ring::{default_provider, sign::any_supported_type};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{InconsistentKeys, ServerConfig};

/// No file is larger, in bytes.
const MAX_BYTES: u64 = 256 << 10;
/// How often the files are looked at.
const EVERY: Duration = Duration::from_secs(2);

/// The files of a certificate, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, its chain behind it.
    pub certificate: PathBuf,
    /// Its private key; not for everybody to read.
    pub key: PathBuf,
}

/// Why a certificate can't be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file can't be read.
    #[error("can't read {path}: {source}; name a PEM file that this user can read")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is a folder, a pipe, or larger than any certificate.
    #[error("{0} is no regular file of at most 256 KiB: name a PEM file")]
    NotAFile(PathBuf),
    /// Everybody may read the key.
    #[error("everybody may read the private key {0}: run chmod o= on it")]
    Open(PathBuf),
    /// There is no certificate in it.
    #[error("{0} holds no certificate in PEM (-----BEGIN CERTIFICATE-----)")]
    NoCertificate(PathBuf),
    /// There is no key in it.
    #[error("{0} holds no private key in PEM (-----BEGIN PRIVATE KEY-----)")]
    NoKey(PathBuf),
    /// They do not belong together.
    #[error("the private key {key} is not that of the certificate {certificate}")]
    OtherKey {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// The library does not take them.
    #[error("the certificate {path} can't be used: {why}")]
    Unusable {
        /// The certificate's file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// TLS, with the certificate that was last found good.
pub(crate) struct Tls {
    files: TlsFiles,
    shown: Arc<Shown>,
    config: Arc<ServerConfig>,
    /// What the files held when they were last tried.
    tried: Mutex<Option<[u8; 32]>>,
}

/// The certificate that is shown.
#[derive(Debug)]
struct Shown(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl Tls {
    pub(crate) fn open(files: TlsFiles) -> Result<Self, TlsError> {
        let (content, certified) = read(&files)?;
        let shown = Arc::new(Shown(ArcSwap::from_pointee(certified)));
        let unusable = |error: rustls::Error| TlsError::Unusable {
            path: files.certificate.clone(),
            why: error.to_string(),
        };
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(unusable)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&shown) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self {
            shown,
            config: Arc::new(config),
            tried: Mutex::new(Some(content)),
            files,
        })
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Looks at the files again and again.
    pub(crate) async fn follow(self: &Arc<Self>) {
        loop {
            tokio::time::sleep(EVERY).await;
            let tls = Arc::clone(self);
            // Files may lie anywhere, also where reading takes long.
            if let Err(error) = tokio::task::spawn_blocking(move || tls.look()).await {
                tracing::error!(%error, "looking at the certificate came to no end");
            }
        }
    }

    fn look(&self) {
        let content = content(&self.files).ok().map(|texts| hash(&texts));
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        if *tried == content {
            return;
        }
        *tried = content;
        let certificate = self.files.certificate.display();
        match read(&self.files) {
            Ok((_, certified)) => {
                self.shown.0.store(Arc::new(certified));
                tracing::info!(%certificate, "a new certificate is shown");
            }
            Err(error) => {
                tracing::warn!(%error, "the new certificate is no good: the one before it is shown");
            }
        }
    }
}

/// What both files hold, the certificate's and the key's; wiped when they are dropped.
type Texts = [Secret; 2];

fn hash(texts: &Texts) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for text in texts {
        context.update(&(text.expose().len() as u64).to_le_bytes());
        context.update(text.expose().as_bytes());
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

fn content(files: &TlsFiles) -> Result<Texts, TlsError> {
    Ok([text(&files.certificate, false)?, text(&files.key, true)?])
}

fn read(files: &TlsFiles) -> Result<([u8; 32], CertifiedKey), TlsError> {
    let texts = content(files)?;
    let [certificate, key] = &texts;
    let path = &files.certificate;
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(certificate.expose().as_bytes()).collect();
    let chain = chain
        .ok()
        .filter(|chain| !chain.is_empty())
        .ok_or_else(|| TlsError::NoCertificate(path.clone()))?;
    let no_key = |_| TlsError::NoKey(files.key.clone());
    let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes()).map_err(no_key)?;
    let unusable = |error: rustls::Error| TlsError::Unusable {
        path: path.clone(),
        why: error.to_string(),
    };
    let certified = CertifiedKey::new(chain, any_supported_type(&key).map_err(unusable)?);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(rustls::Error::InconsistentKeys(_)) => {
            return Err(TlsError::OtherKey {
                certificate: path.clone(),
                key: files.key.clone(),
            });
        }
        Err(error) => return Err(unusable(error)),
    }
    Ok((hash(&texts), certified))
}

/// It may be a link, and belong to anyone: so containers mount secrets.
fn text(path: &Path, is_secret: bool) -> Result<Secret, TlsError> {
    let failed = |source: io::Error| TlsError::File {
        path: path.to_owned(),
        source,
    };
    // Not blocking: a fifo would wait for a writer.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::open(path, flags, Mode::empty());
    let file = file.map_err(|errno| failed(errno.into()))?;
    let status = rustix::fs::fstat(&file).map_err(|errno| failed(errno.into()))?;
    let is_regular = FileType::from_raw_mode(status.st_mode) == FileType::RegularFile;
    if !is_regular || u64::try_from(status.st_size).unwrap_or(u64::MAX) > MAX_BYTES {
        return Err(TlsError::NotAFile(path.to_owned()));
    }
    if is_secret && status.st_mode & 0o007 != 0 {
        return Err(TlsError::Open(path.to_owned()));
    }
    let mut text = String::with_capacity(MAX_BYTES as usize + 1);
    let read = File::from(file).take(MAX_BYTES).read_to_string(&mut text);
    let text = Secret::new(text);
    read.map_err(failed)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use larder_testing::certificates::{Authority, Signed};

    use super::*;

    fn files(of: &Signed) -> TlsFiles {
        fs::set_permissions(&of.key, Permissions::from_mode(0o600)).unwrap();
        TlsFiles {
            certificate: of.certificate.clone(),
            key: of.key.clone(),
        }
    }

    #[test]
    fn what_is_no_good_is_named_and_the_one_before_stays() {
        let authority = Authority::new();
        let (one, other) = (
            files(&authority.sign("one", "DNS:one")),
            files(&authority.sign("other", "DNS:other")),
        );
        let tls = Tls::open(one.clone()).unwrap();
        let shown = || tls.shown.0.load().cert[0].clone();
        let first = shown();
        tls.look();
        assert_eq!(shown(), first);
        // Its certificate came, its key not yet.
        fs::copy(&other.certificate, &one.certificate).unwrap();
        tls.look();
        assert_eq!(shown(), first);
        fs::copy(&other.key, &one.key).unwrap();
        tls.look();
        assert_ne!(shown(), first);
        let second = shown();
        for text in [
            "",
            "-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n",
        ] {
            fs::write(&one.certificate, text).unwrap();
            tls.look();
            assert_eq!(shown(), second, "{text}");
        }
        fs::remove_file(&one.certificate).unwrap();
        tls.look();
        assert_eq!(shown(), second);
    }

    #[test]
    fn each_fault_says_what_to_do() {
        let authority = Authority::new();
        let good = files(&authority.sign("good", "DNS:good"));
        let other = files(&authority.sign("other", "DNS:other"));
        let folder = tempfile::tempdir().unwrap();
        let said = |files: &TlsFiles| Tls::open(files.clone()).err().unwrap().to_string();
        let with = |certificate: &Path, key: &Path| TlsFiles {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        };
        assert!(said(&with(&good.certificate, &other.key)).contains("is not that of"));
        assert!(said(&with(&good.key, &good.key)).contains("holds no certificate"));
        assert!(said(&with(folder.path(), &good.key)).contains("no regular file"));
        let nowhere = folder.path().join("nowhere");
        assert!(said(&with(&nowhere, &good.key)).contains("name a PEM file"));
        let empty = folder.path().join("empty");
        fs::write(&empty, "").unwrap();
        fs::set_permissions(&empty, Permissions::from_mode(0o600)).unwrap();
        assert!(said(&with(&good.certificate, &empty)).contains("holds no private key"));
        fs::set_permissions(&good.key, Permissions::from_mode(0o644)).unwrap();
        assert!(said(&good).contains("chmod o="));
    }
}
