//! Keys: injective, readable back, bounded, never outside their service (SECURITY SF-1).

use larder_model::{Key, KeyError, MAX_KEY_BYTES, Method, QueryRule, Service, Variant};
use proptest::prelude::*;

use crate::fuzz_checks::check_key;

/// Text with what is confusable in it.
fn odd_text() -> impl Strategy<Value = String> {
    let letters =
        prop::sample::select("aA1/?&=;+%~#*[]{}\\:.é\u{1}\n ".chars().collect::<Vec<_>>());
    prop::collection::vec(letters, 0..24).prop_map(|letters| letters.into_iter().collect())
}

/// Each byte, and whether it is (or must be) encoded.
type Meaning = Vec<(u8, bool)>;

/// What a path or a query means, by an implementation as plain as can be: each byte, and whether it was encoded and is
/// reserved.
fn meaning(text: &str) -> Option<Meaning> {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] != b'%' {
            let must_encode =
                bytes[at] <= b' ' || bytes[at] >= 0x7f || b"*[]{}#\\".contains(&bytes[at]);
            out.push((bytes[at], must_encode));
            at += 1;
            continue;
        }
        let byte = u8::from_str_radix(text.get(at + 1..at + 3)?, 16).ok()?;
        let is_unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        out.push((byte, !is_unreserved));
        at += 3;
    }
    Some(out)
}

fn endpoint_meaning(endpoint: &str) -> Option<(Meaning, Option<Vec<Meaning>>)> {
    let (path, query) = match endpoint.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (endpoint, None),
    };
    let path = meaning(&format!("/{}", path.strip_prefix('/').unwrap_or(path)))?;
    let query = match query {
        None => None,
        Some(query) => {
            let mut parameters = query.split('&').map(meaning).collect::<Option<Vec<_>>>()?;
            let name = |parameter: &Meaning| -> Meaning {
                parameter
                    .iter()
                    .copied()
                    .take_while(|byte| *byte != (b'=', false))
                    .collect()
            };
            parameters.sort_by_key(name);
            Some(parameters)
        }
    };
    Some((path, query))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn any_text_is_a_key_that_is_read_back_or_an_error(text in odd_text(), value in odd_text()) {
        check_key(format!("svc\0{text}\0{value}").as_bytes());
        check_key(text.as_bytes());
    }

    #[test]
    fn two_endpoints_share_a_key_only_if_they_mean_the_same(one in odd_text(), other in odd_text()) {
        if let (Ok(a), Ok(b)) = (Key::new("svc", &one), Key::new("svc", &other)) {
            prop_assert_eq!(a == b, endpoint_meaning(&one) == endpoint_meaning(&other), "{} {}", one, other);
        }
    }

    #[test]
    fn a_neighbour_has_another_key_unless_it_means_the_same(text in odd_text(), at in 0_usize..24, with in odd_text()) {
        let begin = text.char_indices().nth(at).map_or(text.len(), |(begin, _)| begin);
        let neighbour = format!("{}{}{}", &text[..begin], &with[..with.chars().next().map_or(0, char::len_utf8)], &text[begin..]);
        if let (Ok(a), Ok(b)) = (Key::new("svc", &text), Key::new("svc", &neighbour)) {
            prop_assert_eq!(a == b, endpoint_meaning(&text) == endpoint_meaning(&neighbour), "{} {}", text, neighbour);
        }
    }

    #[test]
    fn variants_are_apart(one in odd_text(), other in odd_text(), name in "[a-c]{1,2}") {
        let key = |value: &str| {
            let variant = Variant::none().with(&name, value).unwrap();
            Key::with(&Service::local(), "/p", &QueryRule::All, &variant).unwrap()
        };
        prop_assert_eq!(key(&one) == key(&other), one == other);
    }

    #[test]
    fn long_keys_are_cut_and_apart(tail in "[a-zé*]{1,20}", other in "[a-zé*]{1,20}", length in 900_usize..1_200) {
        let key = |tail: &str| Key::new("svc", &format!("/{}{tail}", "y".repeat(length))).unwrap();
        let (a, b) = (key(&tail), key(&other));
        prop_assert!(a.as_str().len() <= MAX_KEY_BYTES);
        prop_assert_eq!(a == b, tail == other);
        let parsed = Key::parse(a.as_str()).unwrap();
        prop_assert_eq!(parsed.parts(), a.parts());
    }
}

/// An endpoint and a variant around the length from which a key is cut, wherever the cut may fall.
fn around_the_cut() -> impl Iterator<Item = (String, Variant)> {
    let variant = |name: &str, value: &str| Variant::none().with(name, value).unwrap();
    (900..1_100).flat_map(move |length| {
        let long = "y".repeat(length);
        [
            (format!("/{long}"), Variant::none()),
            (format!("/{long}/z"), variant("accept", "json")),
            (format!("/p?q={long}"), Variant::none()),
            (format!("/p?q={long}&r=%C3%A9"), variant("zone", "a")),
            ("/p".to_owned(), variant("accept", &long)),
            (
                "/p?q=1".to_owned(),
                variant("zone", &"é".repeat(length / 6)),
            ),
        ]
    })
}

#[test]
fn a_cut_key_keeps_its_method() {
    for name in ["GET", "HEAD", "POST", "HEADX", "A-METHOD-OF-SIXTE"] {
        let method = Method::new(&name[..name.len().min(16)]).unwrap();
        for (endpoint, variant) in around_the_cut() {
            let variant = variant.with_method(&method);
            let key = Key::with(&Service::local(), &endpoint, &QueryRule::All, &variant).unwrap();
            assert!(key.as_str().len() <= MAX_KEY_BYTES, "{key}");
            assert_eq!(key.method(), method.as_str(), "{key}");
            let parsed = Key::parse(key.as_str()).unwrap();
            assert_eq!(parsed.parts(), key.parts());
        }
    }
}

#[test]
fn a_key_tells_whether_its_path_is_whole() {
    for method in ["GET", "HEAD"].map(|name| Method::new(name).unwrap()) {
        for (endpoint, variant) in around_the_cut() {
            let variant = variant.with_method(&method);
            let key = Key::with(&Service::local(), &endpoint, &QueryRule::All, &variant).unwrap();
            let path = endpoint.split('?').next().unwrap();
            if key.path() != path {
                assert!(!key.is_path_whole(), "{key}");
            } else if path == "/p" {
                assert!(key.is_path_whole(), "{key}");
            }
        }
    }
    assert!(Key::new("svc", "/p?q=1").unwrap().is_path_whole());
}

#[test]
fn the_last_method_that_is_named_counts() {
    let [post, put] = ["POST", "PUT"].map(|name| Method::new(name).unwrap());
    let key =
        |variant: &Variant| Key::with(&Service::local(), "/p", &QueryRule::All, variant).unwrap();
    let variant = Variant::none().with_method(&post).with_method(&put);
    assert_eq!(key(&variant).as_str(), "cache:local:/p#method=PUT");
    assert_eq!(key(&variant.with_method(&Method::get())).method(), "GET");
}

#[test]
fn a_cut_can_not_be_forged() {
    let long = Key::new("svc", &format!("/{}", "x".repeat(2_000))).unwrap();
    let forged = &long.as_str()["cache:svc:".len()..];
    let key = Key::new("svc", forged).unwrap();
    assert_ne!(key, long);
    let short = Key::new("svc", &format!("/a~{}", "0".repeat(32))).unwrap();
    assert!(short.as_str().starts_with("cache:svc:/a%7E") && !short.parts().cut);
}

#[test]
fn an_endpoint_of_ten_kib_is_an_error() {
    let error = Key::new("svc", &format!("/{}", "x".repeat(10 << 10))).unwrap_err();
    assert!(matches!(error, KeyError::EndpointTooLong(_)));
    assert!(error.to_string().contains("shorten"), "{error}");
}

#[test]
fn only_the_parameters_of_the_rule_are_in_the_key() {
    let rule = QueryRule::Only(vec!["page".into(), "q".into()]);
    let key = |endpoint: &str| {
        let key = Key::with(&Service::local(), endpoint, &rule, &Variant::none()).unwrap();
        key.as_str().to_owned()
    };
    assert_eq!(
        key("/p?utm=x&q=1&page=2&pages=3&%70age=4"),
        "cache:local:/p?page=2&page=4&q=1"
    );
    assert_eq!(key("/p?utm=x"), "cache:local:/p");
}

#[test]
fn larders_own_names_can_not_be_forged_in_a_variant() {
    for name in ["method", "body", "Method", "BODY"] {
        assert!(Variant::none().with(name, "POST").is_err());
    }
    let post = larder_model::Method::new("post").unwrap();
    let key =
        |variant: &Variant| Key::with(&Service::local(), "/p", &QueryRule::All, variant).unwrap();
    let real = key(&Variant::none().with_method(&post).with_body(b"{}"));
    assert_eq!(real.method(), "POST");
    let forged = key(&Variant::none().with("x", "&method=POST").unwrap());
    assert_eq!(forged.method(), "GET");
    assert_ne!(real, key(&Variant::none().with_method(&post)));
    assert_eq!(
        key(&Variant::none().with_method(&larder_model::Method::get())).as_str(),
        "cache:local:/p"
    );
}

#[test]
fn a_cut_leaves_no_dot_segment_at_the_end_of_the_path() {
    for end in [
        "/.hidden",
        "/..hidden",
        "/...",
        "/.é",
        "/..é",
        "/a..",
        "/.%2Fx",
        "/..%2Fx",
    ] {
        for length in 930..1_024 {
            for method in ["GET", "POST"].map(|name| Method::new(name).unwrap()) {
                let endpoint = format!("/{}{end}{}", "a".repeat(length), "b".repeat(200));
                let variant = Variant::none().with_method(&method);
                let key =
                    Key::with(&Service::local(), &endpoint, &QueryRule::All, &variant).unwrap();
                let parsed = Key::parse(key.as_str()).unwrap_or_else(|error| panic!("{error}"));
                assert_eq!(parsed.parts(), key.parts());
            }
        }
    }
}
