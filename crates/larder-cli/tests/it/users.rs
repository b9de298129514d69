//! Users of the dashboard on the command line: their passwords come from standard input, and are shown nowhere.

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use crate::running::{Answer, larder, run};

fn with_input(folder: &Path, args: &[&str], input: &str) -> Answer {
    let mut command = larder(folder);
    command
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that needs none may have ended already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap().into()
}

#[test]
fn users_are_made_changed_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let create = [
        "user",
        "create",
        "alice",
        "--role",
        "operator",
        "--service",
        "svc",
    ];
    let short = with_input(folder, &create, "too short\n");
    assert_eq!(short.code, 3, "{}", short.out);
    assert!(
        short.err.contains("12 characters") && !short.err.contains("too short"),
        "{}",
        short.err
    );
    let none = with_input(folder, &create, "");
    assert_eq!(none.code, 3, "{}", none.out);
    let made = with_input(folder, &create, "canary-correct-horse\n");
    assert_eq!((made.code, made.out.trim()), (0, "made"), "{}", made.err);
    let again = with_input(folder, &create, "canary-correct-horse\n");
    assert_eq!(again.code, 1, "{}", again.out);
    let listed = run(folder, &["user", "list"]);
    for words in ["alice", "operator", "svc"] {
        assert!(listed.out.contains(words), "{words}: {}", listed.out);
    }
    let role = run(
        folder,
        &["user", "role", "alice", "--role", "admin", "--all-services"],
    );
    assert_eq!(role.code, 0, "{}", role.err);
    let password = with_input(
        folder,
        &["user", "password", "alice"],
        "canary-battery-staple\r\n",
    );
    assert_eq!(password.code, 0, "{}", password.err);
    let nobody = with_input(
        folder,
        &["user", "password", "bob"],
        "canary-battery-staple\n",
    );
    assert_eq!(nobody.code, 1, "{}", nobody.out);
    assert!(run(folder, &["user", "list"]).out.contains("admin"));
    let removed = run(folder, &["user", "remove", "alice", "--reason", "gone"]);
    assert_eq!(removed.code, 0, "{}", removed.err);
    assert!(!run(folder, &["user", "list"]).out.contains("alice"));
    for file in std::fs::read_dir(folder.join(".larder")).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("canary"));
    }
    let wrong = run(folder, &["user", "create", "alice", "--role", "operator"]);
    assert_eq!(wrong.code, 2, "{}", wrong.err);
}
