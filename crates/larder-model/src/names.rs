//! The names in a policy: of query parameters, and of request headers.

use crate::percent;
use crate::policy::PolicyError;
use crate::tag::Tag;
use crate::variant::is_reserved;

/// At most this many names in `include_query` and in `vary`.
const MAX_NAMES: usize = 64;
/// At most this many tags: each is compared when an entry is read.
const MAX_TAGS: usize = 16;
/// A name in `include_query` or `vary` is at most this long, in bytes.
const MAX_NAME_BYTES: usize = 128;

/// The names in `include_query`, written as in a key: there they are compared, byte for byte.
pub(crate) fn of_parameters(names: &[String]) -> Result<Vec<String>, PolicyError> {
    of("include_query", names, |name| {
        if !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(
                "a name with a space, a control character or a character outside ASCII: write it percent-encoded",
            );
        }
        if name.contains(['&', '=', '#']) {
            return Err("a name with &, = or #: write %26, %3D or %23");
        }
        let mut normalised = String::with_capacity(name.len());
        percent::normalise(name, &mut normalised).map_err(
            |_| "a name with a % that two hexadecimal digits don't follow: write a literal % as %25",
        )?;
        Ok(normalised)
    })
}

/// The tags of a policy, each once.
pub(crate) fn of_tags(tags: &[Tag]) -> Result<Vec<Tag>, PolicyError> {
    let field = "tags";
    if tags.len() > MAX_TAGS {
        let what = "more than 16 tags";
        return Err(PolicyError::Names { field, what });
    }
    let mut once: Vec<Tag> = Vec::with_capacity(tags.len());
    for tag in tags {
        if !once.contains(tag) {
            once.push(tag.clone());
        }
    }
    Ok(once)
}

/// The names in `vary`, in lower case, each once.
pub(crate) fn of_headers(names: &[String]) -> Result<Vec<String>, PolicyError> {
    let mut names = of("vary", names, |name| {
        let name = name.to_ascii_lowercase();
        if name == "*" {
            // RFC 9111 section 4.1: no request matches it.
            return Err("*, with which no two answers are the same: set mode to off");
        }
        if !name.bytes().all(is_token) {
            return Err("a name that no header can have: use one such as accept-language");
        }
        if is_reserved(&name) {
            return Err("the name method or body, which Larder uses itself in keys");
        }
        Ok(name)
    })?;
    names.sort();
    names.dedup();
    Ok(names)
}

/// A byte of a header's name (RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What is read once can be read again: the bound on a name's length is on what it becomes.
fn of(
    field: &'static str,
    names: &[String],
    read: impl Fn(&str) -> Result<String, &'static str>,
) -> Result<Vec<String>, PolicyError> {
    let error = |what| PolicyError::Names { field, what };
    if names.len() > MAX_NAMES {
        return Err(error("more than 64 names"));
    }
    let read = |name: &String| read(name).and_then(is_of_a_length).map_err(error);
    names.iter().map(read).collect()
}

fn is_of_a_length(name: String) -> Result<String, &'static str> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        return Err("a name that is empty or longer than 128 bytes (percent-encoded)");
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Key, Policy, PolicyPatch, QueryRule, Service, Variant};

    fn include(names: &[&str]) -> Result<Policy, PolicyError> {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let patch = PolicyPatch {
            include_query: Some(QueryRule::Only(names)),
            ..PolicyPatch::default()
        };
        patch.apply(&Policy::default())
    }

    fn vary(names: &[&str]) -> Result<Policy, PolicyError> {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let patch = PolicyPatch {
            vary: Some(names),
            ..PolicyPatch::default()
        };
        patch.apply(&Policy::default())
    }

    #[test]
    fn a_parameter_is_in_the_key_however_the_policy_writes_its_name() {
        for name in [
            "ids[]",
            "ids%5B%5D",
            "ids%5b]",
            "%c3%a9",
            "%C3%A9",
            "a~b",
            "a%7Eb",
            "p%61ge",
            "a+b",
            "a%3Db",
            "a%26b",
        ] {
            let policy = include(&[name]).unwrap();
            let endpoint = format!("/p?x=1&{name}=2");
            let rule = policy.include_query();
            let key = Key::with(&Service::local(), &endpoint, rule, &Variant::none()).unwrap();
            let query = key.parts().query.unwrap_or_default();
            assert!(
                query.ends_with("=2") && !query.contains("x=1"),
                "{name}: {key}"
            );
            let again = PolicyPatch::from(&policy).apply(&Policy::default());
            assert_eq!(again, Ok(policy), "{name}");
        }
    }

    #[test]
    fn what_can_t_be_a_parameter_s_name_is_refused() {
        let (long, longer_encoded) = ("a".repeat(129), "[".repeat(43));
        for name in [
            "",
            "a b",
            "é",
            "\u{1b}",
            "a=b",
            "a&b",
            "a#b",
            "%",
            "a%zz",
            "a%4",
            &long,
            &longer_encoded,
        ] {
            assert!(include(&["page", name]).is_err(), "{name}");
        }
        assert!(include(&["a"; 65]).is_err());
        assert!(include(&[&"a".repeat(128)]).is_ok() && include(&[]).is_ok());
    }

    #[test]
    fn headers_alone_can_be_varied_by() {
        for name in [
            "*",
            "",
            "accept:language",
            "accept language",
            "accept,cookie",
            "accept/x",
            "é",
            "method",
            "Body",
            "(x)",
            "a=b",
            "x\n",
        ] {
            assert!(vary(&["accept", name]).is_err(), "{name}");
        }
        let policy = vary(&["X_Tenant.1", "Accept-Language", "accept-language"]).unwrap();
        assert_eq!(policy.vary(), ["accept-language", "x_tenant.1"]);
        let error = vary(&["*"]).unwrap_err().to_string();
        assert!(error.contains("mode to off"), "{error}");
    }
}
