//! TLS: chain and name are always checked, and nothing falls back to plain (SECURITY SR-2). Each test first shows a client
//! that checks nothing, and is let in.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use larder_core::{Store as _, Ttl};
use larder_redis::{Options, Tls, read_certificates, read_key};
use larder_testing::certificates::{Authority, Signed};
use larder_testing::redis::{RedisCluster, RedisSentinels, RedisServer, wait_until};

use crate::{connect_with, entry, key};

const HERE: &str = "IP:127.0.0.1";
const NO_CLIENTS: [&str; 2] = ["--tls-auth-clients", "no"];

fn patient(tls: Tls) -> Options {
    Options {
        deadline: Duration::from_secs(5),
        connect_timeout: Duration::from_secs(3),
        tls,
        ..Options::default()
    }
}

fn trusting(authority: &Authority) -> Tls {
    let authorities = read_certificates(&authority.certificate()).unwrap();
    Tls::default().trust(authorities).unwrap()
}

pub(crate) fn presenting(authority: &Authority, own: &Signed) -> Tls {
    let chain = read_certificates(&own.certificate).unwrap();
    let key = read_key(&own.key).unwrap();
    trusting(authority).present(chain, key).unwrap()
}

async fn assert_works(url: &str, tls: Tls) {
    let store = connect_with(url, patient(tls));
    let written = store.set(entry(&key("/a"), "1")).await;
    assert!(
        written.as_ref().is_ok_and(|written| written.is_stored()),
        "{written:?}"
    );
    assert_eq!(
        store
            .get(&key("/a"), Ttl::MAX)
            .await
            .unwrap()
            .unwrap()
            .bytes,
        "1"
    );
}

/// Every attempt fails, and the reason says this.
async fn assert_refused(url: &str, tls: Tls, said: &str) {
    let store = connect_with(url, patient(tls));
    let begin = Instant::now();
    loop {
        let error = store
            .get(&key("/a"), Ttl::MAX)
            .await
            .unwrap_err()
            .to_string();
        if error.contains(said) {
            return;
        }
        assert!(
            begin.elapsed() < Duration::from_secs(20),
            "{said:?} is not in {error:?}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn port(url: &str) -> &str {
    url.rsplit_once(':').unwrap().1
}

/// Whether a client that checks no certificate is answered.
fn answers_a_careless_client(url: &str) -> bool {
    let arguments = ["--tls", "--insecure", "-p", port(url), "PING"];
    let output = Command::new("redis-cli").args(arguments).output().unwrap();
    output.stdout.starts_with(b"PONG")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_a_trusted_authority_and_of_that_name_is_taken() {
    let authority = Authority::new();
    let own = authority.sign("server", "IP:127.0.0.1,DNS:localhost");
    for protocols in ["TLSv1.2", "TLSv1.3"] {
        let arguments = [&NO_CLIENTS[..], &["--tls-protocols", protocols]].concat();
        let (_server, url) = RedisServer::start_tls(&authority, &own, &arguments);
        assert_works(&url, trusting(&authority)).await;
        assert_works(&url.replace("127.0.0.1", "localhost"), trusting(&authority)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_other_certificate_is_refused_with_what_to_do() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let of_an_authority =
        "of no authority that we trust: name that authority's certificate in REDIS_TLS_CA";
    let cases = [
        (
            authority.sign("elsewhere", "DNS:elsewhere"),
            "for another name: connect by a name that it has",
        ),
        (
            authority.sign_expired("expired", HERE),
            "has expired: renew it on the server",
        ),
        (authority.self_signed("itself", HERE), of_an_authority),
        (stranger.sign("stranger", HERE), of_an_authority),
    ];
    for (own, said) in cases {
        let (_server, url) = RedisServer::start_tls(&authority, &own, &NO_CLIENTS);
        assert!(answers_a_careless_client(&url), "{said}");
        assert_refused(&url, trusting(&authority), said).await;
    }
    let own = authority.sign("server", HERE);
    let (_server, url) = RedisServer::start_tls(&authority, &own, &NO_CLIENTS);
    // The machine's own authorities did not sign it.
    assert_refused(&url, Tls::default(), "REDIS_TLS_CA").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_older_than_1_2_is_refused() {
    let authority = Authority::new();
    let own = authority.sign("server", HERE);
    let old = [
        "--tls-protocols",
        "TLSv1.1",
        "--tls-ciphers",
        "DEFAULT@SECLEVEL=0",
    ];
    let (_server, url) =
        RedisServer::start_tls(&authority, &own, &[&NO_CLIENTS[..], &old].concat());
    let careless = Command::new("openssl")
        .args([
            "s_client",
            "-tls1_1",
            "-cipher",
            "DEFAULT@SECLEVEL=0",
            "-connect",
        ])
        .arg(url.trim_start_matches("rediss://"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&careless.stdout);
    assert!(text.contains("Protocol  : TLSv1.1"), "{text}");
    assert_refused(
        &url,
        trusting(&authority),
        "allow TLS 1.2 or 1.3 on the server",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_is_shown_where_one_is_demanded() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let own = authority.sign("server", HERE);
    let ours = authority.sign("client", "DNS:client");
    let strange = stranger.sign("stranger", "DNS:client");
    let shown = format!("{:?}", patient(presenting(&authority, &ours)));
    assert!(
        shown.contains("presents_one: true") && !shown.contains("key"),
        "{shown}"
    );
    for protocols in ["TLSv1.2", "TLSv1.3"] {
        let arguments = ["--tls-auth-clients", "yes", "--tls-protocols", protocols];
        let (_server, url) = RedisServer::start_tls(&authority, &own, &arguments);
        assert!(!answers_a_careless_client(&url), "one is demanded");
        assert_works(&url, presenting(&authority, &ours)).await;
        assert_refused(&url, trusting(&authority), "demands a client certificate").await;
        assert_refused(&url, presenting(&authority, &strange), "our certificate").await;
    }
}

/// What a proxy in between heard.
struct Proxy {
    port: u16,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Proxy {
    /// Hands everything on to a plain port, as one would that takes TLS away.
    fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let notes = heard.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (
                    client.unwrap(),
                    TcpStream::connect(("127.0.0.1", to)).unwrap(),
                );
                let (mut back, mut answers) =
                    (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut answers, &mut back));
                let notes = notes.clone();
                std::thread::spawn(move || note(client, server, &notes));
            }
        });
        Self { port, heard }
    }

    fn heard(&self, words: &str) -> bool {
        let heard = self.heard.lock().unwrap();
        heard
            .windows(words.len())
            .any(|heard| heard == words.as_bytes())
    }
}

fn note(
    mut client: TcpStream,
    mut server: TcpStream,
    notes: &Mutex<Vec<u8>>,
) -> std::io::Result<()> {
    let mut chunk = [0; 4_096];
    loop {
        let count = client.read(&mut chunk)?;
        if count == 0 {
            return server.shutdown(std::net::Shutdown::Write);
        }
        notes.lock().unwrap().extend_from_slice(&chunk[..count]);
        server.write_all(&chunk[..count])?;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_port_and_a_proxy_that_strips_get_no_word_of_us() {
    const CANARY: &str = "canary-hunter2";
    let server = RedisServer::start_with(&["--requirepass", CANARY]);
    let proxy = Proxy::start(server.port());
    let with_password = |scheme: &str| format!("{scheme}://:{CANARY}@127.0.0.1:{}", proxy.port);
    assert_works(&with_password("redis"), Tls::default()).await;
    assert!(proxy.heard(CANARY), "without TLS it hears the password");

    let proxy = Proxy::start(server.port());
    let with_password = format!("rediss://:{CANARY}@127.0.0.1:{}", proxy.port);
    let authority = Authority::new();
    assert_refused(&with_password, trusting(&authority), "its TLS port").await;
    assert!(!proxy.heard(CANARY) && !proxy.heard("HELLO"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_of_a_cluster_is_checked_and_so_is_one_that_a_node_tells() {
    let authority = Authority::new();
    let own = authority.sign("server", HERE);
    let file = |path: &std::path::Path| path.display().to_string();
    let (certificate, key_file) = (file(&own.certificate), file(&own.key));
    let roots = file(&authority.certificate());
    let arguments = [
        ["--tls-cluster", "yes"],
        ["--tls-replication", "yes"],
        ["--tls-auth-clients", "no"],
        ["--tls-cert-file", &certificate],
        ["--tls-key-file", &key_file],
        ["--tls-ca-cert-file", &roots],
    ];
    let cluster = RedisCluster::start_with(2, &arguments.concat());
    let store = connect_with(&cluster.tls_url(), patient(trusting(&authority)));
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

    assert_refused(&cluster.tls_url(), Tls::default(), "certificate").await;
    for scheme in ["rediss+cluster", "rediss+sentinel"] {
        let plain = cluster.nodes[0].url().replace("redis", scheme);
        let plain = connect_with(&format!("{plain}/0"), patient(trusting(&authority)));
        assert!(
            plain.get(&keys[0], Ttl::MAX).await.is_err(),
            "no falling back to plain"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_and_the_masters_that_they_name_are_spoken_to_by_tls() {
    let authority = Authority::new();
    let own = authority.sign("server", HERE);
    let sentinels = RedisSentinels::start_tls(&authority, &own);
    assert_refused(&sentinels.tls_url(), Tls::default(), "certificate").await;

    let store = connect_with(&sentinels.tls_url(), patient(trusting(&authority)));
    let key = key("/a");
    assert!(store.set(entry(&key, "1")).await.unwrap().is_stored());
    let named = sentinels.master_port(0);
    let speaks_tls = |server: &RedisServer| {
        let clients = server.cli(&["CLIENT", "LIST", "TYPE", "NORMAL"]);
        let here = format!("laddr=127.0.0.1:{}", server.port());
        let ours = |line: &&str| line.contains("lib-name=larder") || line.contains("name=larder");
        let ours: Vec<&str> = clients.lines().filter(ours).collect();
        !ours.is_empty() && ours.iter().all(|line| !line.contains(&here))
    };
    assert!(speaks_tls(&sentinels.servers[0]));
    sentinels.fail_over();
    wait_until("the replica is the master", || {
        sentinels.master_port(0) != named && speaks_tls(&sentinels.servers[1])
    });
    let begin = Instant::now();
    while !matches!(store.set(entry(&key, "2")).await, Ok(written) if written.is_stored()) {
        assert!(begin.elapsed() < Duration::from_secs(20));
    }
    assert_eq!(sentinels.servers[1].cli(&["GET", key.as_str()]), "2");
}
