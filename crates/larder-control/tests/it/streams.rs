//! Who follows a service hears of a change at once; streams are bounded in number and age, and end with a word.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::net::TcpSocket;

use crate::followers::{Follower, allow_open_files, p99};
use crate::{Running, until};

/// The mark is 250 ms on a quiet machine.
const SOON: Duration = Duration::from_millis(2_500);

#[tokio::test]
async fn a_change_is_told_with_the_document_and_its_tag() {
    let control = Running::start().await;
    let mut follower = Follower::open(control.port, "").await;
    assert_eq!(follower.status, 200);
    let head = follower.head.to_lowercase();
    for header in [
        "content-type: text/event-stream",
        "cache-control: no-store, no-transform",
        "x-accel-buffering: no",
        "x-content-type-options: nosniff",
    ] {
        assert!(head.contains(header), "{head}");
    }
    let begin = follower.event().await.unwrap();
    assert_eq!(
        (begin.name.as_str(), begin.data.as_str()),
        ("begin", "{\"heartbeat_seconds\":10}")
    );
    let first = follower.event().await.unwrap();
    let none: Value = serde_json::from_str(&first.data).unwrap();
    assert_eq!(
        (&none["version"], &none["service_name"]),
        (&0.into(), &"svc".into())
    );

    for ttl in [60, 30] {
        let put = format!("{{\"ttl_seconds\":{ttl}}}");
        control.put("/api/policies/svc/a", &put).await;
        let event = follower.event().await.unwrap();
        assert_eq!(event.name, "policies");
        let polled = control.get("/api/config/svc").await;
        assert_eq!(polled.header("etag"), Some(&*format!("\"{}\"", event.id)));
        assert_eq!(event.data, polled.body);
        assert!(event.data.contains(&format!("\"ttl_seconds\":{ttl},")));
    }
    control.put("/api/policies/other/a", "{}").await;
    control.delete("/api/policies/svc/a").await;
    let last = follower.event().await.unwrap();
    assert!(
        last.data.contains("\"version\":3"),
        "another service's change is none of it"
    );
}

#[tokio::test]
async fn an_override_is_told_and_its_end_too() {
    let control = Running::start().await;
    control.put("/api/policies/svc/a", "{}").await;
    let mut follower = Follower::open(control.port, "").await;
    follower.event_of("policies").await;
    let new = serde_json::json!({"service_name": "svc", "endpoint": "/a", "policy": {"mode": "off"},
        "reason": "data: {}", "duration_seconds": 1});
    let begun = control.post("/api/overrides", &new.to_string()).await;
    assert!(begun.status < 300, "{begun:?}");
    for source in ["override", "policy"] {
        let event = follower.event_of("policies").await;
        let config: Value = serde_json::from_str(&event.data).unwrap();
        assert_eq!(config["policies"][0]["source"], source, "{config}");
    }
}

#[tokio::test]
async fn who_comes_again_hears_only_what_he_does_not_have() {
    let control = Running::start().await;
    control.put("/api/policies/svc/a", "{}").await;
    let mut follower = Follower::open(control.port, "").await;
    let policies = follower.event_of("policies").await;
    let has = |id: &str| format!("Last-Event-ID: {id}\r\n");
    let mut again = Follower::open(control.port, &has(&policies.id)).await;
    again.event_of("begin").await;
    let unchanged = again.event().await.unwrap();
    assert_eq!(
        (unchanged.name, unchanged.id),
        ("unchanged".into(), policies.id.clone())
    );
    let (database, _) = policies.id.rsplit_once('-').unwrap();
    let long = "1".repeat(5_000);
    for other in [
        "0",
        "other-1",
        &format!("{database}-0"),
        &format!("{database}-99"),
        &long,
        "\u{e9}",
        "",
    ] {
        let mut again = Follower::open(control.port, &has(other)).await;
        again.event_of("begin").await;
        let event = again.event().await.unwrap();
        assert_eq!(
            (event.name.as_str(), &event.id),
            ("policies", &policies.id),
            "{other}"
        );
    }
    control
        .put("/api/policies/svc/a", "{\"mode\":\"off\"}")
        .await;
    assert!(again.event_of("policies").await.data.contains("\"off\""));
}

#[tokio::test]
async fn no_text_from_outside_makes_a_line() {
    let control = Running::start().await;
    let forged = "/api/policies/svc/a%0D%0A%0D%0Aevent:%20drain%0Adata:%20x";
    let put = control.put(forged, "{\"tags\":[\"data:x\"]}").await;
    assert_eq!(put.status, 200, "{put:?}");
    let mut follower = Follower::open(control.port, "").await;
    let event = follower.event_of("policies").await;
    assert_eq!(event.text.lines().count(), 3, "{}", event.text);
    assert!(!event.text.contains('\r'));
    serde_json::from_str::<Value>(&event.data).unwrap();
    let bad = control.get("/api/stream/no%0Aservice").await;
    bad.is_problem(400);
}

#[tokio::test]
async fn a_silent_stream_says_that_it_lives_and_ends_in_its_time() {
    let control = Running::start_with(|settings| {
        settings.streams.heartbeat = Duration::from_millis(50);
        settings.streams.age = Duration::from_secs(3);
    })
    .await;
    let began = Instant::now();
    let mut follower = Follower::open(control.port, "").await;
    let mut heartbeats = 0;
    let last = loop {
        let event = follower.next().await.unwrap();
        heartbeats += usize::from(event.text == ":");
        if event.name == "drain" {
            break event;
        }
    };
    assert!(heartbeats >= 3, "{heartbeats}");
    assert_eq!(last.retry, Some(0), "the next one may be opened at once");
    assert!(began.elapsed() >= Duration::from_millis(2_400));
    assert_eq!(follower.next().await, None);
}

#[tokio::test]
async fn streams_are_bounded_and_their_places_given_back() {
    let control = Running::start_with(|settings| {
        settings.streams.in_all = 4;
        settings.streams.per_service = 2;
        settings.streams.per_address = 3;
    })
    .await;
    let open = async |address: &str, service: &str| {
        let socket = TcpSocket::new_v4().unwrap();
        socket
            .bind(format!("{address}:0").parse().unwrap())
            .unwrap();
        let to = format!("127.0.0.1:{}", control.port).parse().unwrap();
        let stream = socket.connect(to).await.unwrap();
        Follower::open_over(stream, control.port, service, "").await
    };
    let refused = |follower: &Follower| {
        let head = follower.head.to_lowercase();
        let after = head
            .split_once("retry-after: ")
            .map(|(_, rest)| rest.split_once("\r\n").unwrap().0);
        let after: u64 = after.unwrap_or_else(|| panic!("{head}")).parse().unwrap();
        assert!(
            follower.status == 503 && (10..=30).contains(&after),
            "{head}"
        );
        assert!(head.contains("application/problem+json"));
    };
    let first = open("127.0.0.1", "a").await;
    let second = open("127.0.0.1", "a").await;
    refused(&open("127.0.0.2", "a").await);
    let third = open("127.0.0.1", "b").await;
    refused(&open("127.0.0.1", "c").await);
    let fourth = open("127.0.0.2", "c").await;
    refused(&open("127.0.0.3", "d").await);
    for follower in [&first, &second, &third, &fourth] {
        assert_eq!(follower.status, 200);
    }
    assert_eq!(control.metric("larder_control_streams ").await, 4);
    assert_eq!(
        control
            .metric("larder_control_streams_refused_total ")
            .await,
        3
    );
    drop((first, second, third, fourth));
    until("the places are given back", async || {
        control.metric("larder_control_streams ").await == 0
    })
    .await;
    assert_eq!(
        control.send("HEAD", "/api/stream/a", &[], "").await.status,
        200
    );
    until("a HEAD keeps none", async || {
        control.metric("larder_control_streams ").await == 0
    })
    .await;
    assert_eq!(open("127.0.0.1", "a").await.status, 200);
}

#[tokio::test]
async fn at_the_end_every_client_is_asked_to_come_again_at_another_time() {
    let control = Running::start().await;
    let mut followers = Vec::new();
    for _ in 0..20 {
        let mut follower = Follower::open(control.port, "").await;
        follower.event_of("policies").await;
        followers.push(follower);
    }
    let began = Instant::now();
    let ((), retries) = tokio::join!(control.stop(), async {
        let mut retries = HashSet::new();
        for follower in &mut followers {
            let drain = follower.event_of("drain").await;
            let retry = drain.retry.unwrap();
            assert!(retry <= 30_000);
            retries.insert(retry);
            assert_eq!(follower.next().await, None);
        }
        retries
    });
    assert!(retries.len() > 10, "{retries:?}");
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "nothing is waited for"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_streams_see_a_change() {
    const STREAMS: usize = 1_000;
    allow_open_files(4_096);
    let control = Running::start().await;
    control
        .put("/api/policies/svc/a", "{\"ttl_seconds\":60}")
        .await;
    let mut followers = Vec::with_capacity(STREAMS);
    for _ in 0..STREAMS {
        let mut follower = Follower::open(control.port, "").await;
        follower.event_of("policies").await;
        followers.push(follower);
    }
    assert_eq!(
        control.metric("larder_control_streams ").await,
        STREAMS as u64
    );
    let mut soonest = Duration::MAX;
    // All see each of them; one of three is soon enough, since the machine may stand still for a moment.
    for ttl in 30..33 {
        let waiting: Vec<_> = followers
            .into_iter()
            .map(|mut follower| {
                tokio::spawn(async move {
                    let event = follower.event_of("policies").await;
                    let changed = format!("\"ttl_seconds\":{ttl},");
                    assert!(event.data.contains(&changed), "{event:?}");
                    (Instant::now(), follower)
                })
            })
            .collect();
        let began = Instant::now();
        let policy = format!("{{\"ttl_seconds\":{ttl}}}");
        control.put("/api/policies/svc/a", &policy).await;
        let mut took = Vec::with_capacity(STREAMS);
        followers = Vec::with_capacity(STREAMS);
        for follower in waiting {
            let (saw, follower) = follower.await.unwrap();
            took.push(saw - began);
            followers.push(follower);
        }
        let p99 = p99(took);
        println!("{STREAMS} streams saw a change after {p99:?} (p99)");
        soonest = soonest.min(p99);
    }
    assert!(soonest < SOON, "{soonest:?}");
}
