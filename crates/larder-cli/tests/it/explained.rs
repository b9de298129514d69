//! `larder explain`: what the control plane decided for an endpoint, and what would flip it.

use std::time::Duration;

use crate::running::{Answer, Up, larder, until};

pub(crate) fn with_plane(folder: &tempfile::TempDir, up: &Up, args: &[&str]) -> Answer {
    let mut command = larder(folder.path());
    let port = up.control_port.to_string();
    command.args(args).env("CONTROL_PORT", port);
    command.output().unwrap().into()
}

#[test]
fn a_decision_is_shown_with_its_reason_its_figures_and_what_would_flip_it() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(&folder, |command| {
        command.env("SLOW_QUERY_MS", "5");
    });
    let none = with_plane(&folder, &up, &["explain", "product-service", "/products"]);
    assert_eq!(none.code, 1, "{}", none.err);
    assert!(none.out.contains("nothing was decided"), "{}", none.out);

    let set = [
        "policy",
        "set",
        "product-service",
        "/products",
        "--mode",
        "shadow",
    ];
    assert_eq!(with_plane(&folder, &up, &set).code, 0);
    // A window comes each 5 s, a tick each 10 s.
    until("it was decided", Duration::from_secs(40), || {
        up.get("/products");
        let args = ["explain", "product-service", "/products"];
        with_plane(&folder, &up, &args)
            .out
            .contains("auto: would be")
    });
    let shown = with_plane(&folder, &up, &["explain", "product-service", "/products"]);
    assert!(
        shown.out.contains("What would flip it:") && shown.out.contains("Figures:"),
        "{}",
        shown.out
    );
    let json = with_plane(
        &folder,
        &up,
        &["explain", "product-service", "/products", "--json"],
    );
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(
        (&json["mode"], &json["decision"]["replays"]),
        (&"shadow".into(), &true.into())
    );
    let past = with_plane(
        &folder,
        &up,
        &["explain", "product-service", "/products", "--at", "3d"],
    );
    assert_eq!(past.code, 1, "nothing was decided three days ago");
    let wrong = with_plane(
        &folder,
        &up,
        &["explain", "product-service", "/products", "--at", "then"],
    );
    assert!(
        wrong.code == 2 && wrong.err.contains("10m"),
        "{}",
        wrong.err
    );
}
