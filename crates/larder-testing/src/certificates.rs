//! Certificates for a test, made by `openssl`: an authority, and what it signs.

// A test that has no certificates is to fail.
#![allow(clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

const RULES: &str = "[ca]
default_ca = test
[test]
database = index
serial = serial
new_certs_dir = .
certificate = ca.crt
private_key = ca.key
default_md = sha256
policy = any
copy_extensions = copy
unique_subject = no
[any]
commonName = supplied
";

/// An authority, whose files live as long as it does.
pub struct Authority {
    folder: TempDir,
}

/// A certificate that was signed, and its key, as PEM files.
#[derive(Debug, Clone)]
pub struct Signed {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Authority {
    /// A new one.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it makes files")]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder for certificates");
        for (name, text) in [("rules", RULES), ("index", ""), ("serial", "01\n")] {
            std::fs::write(folder.path().join(name), text).expect("its folder can be written");
        }
        let authority = Self { folder };
        authority.openssl(
            &[
                "req",
                "-x509",
                "-days",
                "2",
                "-subj",
                "/CN=authority",
                "-keyout",
                "ca.key",
                "-out",
                "ca.crt",
            ],
            true,
        );
        authority
    }

    /// Its own certificate.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.path().join("ca.crt")
    }

    /// Signs a certificate for names such as `IP:127.0.0.1,DNS:localhost`, valid for some days; its files are called `name`.
    #[must_use]
    pub fn sign(&self, name: &str, names: &str) -> Signed {
        self.sign_for(name, names, &["-days", "2"])
    }

    /// [`Authority::sign`] of one that has expired years ago.
    #[must_use]
    pub fn sign_expired(&self, name: &str, names: &str) -> Signed {
        let life = [
            "-startdate",
            "20200101000000Z",
            "-enddate",
            "20200102000000Z",
        ];
        self.sign_for(name, names, &life)
    }

    fn sign_for(&self, name: &str, names: &str, life: &[&str]) -> Signed {
        let [key, request, certificate] = ["key", "csr", "crt"].map(|end| format!("{name}.{end}"));
        let (subject, names) = (format!("/CN={name}"), format!("subjectAltName={names}"));
        self.openssl(
            &[
                "req", "-subj", &subject, "-addext", &names, "-keyout", &key, "-out", &request,
            ],
            true,
        );
        let mut sign = vec![
            "ca",
            "-batch",
            "-notext",
            "-config",
            "rules",
            "-in",
            &request,
            "-out",
            &certificate,
        ];
        sign.extend(life);
        self.openssl(&sign, false);
        Signed {
            certificate: self.path().join(certificate),
            key: self.path().join(key),
        }
    }

    /// A certificate that signs itself, as no authority.
    #[must_use]
    pub fn self_signed(&self, name: &str, names: &str) -> Signed {
        let [key, certificate] = ["key", "crt"].map(|end| format!("{name}.{end}"));
        let (subject, names) = (format!("/CN={name}"), format!("subjectAltName={names}"));
        self.openssl(
            &[
                "req",
                "-x509",
                "-days",
                "2",
                "-subj",
                &subject,
                "-addext",
                &names,
                "-addext",
                "basicConstraints=critical,CA:FALSE",
                "-keyout",
                &key,
                "-out",
                &certificate,
            ],
            true,
        );
        Signed {
            certificate: self.path().join(certificate),
            key: self.path().join(key),
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn openssl(&self, arguments: &[&str], makes_key: bool) {
        let mut command = Command::new("openssl");
        command.args(arguments).current_dir(self.path());
        if makes_key {
            command.args([
                "-nodes",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
            ]);
        }
        let output = command
            .output()
            .expect("openssl is installed (scripts/test does)");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {arguments:?}: {said}");
    }
}
