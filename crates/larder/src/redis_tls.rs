//! What `REDIS_TLS_CA`, `REDIS_TLS_CERT` and `REDIS_TLS_KEY` name.

use larder_redis::{Tls, TlsError, read_certificates, read_key};

use crate::settings::{Settings, SettingsError};

/// Reads the files that are named.
pub(crate) fn read(settings: &Settings) -> Result<Tls, SettingsError> {
    let of = |name| move |error: TlsError| settings.error(name, error.to_string());
    let mut tls = Tls::default();
    if let Some(path) = &settings.redis_tls_ca {
        let authorities = read_certificates(path).map_err(of("REDIS_TLS_CA"))?;
        tls = tls.trust(authorities).map_err(of("REDIS_TLS_CA"))?;
    }
    match (&settings.redis_tls_cert, &settings.redis_tls_key) {
        (Some(certificate), Some(key)) => {
            let chain = read_certificates(certificate).map_err(of("REDIS_TLS_CERT"))?;
            let key = read_key(key).map_err(of("REDIS_TLS_KEY"))?;
            tls.present(chain, key).map_err(of("REDIS_TLS_KEY"))
        }
        (None, None) => Ok(tls),
        (Some(_), None) => Err(settings.error(
            "REDIS_TLS_CERT",
            "is set without REDIS_TLS_KEY: set that to the file with this certificate's key"
                .to_owned(),
        )),
        (None, Some(_)) => Err(settings.error(
            "REDIS_TLS_KEY",
            "is set without REDIS_TLS_CERT: set that to the file with this key's certificate"
                .to_owned(),
        )),
    }
}

/// Whether any file is named.
pub(crate) fn is_named(settings: &Settings) -> bool {
    settings.redis_tls_ca.is_some()
        || settings.redis_tls_cert.is_some()
        || settings.redis_tls_key.is_some()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use larder_testing::certificates::Authority;

    use super::*;

    type Values<'a> = [(&'a str, &'a Path)];

    fn error(values: &Values<'_>) -> String {
        let find = |name: &str| {
            let found = values.iter().find(|(known, _)| *known == name);
            found.map(|(_, path)| path.display().to_string())
        };
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings::read(find, folder.path()).unwrap();
        read(&settings)
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    }

    #[test]
    fn files_that_fit_are_taken_and_others_are_named_with_what_to_do() {
        let authority = Authority::new();
        let ours = authority.sign("client", "DNS:client");
        let other = authority.sign("other", "DNS:other");
        let ca = authority.certificate();
        let nowhere = Path::new("/nowhere/ca.crt");
        let all: [(&str, &Path); 3] = [
            ("REDIS_TLS_CA", &ca),
            ("REDIS_TLS_CERT", &ours.certificate),
            ("REDIS_TLS_KEY", &ours.key),
        ];
        assert_eq!(error(&all), "");
        let wrong: [(&Values<'_>, &[&str]); 7] = [
            (
                &[("REDIS_TLS_CA", nowhere)],
                &[
                    "REDIS_TLS_CA (from the environment)",
                    "/nowhere/ca.crt",
                    "name a file",
                ],
            ),
            (
                &[("REDIS_TLS_CA", &ours.key)],
                &["REDIS_TLS_CA", "holds no certificate", "PEM"],
            ),
            (&all[1..2], &["REDIS_TLS_CERT", "set without REDIS_TLS_KEY"]),
            (&all[2..], &["REDIS_TLS_KEY", "set without REDIS_TLS_CERT"]),
            (
                &[all[1], ("REDIS_TLS_KEY", &other.key)],
                &["REDIS_TLS_KEY", "not that of the certificate"],
            ),
            (
                &[all[1], ("REDIS_TLS_KEY", &ca)],
                &["REDIS_TLS_KEY", "holds no private key"],
            ),
            (
                &[("REDIS_TLS_CERT", &other.key), all[2]],
                &["REDIS_TLS_CERT", "holds no certificate"],
            ),
        ];
        for (values, said) in wrong {
            let error = error(values);
            assert!(
                said.iter().all(|said| error.contains(said)),
                "{said:?}: {error}"
            );
        }
    }
}
