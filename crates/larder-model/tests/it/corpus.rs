//! The fuzz targets' corpora, and a list of confusable endpoints.

use std::path::Path;

use larder_model::Key;

use crate::fuzz_checks::{check_key, check_pattern};

fn for_each_file(target: &str, check: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(target);
    let mut files = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        check(&std::fs::read(file.unwrap().path()).unwrap());
        files += 1;
    }
    assert!(files >= 15, "{files} files");
}

#[test]
fn every_key_of_the_corpus_holds() {
    for_each_file("key", check_key);
}

#[test]
fn every_pattern_of_the_corpus_holds() {
    for_each_file("pattern", check_pattern);
}

/// Endpoints that no two servers treat alike: each has a key of its own (SECURITY SF-1).
#[test]
fn confusable_endpoints_are_all_distinct() {
    let endpoints = [
        "/",
        "//",
        "/a",
        "/a/",
        "//a",
        "/A",
        "/a%2Fb",
        "/a/b",
        "/a%3Fb",
        "/a?b",
        "/a?b=",
        "/a?b=1",
        "/a?&b=1",
        "/a?id=1&id=2",
        "/a?id=2&id=1",
        "/a?id=1&id=1",
        "/a?id=1",
        "/a?x=1;y=2",
        "/a?x=1&y=2",
        "/a?x=1%3By=2",
        "/a?x=1%26y=2",
        "/a?q=a+b",
        "/a?q=a%20b",
        "/a?q=a%2Bb",
        "/a?",
        "/a??",
        "/a?%3F",
        "/a;v=1",
        "/a%3Bv=1",
        "/a?a%3Db",
        "/a?a=b%3D",
        "/a?A=1",
        "/a?a=1",
        "/a.css",
        "/a/.css",
        "/a%0A",
        "/a%00",
        "/a%0D%0A",
        "/a%2523",
        "/a%23",
        "/a%25",
        "/a%2525",
        "/%E9",
        "/%C3%A9",
        "/e%CC%81",
        "/a?%61=1&b",
        "/a?b&a",
        "/a,b",
        "/a%2Cb",
        "/a@b",
        "/a%40b",
        "/a:b",
        "/a%3Ab",
        "/a'b",
        "/a%27b",
        "/a!",
        "/a%21",
        "/a$",
        "/a%24",
        "/a(b)",
        "/a%28b%29",
        "/a|b",
        "/a^b",
        "/a`b",
        "/a\"b",
        "/a<b>",
        "/a~b%7E",
        "/...",
        "/a/.b",
        "/a..b",
    ];
    let mut keys = std::collections::HashMap::new();
    for endpoint in endpoints {
        let key = Key::new("svc", endpoint).unwrap();
        if let Some(other) = keys.insert(key.clone(), endpoint) {
            panic!("{endpoint} and {other} are both {key}");
        }
    }
    assert!(keys.len() >= 60);
}

/// Endpoints that every server treats alike (RFC 3986, sections 6.2.2.1 and 6.2.2.2) share one.
#[test]
fn endpoints_that_mean_the_same_share_a_key() {
    for (one, other) in [
        ("/products", "products"),
        ("/%7euser", "/~user"),
        ("/%41", "/A"),
        ("/%c3%a9", "/é"),
        ("/a%2fb", "/a%2Fb"),
        ("/a?b=2&a=1", "/a?a=1&b=2"),
        ("/a?%61=1", "/a?a=1"),
        ("/a b", "/a%20b"),
    ] {
        assert_eq!(
            Key::new("svc", one),
            Key::new("svc", other),
            "{one} {other}"
        );
    }
}
