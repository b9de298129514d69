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

also_over_postgres!(what_is_kept_is_answered_by_minute_or_by_hour_of_one_service);
