//! What was measured of a service, for longer than memory has it.

use serde_json::{Value, json};

use crate::{Running, places};

#[tokio::test]
async fn what_is_kept_is_answered_by_minute_or_by_hour_of_one_service() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("control.db");
    let control = Running::start_on(&database).await;
    let nothing = control.get("/api/rollups/svc").await;
    assert_eq!(
        (nothing.status, &nothing.json()["rollups"]),
        (200, &json!([]))
    );
    for statement in [
        r#"INSERT INTO rollups VALUES ('svc', 60, 1200, '{"hits":1}')"#,
        r#"INSERT INTO rollups VALUES ('svc', 60, 600, '{"hits":2}')"#,
        r#"INSERT INTO rollups VALUES ('svc', 3600, 0, '{"hits":3}')"#,
        r#"INSERT INTO rollups VALUES ('other', 60, 600, '{"hits":4}')"#,
    ] {
        places::sql(&database, statement).await.unwrap();
    }
    let hits = async |query: &str| {
        let list = control
            .get(&format!("/api/rollups/svc{query}"))
            .await
            .json();
        let all = list["rollups"].as_array().unwrap().iter();
        let all = all.map(|one| json!([one["at_seconds"], one["window"]["hits"]]));
        (list["step_seconds"].clone(), Value::Array(all.collect()))
    };
    assert_eq!(hits("").await, (3_600.into(), json!([[0, 3]])));
    let minutes = json!([[600, 2], [1200, 1]]);
    assert_eq!(hits("?step=minute").await, (60.into(), minutes));
    let later = hits("?step=minute&since=601").await.1;
    assert_eq!(later, json!([[1200, 1]]));
    for bad in ["/api/rollups/a%20b", "/api/rollups/svc?step=day"] {
        control.get(bad).await.is_problem(400);
    }
}

/// Keeps a minute or an hour that began so long ago.
async fn keep(database: &std::path::Path, service: &str, length: u64, ago: u64, window: &Value) {
    // Of all who keep something in this process the same one: else two that are apart may be in one minute.
    static NOW: std::sync::LazyLock<u64> = std::sync::LazyLock::new(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.unwrap().as_secs()
    });
    let at = (*NOW - ago) / length * length;
    let statement = format!("INSERT INTO rollups VALUES ('{service}', {length}, {at}, '{window}')");
    places::sql(database, statement.leak()).await.unwrap();
}

#[tokio::test]
async fn what_is_kept_is_shown_by_minute_and_by_hour() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("control.db");
    let control = Running::start_on(&database).await;
    let nothing = control.page("/ui/over-time/svc").await;
    assert_eq!(nothing.status, 200, "{nothing:?}");
    assert!(nothing.body.contains("Nothing is kept of the last day"));
    assert!(!nothing.body.contains("<path"), "{nothing:?}");
    let window = json!({"hits": 3, "misses": 1, "hit_ms_sum": 6.0, "origin_count": 1, "origin_ms_sum": 800.0});
    for ago in [3_600, 3_660, 7_200, 90_000] {
        keep(&database, "svc", 60, ago, &window).await;
    }
    for ago in [7_200, 86_400 * 30] {
        keep(&database, "svc", 3_600, ago, &window).await;
    }
    keep(&database, "other", 60, 60, &json!({"hits": 5})).await;
    let day = control.page("/ui/over-time/svc").await.body;
    for words in [
        "75.0 % in all",
        "the origin 800 ms, a hit 2.00 ms",
        r#"<a href="?step=minute" aria-current="true">Last day</a>"#,
        r#"<a href="?step=hour">Last 90 days</a>"#,
        "24 h ago",
    ] {
        assert!(day.contains(words), "{words}: {day}");
    }
    // Three minutes of this day, two of them next to each other.
    let line = day.split("class=\"line requests\" d=\"").nth(1).unwrap();
    let line = line.split('"').next().unwrap();
    assert_eq!(line.matches('M').count(), 2, "{line}");
    assert_eq!(line.matches('L').count(), 1, "{line}");
    let quarter = control.page("/ui/over-time/svc?step=hour").await.body;
    assert_eq!(
        quarter.matches("<tr><th scope=\"row\"").count(),
        2,
        "{quarter}"
    );
    assert!(quarter.contains("<span>90 days</span>"), "{quarter}");
    for bad in ["/ui/over-time/a%20b", "/ui/over-time/svc?step=day"] {
        control.page(bad).await.is_problem(400);
    }
    let service = control.page("/ui/services/svc/a").await.body;
    assert!(service.contains("/ui/over-time/svc"), "{service}");
}

also_over_postgres!(what_is_kept_is_answered_by_minute_or_by_hour_of_one_service);
