//! Who follows a service is told what is to be invalidated, also what it missed while it was away.

use serde_json::{Value, json};

use crate::Running;
use crate::followers::Follower;

impl Running {
    /// Invalidates a tag of `svc`, and waits for nothing.
    async fn tag(&self, tag: &str) {
        let asked = json!({"service_name": "svc", "tag": tag, "wait_seconds": 0});
        let answer = self.invalidate(asked).await;
        assert_eq!(answer.status, 202, "{answer:?}");
    }
}

/// Opens a stream with a position; where it stands.
async fn follow(port: u16, position: &str) -> (Follower, Value) {
    let header = format!("Larder-Invalidations: {position}\r\n");
    let mut follower = Follower::open(port, &header).await;
    let standing = follower.event_of("invalidations").await;
    let standing: Value = serde_json::from_str(&standing.data).unwrap();
    (follower, standing)
}

async fn next(follower: &mut Follower) -> (String, Value) {
    let event = follower.event_of("invalidate").await;
    let position = event.id.strip_prefix(';').unwrap().to_owned();
    (position, serde_json::from_str(&event.data).unwrap())
}

#[tokio::test]
async fn who_follows_is_told_at_once_and_who_was_away_is_told_the_rest() {
    let control = Running::start().await;
    let (mut follower, standing) = follow(control.port, "").await;
    assert_eq!(standing["gap"], false);
    control.tag("a").await;
    let (first, told) = next(&mut follower).await;
    assert_eq!(told, json!({"what": "tag", "name": "a"}));
    drop(follower);
    control.tag("b").await;
    control.put("/api/policies/svc/a", "{}").await;
    control.tag("c").await;
    control
        .invalidate(json!({"service_name": "other", "wait_seconds": 0}))
        .await;
    for header in [
        format!("Larder-Invalidations: {first}"),
        format!("Last-Event-ID: x-1;{first}"),
        format!("Last-Event-ID: ;{first}"),
    ] {
        let mut again = Follower::open(control.port, &format!("{header}\r\n")).await;
        let standing = again.event_of("invalidations").await;
        let standing: Value = serde_json::from_str(&standing.data).unwrap();
        assert_eq!(
            standing,
            json!({"position": first, "gap": false}),
            "{header}"
        );
        let names: Vec<Value> = vec![
            next(&mut again).await.1["name"].clone(),
            next(&mut again).await.1["name"].clone(),
        ];
        assert_eq!(names, ["b", "c"], "{header}");
    }
    // One that knows nothing of invalidations hears of them all the same, and not of where it stands.
    let mut plain = Follower::open(control.port, "").await;
    plain.event_of("policies").await;
    control.tag("d").await;
    assert_eq!(plain.event().await.unwrap().name, "invalidate");
}

#[tokio::test]
async fn who_missed_more_than_is_kept_and_who_comes_from_elsewhere_is_told_of_the_gap() {
    let control = Running::start_with(|settings| settings.invalidations.kept = 3).await;
    let (mut follower, standing) = follow(control.port, "").await;
    let begin = standing["position"].as_str().unwrap().to_owned();
    control.tag("0").await;
    let (first, _) = next(&mut follower).await;
    for tag in ["1", "2", "3"] {
        control.tag(tag).await;
    }
    let (mut back, standing) = follow(control.port, &first).await;
    assert_eq!(standing["gap"], false, "three of them are kept");
    assert_eq!(next(&mut back).await.1["name"], "1");
    control.tag("4").await;
    let (database, number) = first.rsplit_once('.').unwrap();
    let ahead = format!("{database}.{}", number.parse::<u64>().unwrap() + 1_000);
    for position in [
        begin.as_str(),
        &first,
        "other.1",
        "nonsense",
        &ahead,
        &format!("{database}.x"),
    ] {
        let (mut gapped, standing) = follow(control.port, position).await;
        assert_eq!(standing["gap"], true, "{position}: {standing}");
        control.tag("after").await;
        assert_eq!(
            next(&mut gapped).await.1["name"],
            "after",
            "{position}: only what comes next"
        );
    }
    let long = "1".repeat(5_000);
    let mut ignored =
        Follower::open(control.port, &format!("Larder-Invalidations: {long}\r\n")).await;
    assert_eq!(ignored.event().await.unwrap().name, "begin");
}

#[tokio::test]
async fn a_control_plane_that_is_started_anew_knows_what_it_told_and_positions_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("control.db");
    let control = Running::start_on(&database).await;
    let (mut follower, standing) = follow(control.port, "").await;
    let begin = standing["position"].as_str().unwrap().to_owned();
    for tag in ["a", "b"] {
        control.tag(tag).await;
    }
    let (first, _) = next(&mut follower).await;
    drop(follower);
    let before = control.get("/api/invalidations").await.json();
    control.stop().await;

    let control = Running::start_on(&database).await;
    let after = control.get("/api/invalidations").await.json();
    for (before, after) in std::iter::zip(
        before["invalidations"].as_array().unwrap(),
        after["invalidations"].as_array().unwrap(),
    ) {
        for field in ["id", "what", "name", "at_seconds", "author"] {
            assert_eq!(before[field], after[field], "{after}");
        }
        assert_eq!(after["store"]["state"], "unknown", "{after}");
    }
    let (mut back, standing) = follow(control.port, &first).await;
    assert_eq!(standing["gap"], false, "{standing}");
    assert_eq!(next(&mut back).await.1["name"], "b");
    let (mut back, standing) = follow(control.port, &begin).await;
    assert_eq!(standing["gap"], false, "{standing}");
    assert_eq!(next(&mut back).await.1["name"], "a");
    control.tag("c").await;
    assert_eq!(next(&mut back).await.1["name"], "b");
    assert_eq!(next(&mut back).await.1["name"], "c");
}

#[tokio::test]
async fn a_hostile_name_makes_no_line_of_the_stream() {
    let control = Running::start().await;
    let (mut follower, _) = follow(control.port, "").await;
    let pattern = "cache:svc:/a\u{2028}data: x\u{85}*";
    let asked = json!({"pattern": pattern, "wait_seconds": 0, "reason": "event: drain"});
    let answer = control.invalidate(asked).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let event = follower.event_of("invalidate").await;
    assert_eq!(event.text.lines().count(), 3, "{}", event.text);
    let told: Value = serde_json::from_str(&event.data).unwrap();
    assert_eq!(told["name"], pattern);
}
