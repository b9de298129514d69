//! TLS: chain and name are always checked, and nothing falls back to plain.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use larder_core::{Store as _, Ttl};
use larder_redis::Options;
use larder_testing::redis::{RedisCluster, RedisServer, free_port};
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

/// Makes a certificate for 127.0.0.1; returns the authority that signed it.
fn certify(path: &Path) -> CertificateDer<'static> {
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
    CertificateDer::from_pem_file(path.join("ca.crt")).unwrap()
}

/// A server with a certificate for 127.0.0.1, and the authority that signed it.
fn start() -> (RedisServer, String, CertificateDer<'static>) {
    let folder = tempfile::tempdir().unwrap();
    let authority = certify(folder.path());
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_of_a_cluster_is_checked_and_so_is_one_that_a_node_tells() {
    let folder = tempfile::tempdir().unwrap();
    let authority = certify(folder.path());
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (certificate, key_file, roots) = (file("server.crt"), file("server.key"), file("ca.crt"));
    let arguments = [
        ["--tls-cluster", "yes"],
        ["--tls-replication", "yes"],
        ["--tls-auth-clients", "no"],
        ["--tls-cert-file", &certificate],
        ["--tls-key-file", &key_file],
        ["--tls-ca-cert-file", &roots],
    ];
    let cluster = RedisCluster::start_with(2, &arguments.concat());
    let store = connect_with(&cluster.tls_url(), patient(vec![authority.clone()]));
    let keys: Vec<_> = (0..20).map(|index| key(&format!("/{index}"))).collect();
    let written = store.set_many(keys.iter().map(|key| entry(key, "1")).collect());
    assert!(
        written
            .await
            .unwrap()
            .iter()
            .all(|written| written.is_stored())
    );
    // One that is sent elsewhere goes there by TLS.
    let slots = cluster.slots_of_keys(keys.iter().map(|key| key.as_str()));
    let of_first = slots
        .iter()
        .position(|slot| cluster.slots_of(0).contains(slot));
    let index = of_first.unwrap();
    store.delete(&keys[index..=index]).await.unwrap();
    cluster.mover(0, 1).move_slot(slots[index]);
    assert!(
        store
            .set(entry(&keys[index], "2"))
            .await
            .unwrap()
            .is_stored()
    );
    let found = store.get_many(&keys, Ttl::MAX).await.unwrap();
    assert!(found.iter().all(Option::is_some));

    let stranger = connect_with(&cluster.tls_url(), patient(vec![]));
    let error = stranger
        .get(&keys[0], Ttl::MAX)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("certificate"), "{error}");
    for scheme in ["rediss+cluster", "rediss+sentinel"] {
        let plain = cluster.nodes[0].url().replace("redis", scheme);
        let plain = connect_with(&format!("{plain}/0"), patient(vec![authority.clone()]));
        assert!(
            plain.get(&keys[0], Ttl::MAX).await.is_err(),
            "no falling back to plain"
        );
    }
}
