//! What may not be shown is not, in keys either.

use larder_model::{Key, KeySecret, QueryRule, Secret, Service, Variant};

#[test]
fn an_identity_in_a_key_is_a_keyed_hash() {
    let token = "Bearer canary-hunter2";
    let key = |secret: &str, name: &str| {
        let secret = KeySecret::new(&Secret::new(secret.to_owned()));
        let variant = Variant::none().with_hidden(name, token, &secret).unwrap();
        Key::with(&Service::local(), "/me", &QueryRule::All, &variant).unwrap()
    };
    let one = key("a secret of some length", "authorization");
    assert!(
        !one.as_str().contains("hunter2") && !one.as_str().contains("Bearer"),
        "{one}"
    );
    assert_eq!(one, key("a secret of some length", "Authorization"));
    assert_ne!(
        one,
        key("another secret of length", "authorization"),
        "without the secret nobody can try tokens"
    );
    assert_ne!(
        one.parts().variant,
        key("a secret of some length", "cookie").parts().variant
    );
}
