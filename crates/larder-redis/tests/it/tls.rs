//! TLS: chain and name are always checked, and nothing falls back to plain.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use larder_core::{Store as _, Ttl};
use larder_redis::Options;
use larder_testing::redis::{RedisServer, free_port};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::{connect_with, entry, key};

fn openssl(folder: &Path, arguments: &str) {
    let status = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(folder)
        .output()
        .expect("openssl is installed (scripts/test does)");
    assert!(
        status.status.success(),
        "{}",
        String::from_utf8_lossy(&status.stderr)
    );
}

/// A server with a certificate for 127.0.0.1, and the authority that signed it.
fn start() -> (RedisServer, String, CertificateDer<'static>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    openssl(
        path,
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=test",
    );
    openssl(
        path,
        "req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=server",
    );
    std::fs::write(path.join("names"), "subjectAltName=IP:127.0.0.1").unwrap();
    openssl(
        path,
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out server.crt -days 2 -extfile names",
    );
    let authority = CertificateDer::from_pem_file(path.join("ca.crt")).unwrap();
    let port = free_port().to_string();
    let arguments = [
        "--tls-port",
        &port,
        "--tls-cert-file",
        "server.crt",
        "--tls-key-file",
        "server.key",
        "--tls-ca-cert-file",
        "ca.crt",
        "--tls-auth-clients",
        "no",
    ];
    let server = RedisServer::start_in(folder, &arguments);
    (server, format!("rediss://127.0.0.1:{port}"), authority)
}

fn patient(extra_roots: Vec<CertificateDer<'static>>) -> Options {
    Options {
        deadline: Duration::from_secs(5),
        extra_roots,
        ..Options::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_trusted_and_of_that_name_is_taken_and_no_other() {
    let (server, url, authority) = start();
    let trusting = connect_with(&url, patient(vec![authority.clone()]));
    assert!(
        trusting
            .set(entry(&key("/a"), "1"))
            .await
            .unwrap()
            .is_stored()
    );
    assert_eq!(
        trusting
            .get(&key("/a"), Ttl::MAX)
            .await
            .unwrap()
            .unwrap()
            .bytes,
        "1"
    );

    let stranger = connect_with(&url, patient(vec![]));
    let error = stranger
        .get(&key("/a"), Ttl::MAX)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("certificate"), "{error}");

    let by_name = url.replace("127.0.0.1", "localhost");
    let other_name = connect_with(&by_name, patient(vec![authority.clone()]));
    let error = other_name
        .get(&key("/a"), Ttl::MAX)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("certificate"), "{error}");

    let plain_port = server.url().replace("redis://", "rediss://");
    let plain = connect_with(&plain_port, patient(vec![authority]));
    assert!(
        plain.get(&key("/a"), Ttl::MAX).await.is_err(),
        "no falling back to plain"
    );
}
