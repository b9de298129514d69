//! Over TLS: a control plane with a certificate of an authority that is named, renewed while it runs.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use larder_client::{Client, ClientSettings, StartError};
use larder_control::TlsFiles;
use larder_core::{Policy, Service};
use larder_testing::certificates::{Authority, Signed};
use serde_json::json;

use crate::{Control, SOON, ttl, until};

fn client(url: &str, authorities: Option<&Path>) -> Result<std::sync::Arc<Client>, StartError> {
    Client::start(ClientSettings {
        url: url.to_owned(),
        key: None,
        authorities: authorities.map(Path::to_owned),
        service: Service::new("svc").unwrap(),
        state_dir: None,
        store_id: 0,
        defaults: Policy::default(),
    })
}

/// A control plane that shows this certificate.
async fn control(folder: &Path, signed: &Signed) -> Control {
    set_permissions(&signed.key, Permissions::from_mode(0o600)).unwrap();
    Control::start_with(&folder.join("control.db"), 0, |settings| {
        settings.tls = Some(TlsFiles {
            certificate: signed.certificate.clone(),
            key: signed.key.clone(),
        });
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_follows_over_tls_and_a_renewed_certificate_is_shown() {
    let authority = Authority::new();
    let first = authority.sign("first", "IP:127.0.0.1,DNS:localhost");
    let second = authority.sign("second", "IP:127.0.0.1,DNS:localhost");
    set_permissions(&second.key, Permissions::from_mode(0o600)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut control = control(folder.path(), &first).await;
    let ca = authority.certificate();
    let trusted = larder_client::control_authorities(&ca).unwrap();
    let http = || {
        let http = reqwest::Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0);
        http.tls_certs_only(trusted.clone())
            .tls_info(true)
            .build()
            .unwrap()
    };
    control.over_tls(http());

    control.put("/a", json!({"ttl_seconds": 60})).await;
    let url = control.url("");
    let one = client(&url, Some(&ca)).unwrap();
    until(SOON, "it follows", async || ttl(&one, "/a") == 60).await;
    control.put("/a", json!({"ttl_seconds": 30})).await;
    until(SOON, "it is told", async || ttl(&one, "/a") == 30).await;
    // Who does not know the authority trusts nothing that it says.
    let without = client(&url, None).unwrap();
    until(SOON, "it says so", async || {
        without.status().trouble.is_some()
    })
    .await;
    assert_eq!(ttl(&without, "/a"), 300);
    let nowhere = client(&url, Some(&folder.path().join("nowhere")))
        .err()
        .unwrap();
    assert!(matches!(nowhere, StartError::Authorities(_)), "{nowhere}");

    let shown = async || {
        let answer = http().get(control.url("/healthz")).send().await.unwrap();
        let told = answer.headers()["strict-transport-security"].clone();
        assert_eq!(told, "max-age=31536000");
        let info = answer.extensions().get::<reqwest::tls::TlsInfo>().unwrap();
        info.peer_certificate().unwrap().to_vec()
    };
    let before = shown().await;
    std::fs::copy(&second.certificate, &first.certificate).unwrap();
    std::fs::copy(&second.key, &first.key).unwrap();
    until(SOON, "the new one is shown", async || {
        shown().await != before
    })
    .await;
    control.put("/a", json!({"ttl_seconds": 20})).await;
    until(SOON, "the stream goes on", async || ttl(&one, "/a") == 20).await;
    // Plain HTTP gets nothing there.
    let plain = reqwest::get(control.url("/healthz").replace("https:", "http:")).await;
    assert!(plain.is_err(), "{plain:?}");
    one.close().await;
}

/// Where the control plane is that another process of this test asks, which is told whom its machine trusts.
const ASKED: &str = "LARDER_TEST_CONTROL_URL";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_the_machine_trusts_is_trusted() {
    if let Ok(url) = std::env::var(ASKED) {
        let client = client(&url, None).unwrap();
        until(SOON, "it follows", async || ttl(&client, "/a") == 60).await;
        return client.close().await;
    }
    let authority = Authority::new();
    let signed = authority.sign("control", "IP:127.0.0.1");
    let folder = tempfile::tempdir().unwrap();
    let mut control = control(folder.path(), &signed).await;
    let trusted = larder_client::control_authorities(&authority.certificate()).unwrap();
    let http = reqwest::Client::builder().no_proxy();
    control.over_tls(http.tls_certs_only(trusted).build().unwrap());
    control.put("/a", json!({"ttl_seconds": 60})).await;
    let mut asking = tokio::process::Command::new(std::env::current_exe().unwrap());
    asking
        .args(["--exact", "tls::whom_the_machine_trusts_is_trusted"])
        .env(ASKED, control.url(""))
        .env("SSL_CERT_FILE", authority.certificate())
        .env_remove("SSL_CERT_DIR");
    let asked = asking.output().await.unwrap();
    assert!(asked.status.success(), "{asked:?}");
}
