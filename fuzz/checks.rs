//! What must hold for any bytes: checked by the fuzz targets, and by the tests for each file of the corpus.

use larder_model::{Endpoint, Key, MAX_KEY_BYTES, Pattern, QueryRule, Service, Variant};

/// A service, an endpoint and a variant's value, parted by NUL.
pub(crate) fn check_key(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    // Any text is a key or a clear error.
    let _ = Key::parse(text);
    let mut parts = text.splitn(3, '\0');
    let service =
        Service::new(parts.next().unwrap_or_default()).unwrap_or_else(|_| Service::local());
    let endpoint = parts.next().unwrap_or(text);
    let variant = match parts.next() {
        Some(value) => Variant::none().with("vary", value).unwrap_or_default(),
        None => Variant::none(),
    };
    let Ok(key) = Key::with(&service, endpoint, &QueryRule::All, &variant) else {
        return;
    };
    assert!(key.as_str().len() <= MAX_KEY_BYTES);
    assert!(key.as_str().starts_with(&format!("cache:{service}:/")));
    let allowed = |byte: u8| byte.is_ascii_graphic() && !b"*[]{}\\".contains(&byte);
    assert!(key.as_str().bytes().all(allowed), "{key}");
    let read = Key::parse(key.as_str()).expect("what Larder writes, it reads");
    assert_eq!(read.parts(), key.parts());
    let parts = key.parts();
    assert_eq!(parts.cut, key.as_str().contains('~'));
    if !parts.cut {
        rebuild(&service, &key, &variant);
    }
}

/// The parts of a key make the same key again.
fn rebuild(service: &Service, key: &Key, variant: &Variant) {
    let parts = key.parts();
    let endpoint = match parts.query {
        Some(query) => format!("{}?{query}", parts.path),
        None => parts.path.to_owned(),
    };
    let again =
        Key::with(service, &endpoint, &QueryRule::All, variant).expect("its own parts are fine");
    assert_eq!(again.as_str(), key.as_str());
}

/// A pattern and a key, parted by NUL; and the same bytes as an endpoint.
pub(crate) fn check_pattern(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let (pattern, key) = text.split_once('\0').unwrap_or((text, ""));
    if let Ok(endpoint) = pattern.parse::<Endpoint>() {
        let again: Endpoint = endpoint.to_string().parse().expect("what is shown is read");
        assert_eq!(again, endpoint);
    }
    for pattern in [pattern.to_owned(), format!("cache:svc:{pattern}")] {
        let Ok(pattern) = Pattern::parse(&pattern) else {
            continue;
        };
        for key in [key.to_owned(), format!("cache:svc:{key}")] {
            if pattern.matches(&key) {
                assert!(key.starts_with(pattern.literal_prefix()));
                assert!(key.starts_with(&format!("cache:{}:", pattern.service())));
            }
        }
    }
    let literal = Pattern::parse(&format!("cache:svc:{}", Pattern::escape(key)));
    if let Ok(literal) = literal {
        assert!(literal.matches(&format!("cache:svc:{key}")));
    }
}
