//! Log-in to the dashboard: sessions, what their pages may send, roles, and how often it may be tried (SECURITY SC-6, SC-7).

use std::time::Instant;

use larder_model::api::{KeyRole, NewUser, UserChange, UserRole};
use serde_json::json;

use super::Keyed;
use crate::{Answer, Running};

const PASSWORD: &str = "correct horse battery";
const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");

impl Keyed {
    async fn user(&mut self, name: &str, role: UserRole, services: &[&str]) {
        let new = NewUser {
            name: name.to_owned(),
            role,
            services: services.iter().map(|name| (*name).to_owned()).collect(),
            password: PASSWORD.to_owned(),
            reason: None,
        };
        assert!(self.keys.create_user(new, None).await.unwrap());
    }
}

impl Running {
    fn origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    async fn try_log_in(&self, name: &str, password: &str, more: &[(&str, &str)]) -> Answer {
        let origin = self.origin();
        let mut headers = vec![FORM, ("Origin", origin.as_str())];
        headers.extend(more);
        let form = format!(
            "name={name}&password={}&then=%2Fui%2Foverrides",
            password.replace(' ', "+")
        );
        self.send("POST", "/ui/login", &headers, &form).await
    }

    /// The cookie of a session, and what its pages say with each change.
    async fn log_in(&self, name: &str) -> (String, String) {
        let answer = self.try_log_in(name, PASSWORD, &[]).await;
        assert_eq!(answer.status, 303, "{answer:?}");
        assert_eq!(answer.header("location"), Some("/ui/overrides"));
        let cookie = answer.header("set-cookie").unwrap();
        let cookie = cookie.split(';').next().unwrap().to_owned();
        let page = self.page_of("/", &cookie).await;
        assert_eq!(page.status, 200, "{page:?}");
        let token = page.body.split("name=\"csrf\" content=\"").nth(1).unwrap();
        (cookie, token.split('"').next().unwrap().to_owned())
    }

    async fn page_of(&self, path: &str, cookie: &str) -> Answer {
        let headers = [
            ("Accept", "text/html"),
            ("Cookie", cookie),
            ("Sec-Fetch-Mode", "navigate"),
        ];
        self.send("GET", path, &headers, "").await
    }

    async fn change_of(
        &self,
        method: &str,
        path: &str,
        session: (&str, &str),
        body: &str,
    ) -> Answer {
        let headers = [
            ("Content-Type", "application/json"),
            ("Cookie", session.0),
            ("X-CSRF-Token", session.1),
        ];
        self.send(method, path, &headers, body).await
    }

    async fn log_out(&self, cookie: &str, token: &str) -> Answer {
        let origin = self.origin();
        let headers = [FORM, ("Origin", origin.as_str()), ("Cookie", cookie)];
        self.send("POST", "/ui/logout", &headers, &format!("csrf={token}"))
            .await
    }
}

/// That a cookie is that of no session.
async fn is_over(control: &Running, cookie: &str) {
    let page = control.page_of("/ui/audit", cookie).await;
    assert_eq!(page.status, 303, "{page:?}");
    assert_eq!(page.header("location"), Some("/ui/login?then=/ui/audit"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_logs_in_sees_the_pages_until_he_logs_out() {
    let mut keyed = Keyed::new().await;
    keyed.user("alice", UserRole::Admin, &["*"]).await;
    let control = keyed.start().await;
    is_over(&control, "").await;
    // The page's own script, and programs, are told so by a status.
    let headers = [("Accept", "text/html"), ("Sec-Fetch-Mode", "cors")];
    control.send("GET", "/", &headers, "").await.is_problem(401);
    control.get("/api/services").await.is_problem(401);
    let form = control.page_of("/ui/login?then=%2Fui%2Faudit", "").await;
    assert_eq!(form.status, 200);
    assert!(
        form.body.contains("name=\"then\" value=\"/ui/audit\""),
        "{}",
        form.body
    );
    assert!(!form.body.contains("larder user create"));
    assert!(
        form.header("content-security-policy")
            .unwrap()
            .contains("form-action 'self'")
    );

    // One that somebody else chose is not taken over (fixation).
    let chosen = format!("larder-session={}", "ab".repeat(32));
    let answer = control
        .try_log_in("alice", PASSWORD, &[("Cookie", &chosen)])
        .await;
    let given = answer.header("set-cookie").unwrap();
    assert!(
        !given.contains(&chosen) && given.contains("HttpOnly") && given.contains("SameSite=Strict")
    );
    is_over(&control, &chosen).await;

    let (cookie, token) = control.log_in("alice").await;
    let page = control.page_of("/ui/audit", &cookie).await;
    for words in ["alice (admin)", "Log out", "logged in", "user alice"] {
        assert!(page.body.contains(words), "{words}: {}", page.body);
    }
    let file = std::fs::read(keyed.database()).unwrap();
    let secret = cookie.split('=').nth(1).unwrap();
    assert!(
        !String::from_utf8_lossy(&file).contains(secret),
        "its hash alone is kept"
    );

    let foreign = control.log_out(&cookie, &"0".repeat(64)).await;
    assert_eq!(foreign.status, 403, "{foreign:?}");
    assert_eq!(control.page_of("/", &cookie).await.status, 200);
    let out = control.log_out(&cookie, &token).await;
    assert_eq!(
        (out.status, out.header("location")),
        (303, Some("/ui/login"))
    );
    assert!(out.header("set-cookie").unwrap().contains("Max-Age=0"));
    is_over(&control, &cookie).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_comes_from_a_page_of_the_session_or_not_at_all() {
    let mut keyed = Keyed::new().await;
    keyed.user("alice", UserRole::Operator, &["*"]).await;
    let control = keyed.start().await;
    let (cookie, token) = control.log_in("alice").await;
    let (_, other) = control.log_in("alice").await;
    let path = "/api/policies/svc/a";
    for token in ["", &other, &token[1..], &format!("{token}0")] {
        let refused = control.change_of("PUT", path, (&cookie, token), "{}").await;
        refused.is_problem(403);
    }
    let headers = [("Cookie", cookie.as_str())];
    control
        .send("DELETE", path, &headers, "")
        .await
        .is_problem(403);
    let done = control
        .change_of("PUT", path, (&cookie, &token), "{}")
        .await;
    assert_eq!(done.status, 200, "{done:?}");
    // A stream is not a session's: it would outlive it.
    control
        .send("GET", "/api/stream/svc", &headers, "")
        .await
        .is_problem(403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_role_does_what_it_may_and_is_shown_no_more() {
    let mut keyed = Keyed::new().await;
    keyed.user("viewer", UserRole::Viewer, &["svc"]).await;
    keyed.user("operator", UserRole::Operator, &["svc"]).await;
    keyed.user("local-admin", UserRole::Admin, &["svc"]).await;
    keyed.user("root", UserRole::Admin, &["*"]).await;
    let control = keyed.start().await;
    let (root, token) = control.log_in("root").await;
    for service in ["svc", "other"] {
        let path = format!("/api/policies/{service}/a");
        let put = control.change_of("PUT", &path, (&root, &token), "{}").await;
        assert_eq!(put.status, 200, "{put:?}");
    }
    for (name, may_change, may_keys) in [
        ("viewer", false, false),
        ("operator", true, false),
        ("local-admin", true, false),
        ("root", true, true),
    ] {
        let (cookie, token) = control.log_in(name).await;
        let session = (cookie.as_str(), token.as_str());
        let page = control.page_of("/ui/services/svc/a", &cookie).await;
        assert_eq!(page.status, 200);
        assert_eq!(page.body.contains("Set the policy …"), may_change, "{name}");
        assert!(!page.body.contains("Your name"), "{name}: he is known");
        let put = control
            .change_of("PUT", "/api/policies/svc/a", session, "{}")
            .await;
        assert_eq!(put.status == 200, may_change, "{name}: {put:?}");
        let keys = control
            .send("GET", "/api/api-keys", &[("Cookie", &cookie)], "")
            .await;
        assert_eq!(keys.status == 200, may_keys, "{name}: {keys:?}");
        let users = control
            .send("GET", "/api/users", &[("Cookie", &cookie)], "")
            .await;
        assert_eq!(users.status == 200, may_keys, "{name}: {users:?}");
        let foreign = control.page_of("/ui/services/other", &cookie).await;
        assert_eq!(foreign.status == 200, name == "root", "{name}: {foreign:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_ends_with_its_time_and_with_each_change_of_its_user() {
    let mut keyed = Keyed::new().await;
    let admin = keyed.key(KeyRole::Admin, &["*"]).await.secret;
    keyed.user("alice", UserRole::Operator, &["*"]).await;
    let control = keyed.start().await;
    let age = async |statement: &str| {
        super::tamper_with(&keyed.database(), &[statement]).await;
    };
    let (idle, _) = control.log_in("alice").await;
    age("UPDATE sessions SET seen_at_seconds = seen_at_seconds - 8 * 3600").await;
    is_over(&control, &idle).await;
    let (old, _) = control.log_in("alice").await;
    age("UPDATE sessions SET began_at_seconds = began_at_seconds - 24 * 3600").await;
    is_over(&control, &old).await;
    let (used, _) = control.log_in("alice").await;
    age("UPDATE sessions SET seen_at_seconds = seen_at_seconds - 8 * 3600 + 60").await;
    assert_eq!(control.page_of("/", &used).await.status, 200);
    age("UPDATE sessions SET seen_at_seconds = seen_at_seconds - 120").await;
    assert_eq!(
        control.page_of("/", &used).await.status,
        200,
        "it was used since"
    );

    let change = |change: UserChange| {
        let body = serde_json::to_string(&change).unwrap();
        let (control, admin) = (&control, &admin);
        async move {
            let done = control
                .with(Some(admin), "PUT", "/api/users/alice", &body)
                .await;
            assert_eq!(done.status, 204, "{done:?}");
        }
    };
    let (before, _) = control.log_in("alice").await;
    change(UserChange {
        role: Some(UserRole::Viewer),
        services: Some(vec!["svc".into()]),
        ..Default::default()
    })
    .await;
    is_over(&control, &before).await;
    is_over(&control, &used).await;
    let (before, _) = control.log_in("alice").await;
    change(UserChange {
        password: Some("another horse battery".into()),
        ..Default::default()
    })
    .await;
    is_over(&control, &before).await;
    let old_password = control.try_log_in("alice", PASSWORD, &[]).await;
    assert_eq!(old_password.status, 401, "{old_password:?}");
    let changes = async || {
        let trail = control.with(Some(&admin), "GET", "/api/audit?limit=100", "");
        trail.await.body.matches("user_changed").count()
    };
    let changed = changes().await;
    change(UserChange {
        role: Some(UserRole::Operator),
        services: Some(vec!["svc".into()]),
        password: Some(PASSWORD.into()),
        ..Default::default()
    })
    .await;
    assert_eq!(changes().await, changed + 1, "both are one change");
    let (before, _) = control.log_in("alice").await;
    let removed = control
        .with(Some(&admin), "DELETE", "/api/users/alice", "")
        .await;
    assert_eq!(removed.status, 204, "{removed:?}");
    is_over(&control, &before).await;
    let trail = control
        .with(Some(&admin), "GET", "/api/audit?limit=100", "")
        .await
        .body;
    for words in ["user_created", "user_changed", "user_removed", "logged_in"] {
        assert!(trail.contains(words), "{words}: {trail}");
    }
    assert!(
        !trail.contains("horse") && !trail.contains("argon2"),
        "{trail}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_tried_five_times_a_minute_whoever_says_he_is_somebody_else() {
    let mut keyed = Keyed::new().await;
    keyed.user("alice", UserRole::Viewer, &["*"]).await;
    let control = keyed.start().await;
    let mut statuses = Vec::new();
    for number in 0..7 {
        let spoofed = format!("203.0.113.{number}");
        let name = match number {
            0..3 => "alice",
            _ => "nobody-of-this-name",
        };
        let tried = control
            .try_log_in(
                name,
                "wrong horse battery",
                &[("X-Forwarded-For", &spoofed)],
            )
            .await;
        assert!(tried.body.contains("role=\"alert\"") && !tried.body.contains("wrong horse"));
        statuses.push(tried.status);
    }
    assert_eq!(statuses, [401, 401, 401, 401, 401, 429, 429]);
    let right = control.try_log_in("alice", PASSWORD, &[]).await;
    assert_eq!(right.status, 429, "{right:?}");
    let after: u64 = right.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=13).contains(&after), "{after}");
    let trail = keyed.key(KeyRole::Read, &["*"]).await.secret;
    let trail = control
        .with(Some(&trail), "GET", "/api/audit", "")
        .await
        .body;
    assert!(
        trail.contains("user nobody-of-this-name") && trail.contains("POST /ui/login"),
        "{trail}"
    );
    assert!(!trail.contains("horse"), "{trail}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_proxy_clients_are_told_apart_and_an_account_is_one_all_the_same() {
    let mut keyed = Keyed::new().await;
    keyed.user("alice", UserRole::Viewer, &["*"]).await;
    keyed.user("bob", UserRole::Viewer, &["*"]).await;
    let control = keyed
        .start_with(|settings| settings.trusted_proxies.push("127.0.0.1".into()))
        .await;
    let from = |address: &'static str, proto: &'static str| {
        [("X-Forwarded-For", address), ("X-Forwarded-Proto", proto)]
    };
    for number in 0..6 {
        let forwarded = [
            "203.0.113.1",
            "203.0.113.2",
            "203.0.113.3",
            "203.0.113.4",
            "203.0.113.5",
            "203.0.113.6",
        ];
        let tried = control
            .try_log_in(
                "alice",
                "wrong horse battery",
                &from(forwarded[number], "https"),
            )
            .await;
        assert_eq!(
            tried.status,
            if number < 5 { 401 } else { 429 },
            "{tried:?}"
        );
    }
    // Others are let in, over TLS alone.
    let clear = control
        .try_log_in("bob", PASSWORD, &from("203.0.113.7", "http"))
        .await;
    assert_eq!(clear.status, 403, "{clear:?}");
    assert!(clear.header("set-cookie").is_none() && clear.body.contains("TLS"));
    assert!(clear.header("strict-transport-security").is_none());
    let sealed = control
        .try_log_in("bob", PASSWORD, &from("203.0.113.7", "https"))
        .await;
    assert_eq!(sealed.status, 303, "{sealed:?}");
    let cookie = sealed.header("set-cookie").unwrap();
    assert!(
        cookie.starts_with("__Host-larder=") && cookie.ends_with("; Secure"),
        "{cookie}"
    );
    assert!(sealed.header("strict-transport-security").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_form_is_taken_from_its_own_page_alone() {
    let mut keyed = Keyed::new().await;
    keyed.user("alice", UserRole::Viewer, &["*"]).await;
    let control = keyed.start().await;
    let form = format!("name=alice&password={}", PASSWORD.replace(' ', "+"));
    let origin = control.origin();
    let own: &[(&str, &str)] = &[("Origin", &origin)];
    for (what, headers, status) in [
        ("its page", own, 303),
        (
            "its page, which says nothing of itself",
            &[("Origin", "null"), ("Sec-Fetch-Site", "same-origin")][..],
            303,
        ),
        ("a program", &[][..], 403),
        (
            "another site",
            &[("Origin", "https://evil.example")][..],
            403,
        ),
        ("another port", &[("Origin", "http://127.0.0.1:1")][..], 403),
        ("a frame in a sandbox", &[("Origin", "null")][..], 403),
        (
            "the same, as browsers mark it",
            &[("Origin", "null"), ("Sec-Fetch-Site", "cross-site")][..],
            403,
        ),
    ] {
        let mut all = vec![FORM];
        all.extend(headers);
        let answer = control.send("POST", "/ui/login", &all, &form).await;
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        assert_eq!(
            answer.header("set-cookie").is_some(),
            status == 303,
            "{what}"
        );
    }
    for (form_of, body) in [
        ("application/json", r#"{"name":"alice"}"#),
        ("text/plain", form.as_str()),
        ("multipart/form-data; boundary=x", form.as_str()),
    ] {
        let headers = [("Content-Type", form_of), ("Origin", origin.as_str())];
        let answer = control.send("POST", "/ui/login", &headers, body).await;
        assert!(answer.status >= 400, "{form_of}: {answer:?}");
    }
    let long = format!("name=alice&password={}", "x".repeat(2_000));
    let headers = [FORM, ("Origin", origin.as_str())];
    let answer = control.send("POST", "/ui/login", &headers, &long).await;
    assert_eq!(answer.status, 401, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_at_the_door_keeps_no_service_waiting() {
    let mut keyed = Keyed::new().await;
    let report = keyed.key(KeyRole::Report, &["svc"]).await.secret;
    keyed.user("alice", UserRole::Viewer, &["*"]).await;
    let control = keyed
        .start_with(|settings| settings.trusted_proxies.push("127.0.0.1".into()))
        .await;
    let (port, origin) = (control.port, control.origin());
    let crowd: Vec<_> = (0..1_000_u32)
        .map(|number| {
            let origin = origin.clone();
            tokio::spawn(async move {
                let control = Running::at(port);
                let address = format!("198.51.{}.{}", number / 250, number % 250);
                let headers = [
                    FORM,
                    ("Origin", origin.as_str()),
                    ("X-Forwarded-For", &address),
                    ("X-Forwarded-Proto", "https"),
                ];
                let form = format!("name=user{number}&password=wrong+horse+battery");
                control
                    .send("POST", "/ui/login", &headers, &form)
                    .await
                    .status
            })
        })
        .collect();
    let mut slowest = std::time::Duration::ZERO;
    for _ in 0..50 {
        let began = Instant::now();
        let read = control
            .with(Some(&report), "GET", "/api/config/svc", "")
            .await;
        assert_eq!(read.status, 200);
        slowest = slowest.max(began.elapsed());
    }
    let mut statuses = std::collections::BTreeMap::new();
    for one in crowd {
        *statuses.entry(one.await.unwrap()).or_insert(0) += 1;
    }
    let sent_away = statuses.get(&503).copied().unwrap_or(0);
    assert!(sent_away > 500, "{statuses:?}");
    assert_eq!(
        sent_away + statuses.get(&401).copied().unwrap_or(0),
        1_000,
        "{statuses:?}"
    );
    assert!(slowest < std::time::Duration::from_secs(10), "{slowest:?}");
}

#[tokio::test]
async fn there_is_no_first_visitor_who_becomes_somebody() {
    let control = Running::start().await;
    let page = control.page_of("/ui/login", "").await;
    assert!(page.body.contains("larder user create") && !page.body.contains("type=\"password\""));
    let tried = control.try_log_in("admin", "admin admin admin", &[]).await;
    assert_eq!(tried.status, 401, "{tried:?}");
    for new in [
        json!({"name": "a", "role": "admin", "services": ["*"], "password": "short"}),
        json!({"name": "../a", "role": "admin", "services": ["*"], "password": PASSWORD}),
        json!({"name": "", "role": "admin", "services": ["*"], "password": PASSWORD}),
        json!({"name": "a", "role": "root", "services": ["*"], "password": PASSWORD}),
        json!({"name": "a", "role": "admin", "services": [], "password": PASSWORD}),
        json!({"name": "a", "role": "admin", "services": ["*"], "password": "x".repeat(1_025)}),
    ] {
        control
            .post("/api/users", &new.to_string())
            .await
            .is_problem(422);
    }
    // Who is on this machine may make one, and is then asked who he is.
    let new = json!({"name": "alice", "role": "admin", "services": ["*"], "password": PASSWORD});
    assert_eq!(
        control.post("/api/users", &new.to_string()).await.status,
        201
    );
    control
        .post("/api/users", &new.to_string())
        .await
        .is_problem(401);
    control.log_in("alice").await;
}

also_over_postgres!(
    a_change_comes_from_a_page_of_the_session_or_not_at_all,
    each_role_does_what_it_may_and_is_shown_no_more,
    a_password_is_tried_five_times_a_minute_whoever_says_he_is_somebody_else,
    behind_a_proxy_clients_are_told_apart_and_an_account_is_one_all_the_same,
    the_form_is_taken_from_its_own_page_alone,
    a_crowd_at_the_door_keeps_no_service_waiting,
    there_is_no_first_visitor_who_becomes_somebody,
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_are_none_are_not_looked_for_without_end() {
    let mut keyed = Keyed::new().await;
    keyed.user("alice", UserRole::Viewer, &["*"]).await;
    let control = keyed.start().await;
    let (mut none, mut refused) = (0, 0);
    for number in 0..100 {
        let cookie = format!("larder-session={number:064x}");
        match control.page_of("/api/services", &cookie).await.status {
            303 => none += 1,
            429 => refused += 1,
            status => panic!("{status}"),
        }
    }
    assert!(none >= 60 && refused > 0, "{none} {refused}");
}
