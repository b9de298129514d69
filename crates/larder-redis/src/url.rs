//! Where Redis is.

pub(crate) mod hosts;

use std::fmt;
use std::path::PathBuf;

use larder_model::Secret;

use hosts::Behind;

const DEFAULT_PORT: u16 = 6379;

/// Why a text is no URL of a Redis. The text itself is not shown: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is not the URL of a Redis: {0}; use redis://[user:password@]host[:port][/db], rediss://… for TLS, unix://[user:password@]/path/to/socket[?db=0], redis+sentinel://[user:password@]host:port,host:port/master-name[/db] or redis+cluster://[user:password@]host:port,host:port"
)]
pub struct UrlError(&'static str);

/// Where Redis is, and who we are there. Shown without its password.
#[derive(Clone)]
pub struct RedisUrl {
    pub(crate) address: Address,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) database: u32,
    pub(crate) behind: Behind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp { host: String, port: u16, tls: bool },
    Unix(PathBuf),
}

impl RedisUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// A [`UrlError`] that says what to write.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let (scheme, _) = text.split_once("://").ok_or(UrlError("it has no scheme"))?;
        let tls = match scheme {
            "redis" => false,
            "rediss" => true,
            "unix" | "redis+unix" => return Self::unix(text),
            "redis+sentinel" => return hosts::read("redis", false, text),
            "rediss+sentinel" => return hosts::read("rediss", false, text),
            "redis+cluster" => return hosts::read("redis", true, text),
            "rediss+cluster" => return hosts::read("rediss", true, text),
            _ => return Err(UrlError("its scheme is unknown")),
        };
        let url = parse(text)?;
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or(UrlError("it names no host"))?;
        let (user, password) = credentials(&url)?;
        let database = match url.path() {
            "" | "/" => 0,
            path => database(&path[1..])?,
        };
        if url.query().is_some() {
            return Err(UrlError("it has parameters, and knows none"));
        }
        Ok(Self {
            address: Address::Tcp {
                host: host.trim_matches(['[', ']']).to_owned(),
                port: url.port().unwrap_or(DEFAULT_PORT),
                tls,
            },
            user,
            password,
            database,
            behind: Behind::One,
        })
    }

    fn unix(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        let (who, path) = rest.split_once('/').unwrap_or_default();
        if !(who.is_empty() || who.ends_with('@')) {
            return Err(UrlError("a socket's path begins with a third slash"));
        }
        // A URL with a user needs a host.
        let url = parse(&format!("{scheme}://{who}localhost/{path}"))?;
        let path = decoded(url.path())?;
        if path.len() < 2 {
            return Err(UrlError("it names no socket"));
        }
        let mut database_number = 0;
        for (name, value) in url.query_pairs() {
            match &*name {
                "db" => database_number = database(&value)?,
                _ => return Err(UrlError("it has a parameter other than db")),
            }
        }
        let (user, password) = credentials(&url)?;
        Ok(Self {
            address: Address::Unix(path.into()),
            user,
            password,
            database: database_number,
            behind: Behind::One,
        })
    }

    /// Whether it holds a password.
    #[must_use]
    pub fn has_password(&self) -> bool {
        let of_sentinels = match &self.behind {
            Behind::Sentinels(sentinels) => sentinels.password.is_some(),
            Behind::One | Behind::Cluster(_) => false,
        };
        self.password.is_some() || of_sentinels
    }

    /// Whether it asks for TLS.
    #[must_use]
    pub fn is_secured(&self) -> bool {
        matches!(self.address, Address::Tcp { tls: true, .. })
    }
}

fn parse(text: &str) -> Result<url::Url, UrlError> {
    let url = url::Url::parse(text).map_err(|_| UrlError("it is malformed"))?;
    if url.fragment().is_some() {
        // redis-rs reads #insecure as leave to skip the check of certificates.
        return Err(UrlError(
            "it has a part behind #, and certificates are always checked",
        ));
    }
    Ok(url)
}

fn credentials(url: &url::Url) -> Result<(Option<String>, Option<Secret>), UrlError> {
    let user = decoded(url.username())?;
    let password = url.password().map(decoded).transpose()?;
    Ok((
        Some(user).filter(|user| !user.is_empty()),
        password.map(Secret::new),
    ))
}

fn decoded(text: &str) -> Result<String, UrlError> {
    let bytes: Vec<u8> = percent_decoded(text.as_bytes());
    String::from_utf8(bytes).map_err(|_| UrlError("a part of it is not UTF-8"))
}

fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let digits = text
            .get(at + 1..at + 3)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let decoded = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (text[at], decoded) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

fn database(text: &str) -> Result<u32, UrlError> {
    text.parse()
        .ok()
        .filter(|database| *database <= 1_000_000)
        .ok_or(UrlError("the database is not a number"))
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.address {
            Address::Tcp { tls: true, .. } => "rediss",
            _ => "redis",
        };
        match &self.behind {
            Behind::One => {}
            Behind::Sentinels(sentinels) => {
                write!(f, "{scheme}+sentinel://")?;
                hosts::show(f, &sentinels.hosts)?;
                let master = larder_model::escape(&sentinels.master);
                return write!(f, "/{master}/{}", self.database);
            }
            Behind::Cluster(hosts) => {
                write!(f, "{scheme}+cluster://")?;
                return hosts::show(f, hosts);
            }
        }
        match &self.address {
            Address::Tcp { host, port, .. } => {
                let host = larder_model::escape(host);
                match host.contains(':') {
                    true => write!(f, "{scheme}://[{host}]:{port}/{}", self.database),
                    false => write!(f, "{scheme}://{host}:{port}/{}", self.database),
                }
            }
            Address::Unix(path) => {
                let path = path.display().to_string();
                write!(
                    f,
                    "unix://{}?db={}",
                    larder_model::escape(&path),
                    self.database
                )
            }
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_shown_without_secrets() {
        for (text, shown) in [
            ("redis://127.0.0.1", "redis://127.0.0.1:6379/0"),
            ("redis://h:1/3", "redis://h:1/3"),
            ("rediss://user:p%40ss@h", "rediss://h:6379/0"),
            ("redis://:hunter2@[::1]:7/", "redis://[::1]:7/0"),
            ("unix:///run/redis.sock?db=2", "unix:///run/redis.sock?db=2"),
        ] {
            let url = RedisUrl::parse(text).unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), shown);
        }
        let url = RedisUrl::parse("redis://us%2Fer:p%40ss@h").unwrap();
        assert_eq!(url.user.as_deref(), Some("us/er"));
        assert_eq!(url.password.unwrap().expose(), "p@ss");
    }

    #[test]
    fn what_is_no_url_is_an_error_that_does_not_show_it() {
        for text in [
            "",
            "hunter2",
            "http://hunter2",
            "redis://",
            "redis://:hunter2@",
            "redis://h:hunter2",
            "redis://h/hunter2",
            "redis://h#insecure",
            "redis://h?password=hunter2",
            "unix://hunter2",
            "unix:///a?pass=hunter2",
        ] {
            let error = RedisUrl::parse(text).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
