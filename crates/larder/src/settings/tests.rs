//! What is read, and what is refused.

use super::*;

fn settings(values: &[(&str, &str)]) -> Result<Settings, SettingsError> {
    let dir = tempfile::tempdir().unwrap();
    let find = |name: &str| {
        let found = values.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    Settings::read(find, dir.path())
}

#[test]
fn an_empty_variable_is_unset() {
    let settings = settings(&[("REDIS_URL", ""), ("CONTROL_PLANE_URL", ""), ("PORT", "")]).unwrap();
    assert!(settings.redis_url.is_none() && settings.control_plane_url.is_none());
    assert_eq!(
        (settings.port, settings.origin("PORT")),
        (3000, Origin::Default)
    );
}

#[test]
fn the_journal_lies_with_what_is_kept_on_this_machine_unless_it_is_said_where() {
    let folder = |values: &[(&str, &str)]| settings(values).unwrap().journal_folder();
    let in_dir = Some(PathBuf::from(".larder/journal"));
    assert_eq!(folder(&[]), in_dir);
    assert_eq!(folder(&[("LARDER_JOURNAL", "")]), in_dir);
    assert_eq!(folder(&[("LARDER_DIR", "/a")]), Some("/a/journal".into()));
    assert_eq!(folder(&[("LARDER_JOURNAL", "/b")]), Some("/b".into()));
    assert_eq!(folder(&[("LARDER_JOURNAL", "off")]), None);
}

#[test]
fn what_a_failover_leaves_is_dropped_unless_it_is_said_to_be_kept() {
    let read = |values: &[(&str, &str)]| settings(values).map(|read| read.after_failover);
    assert_eq!(read(&[]).unwrap(), AfterFailover::Strict);
    for (text, after_failover) in [
        ("strict", AfterFailover::Strict),
        ("keep", AfterFailover::Keep),
    ] {
        let listed = settings(&[("LARDER_AFTER_FAILOVER", text)]).unwrap();
        assert_eq!(listed.after_failover, after_failover);
        assert!(listed.list().iter().any(|setting| setting.value == text));
    }
    let error = read(&[("LARDER_AFTER_FAILOVER", "warm")]).unwrap_err();
    assert!(error.to_string().contains("use strict"), "{error}");
}

#[test]
fn sizes_are_read_with_their_units() {
    for (text, bytes) in [
        ("1048576", 1 << 20),
        ("64MiB", 64 << 20),
        ("2 GiB", 2 << 30),
        ("2g", 2 << 30),
    ] {
        assert_eq!(
            settings(&[("LARDER_MAX_BYTES", text)]).unwrap().max_bytes,
            bytes,
            "{text}"
        );
    }
    for text in [
        "-1",
        "0",
        "12",
        "1e9",
        "many",
        "99999999999999999999",
        "1.5GiB",
        "9999999TiB",
    ] {
        assert!(settings(&[("LARDER_MAX_BYTES", text)]).is_err(), "{text}");
    }
}

#[test]
fn an_error_names_the_variable_and_not_its_value() {
    let error = settings(&[("PORT", "hunter2")]).err().unwrap().to_string();
    assert!(error.starts_with("PORT (from the environment)"), "{error}");
    assert!(!error.contains("hunter2"));
}

#[test]
fn no_secret_is_listed() {
    let secret = "canary-0123456789abcdef";
    let url = format!("redis://user:{secret}@127.0.0.1:6379/0");
    let seal_key = "5ea1".repeat(16);
    let control_key = format!("lrd_0123456789abcdef_{}", "cafe".repeat(16));
    let settings = settings(&[
        ("REDIS_URL", url.as_str()),
        ("LARDER_CONTROL_KEY", &control_key),
        ("LARDER_KEY_SECRET", secret),
        ("LARDER_SEAL_KEYS", &seal_key),
        ("LARDER_AUDIT_KEY", secret),
        (
            "DATABASE_URL",
            &format!("postgres://u:{secret}@db:5433/larder?password={secret}"),
        ),
    ])
    .unwrap();
    let listed = format!("{:?}", settings.list());
    assert!(
        !listed.contains(secret) && !listed.contains(&seal_key),
        "{listed}"
    );
    assert!(!listed.contains("cafe"), "{listed}");
    assert!(listed.contains("1 set, not shown"));
    assert!(listed.contains("127.0.0.1:6379"));
    assert!(listed.contains("postgres://db:5433/larder"), "{listed}");
}

#[test]
fn the_url_of_a_database_is_shown_without_what_may_be_secret_and_is_none_of_a_services_business() {
    for (url, shown) in [
        ("postgres://u:canary@h/db", "postgres://h/db"),
        ("postgresql://u:can@ary@h/db", "postgres://h/db"),
        ("postgres://u:can/ary@h/db", "postgres://h/db"),
        ("postgres://u:can?ary@h/db", "(set, not shown)"),
        ("postgres://h/db?password=can@ary", "(set, not shown)"),
        ("mysql://u:canary@h/db", "(set, but no URL of a PostgreSQL)"),
    ] {
        let listed = settings(&[("DATABASE_URL", url)]).unwrap().list();
        let found = listed.iter().find(|one| one.name == "DATABASE_URL");
        assert_eq!(found.unwrap().value, shown);
    }
    assert!(
        settings(&[("DATABASE_URL", "")])
            .unwrap()
            .database_url
            .is_none()
    );
}

#[test]
fn a_key_of_the_environment_for_an_address_of_a_file_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let key = format!("lrd_0123456789abcdef_{}", "cafe".repeat(16));
    let warning = |file: String, of_environment: &[(&str, &str)]| {
        std::fs::write(folder.path().join(".env"), file).unwrap();
        let find = |name: &str| {
            let found = of_environment.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let settings = Settings::read(find, folder.path()).unwrap();
        settings.control_key_warning()
    };
    let url = "CONTROL_PLANE_URL=https://control.example\n".to_owned();
    let of_environment = [("LARDER_CONTROL_KEY", key.as_str())];
    let said = warning(url.clone(), &of_environment).unwrap();
    assert!(said.contains(".env") && !said.contains("cafe"), "{said}");
    let both = format!("{url}LARDER_CONTROL_KEY={key}\n");
    assert_eq!(warning(both, &[]), None);
    assert_eq!(warning(url, &[]), None);
    assert_eq!(warning(String::new(), &of_environment), None);
}

#[test]
fn what_is_no_api_key_is_an_error_that_does_not_show_it() {
    for no_key in ["hunter2-hunter2", "lrd_hunter2", &"hunter2".repeat(20)] {
        let error = settings(&[("LARDER_CONTROL_KEY", no_key)]).err().unwrap();
        let said = error.to_string();
        assert!(said.contains("larder key create"), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn seal_keys_are_keys_or_an_error_that_says_how_to_make_one() {
    let key = "0f".repeat(32);
    let both = format!("{key},{}", key.replace('0', "1"));
    let read = settings(&[("LARDER_SEAL_KEYS", &both)]).unwrap();
    assert_eq!(read.seal_keys.map(|keys| keys.len()), Some(2));
    assert!(settings(&[]).unwrap().seal_keys.is_none());
    for no_keys in [&key[1..], "hunter2", ",", &format!("{key}hunter2")] {
        let error = settings(&[("LARDER_SEAL_KEYS", no_keys)]).err().unwrap();
        let said = error.to_string();
        assert!(said.starts_with("LARDER_SEAL_KEYS (from the environment): "));
        assert!(said.contains("openssl rand -hex 32"), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn the_control_planes_url_holds_no_secret() {
    for plane in [
        "http://user:canary@h",
        "user:canary@h",
        "http://h/?token=canary",
    ] {
        let error = settings(&[("CONTROL_PLANE_URL", plane)]).err().unwrap();
        assert!(!error.to_string().contains("canary"), "{error}");
    }
}
