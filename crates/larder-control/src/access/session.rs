//! Sessions of the dashboard: 256 bits in a cookie, their hash in the database.

use http::{HeaderMap, HeaderValue, header};
use larder_model::Secret;
use ring::digest::{Context, SHA256};
use subtle::ConstantTimeEq as _;

use super::token::Digest;
use crate::hex;

/// After so long without a request a session is over, in seconds.
pub(crate) const IDLE: u64 = 8 * 3_600;
/// And after so long in all.
pub(crate) const AGE: u64 = 24 * 3_600;
/// When it was last used is known to so many seconds.
pub(crate) const SEEN: u64 = 60;
/// A user has no more at once: the oldest ends.
pub(crate) const MOST: u64 = 20;

/// Browsers take it only over TLS, for this host and path, and no page of another name or port can set it.
const SEALED: &str = "__Host-larder";
/// In clear, on this machine: browsers differ in whether they take the other one there.
const IN_CLEAR: &str = "larder-session";

/// The secret of a session.
#[derive(Clone)]
pub(crate) struct Ticket(Secret);

/// A session that is begun.
#[derive(Clone)]
pub(crate) struct StoredSession {
    pub(crate) digest: Digest,
    pub(crate) user: String,
    /// [`super::user::StoredUser::changed`], as it was.
    pub(crate) user_changed: u64,
    pub(crate) began_at: u64,
}

impl Ticket {
    /// A new one.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub(crate) fn make() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        Ok(Self(Secret::new(hex::encode(&bytes))))
    }

    /// That of a request's cookie.
    pub(crate) fn of(headers: &HeaderMap, is_sealed: bool) -> Option<Self> {
        let cookies = headers.get_all(header::COOKIE).iter();
        let cookies = cookies.filter_map(|cookies| cookies.to_str().ok());
        let mut cookies = cookies.flat_map(|cookies| cookies.split(';'));
        let value = cookies.find_map(|cookie| {
            let (name, value) = cookie.trim().split_once('=')?;
            (name == name_of(is_sealed)).then_some(value)
        })?;
        let is_ticket = hex::decode::<32>(value).is_some();
        is_ticket.then(|| Self(Secret::new(value.to_ascii_lowercase())))
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::of(self.0.expose())
    }

    /// What a page of this session says with each change, and no other page knows.
    pub(crate) fn token(&self) -> String {
        let mut context = Context::new(&SHA256);
        context.update(b"larder: a page of this session\0");
        context.update(self.0.expose().as_bytes());
        hex::encode(context.finish().as_ref())
    }

    /// Whether a page said it.
    pub(crate) fn is_told(&self, said: &str) -> bool {
        self.token().as_bytes().ct_eq(said.as_bytes()).into()
    }

    /// The header that gives it to a browser.
    pub(crate) fn cookie(&self, is_sealed: bool) -> Option<HeaderValue> {
        cookie(self.0.expose(), is_sealed, AGE)
    }
}

/// The header that takes it from a browser.
pub(crate) fn no_cookie(is_sealed: bool) -> Option<HeaderValue> {
    cookie("", is_sealed, 0)
}

fn name_of(is_sealed: bool) -> &'static str {
    match is_sealed {
        true => SEALED,
        false => IN_CLEAR,
    }
}

fn cookie(value: &str, is_sealed: bool, age: u64) -> Option<HeaderValue> {
    let name = name_of(is_sealed);
    let secure = match is_sealed {
        true => "; Secure",
        false => "",
    };
    let text = Secret::new(format!(
        "{name}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict{secure}"
    ));
    let mut header = HeaderValue::from_str(text.expose()).ok()?;
    header.set_sensitive(true);
    Some(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(cookies: &str, is_sealed: bool) -> Option<Ticket> {
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, cookies.parse().unwrap());
        Ticket::of(&headers, is_sealed)
    }

    #[test]
    fn what_a_browser_is_given_it_gives_back() {
        for is_sealed in [true, false] {
            let ticket = Ticket::make().unwrap();
            let given = ticket.cookie(is_sealed).unwrap();
            let given = given.to_str().unwrap();
            let (pair, rules) = given.split_once(';').unwrap();
            for rule in ["Path=/", "HttpOnly", "SameSite=Strict", "Max-Age=86400"] {
                assert!(rules.contains(rule), "{rules}");
            }
            assert_eq!(given.starts_with("__Host-"), is_sealed);
            assert_eq!(rules.contains("Secure"), is_sealed);
            assert!(!rules.contains("Domain"));
            let back = of(&format!("a=b; {pair}; c=d"), is_sealed).unwrap();
            assert!(back.digest().is(ticket.digest()));
            assert!(back.is_told(&ticket.token()));
            let other = Ticket::make().unwrap();
            assert!(!back.is_told(&other.token()) && !back.is_told(""));
            assert!(of(pair, !is_sealed).is_none(), "the one of the other kind");
        }
        for none in [
            "",
            "larder-session=",
            "larder-session=abc",
            "larder-session",
        ] {
            assert!(of(none, false).is_none(), "{none}");
        }
    }
}
