//! A user of the server may do what its service needs, and nothing to other services (SECURITY SR-1).

use std::time::Duration;

use larder_core::{ClearMode, Key, Pattern, Store as _, StoreError, Ttl};
use larder_redis::Options;
use larder_testing::redis::RedisServer;

use crate::{connect_with, entry};

/// The least rights that a service needs.
pub(crate) const LEAST: &str = "resetkeys ~cache:* ~larder:* resetchannels -@all +get +mget +getrange +set +setex +psetex +del +unlink +ttl +pttl +exists +pexpire +scan +dbsize +info +eval +evalsha +script|load +multi +exec +client|tracking +client|trackinginfo +client|caching +client|setname +client|id +hello +auth +ping +role +select";
/// The keys of it, of one service.
const KEYS: &str = "~cache:* ~larder:*";
const KEYS_OF_SERVICE: &str =
    "~cache:SERVICE:* ~larder:lease:{cache:SERVICE:* ~larder:ver:SERVICE/*";

/// The least rights that a service needs which has keys of its own.
pub(crate) fn least_of(service: &str) -> String {
    LEAST.replace(KEYS, &KEYS_OF_SERVICE.replace("SERVICE", service))
}

fn key(service: &str, endpoint: &str) -> Key {
    Key::new(service, endpoint).unwrap()
}

#[test]
fn the_rules_stand_in_the_documentation() {
    let docs = include_str!("../../../../docs/stores.md");
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let docs = words(docs);
    assert!(docs.contains(LEAST));
    assert!(docs.contains(KEYS_OF_SERVICE));
}

async fn check(server: RedisServer) {
    for service in ["svc-a", "svc-b", "svc-ab"] {
        let rules = least_of(service);
        let mut command = vec!["ACL", "SETUSER", service, "on", ">pass"];
        command.extend(rules.split(' '));
        assert_eq!(server.cli(&command), "OK");
    }
    let of = |user: &str| {
        let options = Options {
            deadline: Duration::from_secs(5),
            ..Options::default()
        };
        connect_with(
            &format!("redis://{user}:pass@127.0.0.1:{}", server.port()),
            options,
        )
    };
    let a = of("svc-a");
    for service in ["svc-a", "svc-b", "svc-ab"] {
        let own = of(service);
        let written = own.set(entry(&key(service, "/p"), "1")).await;
        assert!(
            written.as_ref().is_ok_and(|written| written.is_stored()),
            "{written:?}"
        );
        let found = own.get(&key(service, "/p"), Ttl::MAX).await.unwrap();
        assert_eq!(found.unwrap().bytes, "1");
    }
    for service in ["svc-b", "svc-ab"] {
        let (theirs, all) = (
            key(service, "/p"),
            Pattern::parse(&format!("cache:{service}:*")).unwrap(),
        );
        // The attack works where a user may use all keys.
        assert_eq!(server.cli(&["GET", theirs.as_str()]), "1");
        let written = a.set(entry(&theirs, "2")).await;
        assert!(written.is_ok_and(|written| !written.is_stored()));
        let refused = [
            a.get(&theirs, Ttl::MAX).await.err(),
            a.get_many(&[key("svc-a", "/p"), theirs.clone()], Ttl::MAX)
                .await
                .err(),
            a.delete(std::slice::from_ref(&theirs)).await.err(),
            a.clear(&all, ClearMode::Delete).await.err(),
        ];
        for (index, error) in refused.iter().enumerate() {
            let is_refused =
                matches!(error, Some(StoreError::Refused(why)) if why.contains("NOPERM"));
            assert!(is_refused, "{index}: {error:?}");
        }
        assert_eq!(
            server.cli(&["GET", theirs.as_str()]),
            "1",
            "it is as it was"
        );
    }
    let own = Pattern::parse("cache:svc-a:*").unwrap();
    assert_eq!(a.clear(&own, ClearMode::Delete).await.unwrap().entries, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_services_user_reaches_no_other_services_keys() {
    check(RedisServer::start()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_services_user_reaches_no_other_services_keys_on_valkey() {
    check(RedisServer::start_valkey(&[])).await;
}
