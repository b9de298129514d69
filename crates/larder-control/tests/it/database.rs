//! The SQLite file: private, its own, and clear about damage.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use larder_control::{ControlPlane, OpenError, RunError, Settings};
use tokio::net::TcpListener;

use crate::Running;

async fn refused(path: &Path) -> OpenError {
    ControlPlane::open(Settings::new(path)).await.unwrap_err()
}

#[tokio::test]
async fn all_its_files_are_private() {
    let folder = tempfile::tempdir().unwrap();
    let control = Running::start_on(&folder.path().join("control.db")).await;
    control.put("/api/policies/svc/a", "{}").await;
    let files: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|file| file.unwrap())
        .collect();
    assert!(files.len() >= 2, "the file and its log: {files:?}");
    for file in files {
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file:?}");
    }
}

#[tokio::test]
async fn what_is_no_database_of_ours_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(
        path("text"),
        "this is no database, and much longer than the head of one".repeat(50),
    )
    .unwrap();
    assert!(matches!(
        refused(&path("text")).await,
        OpenError::Damaged { .. }
    ));
    std::fs::create_dir(path("folder")).unwrap();
    assert!(matches!(
        refused(&path("folder")).await,
        OpenError::NotAFile(_)
    ));
    symlink(path("text"), path("link")).unwrap();
    assert!(matches!(
        refused(&path("link")).await,
        OpenError::NotAFile(_)
    ));
    assert!(matches!(
        refused(&path("no/such/folder")).await,
        OpenError::File { .. }
    ));

    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(path("foreign"))
        .create_if_missing(true);
    let foreign = sqlx::SqlitePool::connect_with(options).await.unwrap();
    sqlx::query("CREATE TABLE theirs (a)")
        .execute(&foreign)
        .await
        .unwrap();
    foreign.close().await;
    assert!(matches!(
        refused(&path("foreign")).await,
        OpenError::Foreign(_)
    ));
}

#[tokio::test]
async fn a_damaged_database_is_an_error_that_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.db");
    let control = Running::start_on(&path).await;
    for index in 0..50 {
        control
            .put(&format!("/api/policies/svc/a{index}"), "{}")
            .await;
    }
    control.stop().await;
    let whole = std::fs::read(&path).unwrap();
    for damage in 0..3 {
        let mut bytes = whole.clone();
        match damage {
            0 => bytes.truncate(bytes.len() / 2),
            1 => bytes[4_096..].fill(0),
            _ => bytes[100..]
                .iter_mut()
                .for_each(|byte| *byte = byte.wrapping_mul(31) ^ 0x5a),
        }
        std::fs::write(&path, bytes).unwrap();
        let error = refused(&path).await.to_string();
        assert!(
            error.contains("move") && error.contains("control.db"),
            "{damage}: {error}"
        );
    }
    std::fs::write(&path, whole).unwrap();
    assert_eq!(
        Running::start_on(&path)
            .await
            .get("/api/policies/svc/a1")
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn it_listens_on_loopback_only() {
    let folder = tempfile::tempdir().unwrap();
    let control = ControlPlane::open(Settings::new(folder.path().join("control.db")))
        .await
        .unwrap();
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let error = control
        .run(listener, std::future::pending())
        .await
        .unwrap_err();
    assert!(matches!(error, RunError::Bind(_)), "{error}");
}
