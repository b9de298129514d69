//! Several servers behind one URL: a Cluster, or the Sentinels that watch over one.

use std::fmt;

use larder_model::Secret;

use super::{Address, DEFAULT_PORT, RedisUrl, UrlError, decoded, parse};

const SENTINEL_PORT: u16 = 26_379;
/// More servers than these need not be named: one that is there names the others.
const MOST_HOSTS: usize = 64;

/// A server's name or number, and its port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) port: u16,
}

/// Fit to be shown, whoever told it.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = larder_model::escape(&self.name);
        match name.contains(':') {
            true => write!(f, "[{name}]:{}", self.port),
            false => write!(f, "{name}:{}", self.port),
        }
    }
}

/// How many servers a URL means.
#[derive(Clone)]
pub(crate) enum Behind {
    /// The one that it names.
    One,
    /// The one that Sentinels name.
    Sentinels(Sentinels),
    /// All of the Cluster to which these belong.
    Cluster(Vec<Host>),
}

/// Who tells which server is the master.
#[derive(Clone)]
pub(crate) struct Sentinels {
    pub(crate) hosts: Vec<Host>,
    /// The name of what they watch over.
    pub(crate) master: String,
    /// Who we are to them.
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
}

impl RedisUrl {
    /// The server, unless it is a socket file.
    pub(crate) fn host(&self) -> Option<Host> {
        match &self.address {
            Address::Tcp { host, port, .. } => Some(Host {
                name: host.clone(),
                port: *port,
            }),
            Address::Unix(_) => None,
        }
    }

    /// The same, of one server alone.
    pub(crate) fn of_server(&self, host: &Host) -> Self {
        let tls = matches!(self.address, Address::Tcp { tls: true, .. });
        Self {
            address: Address::Tcp {
                host: host.name.clone(),
                port: host.port,
                tls,
            },
            behind: Behind::One,
            ..self.clone()
        }
    }

    /// The same, of one of its Sentinels.
    pub(crate) fn of_sentinel(&self, sentinels: &Sentinels, host: &Host) -> Self {
        Self {
            user: sentinels.user.clone(),
            password: sentinels.password.clone(),
            database: 0,
            ..self.of_server(host)
        }
    }
}

/// Reads the URL of a Cluster, or of Sentinels; `scheme` without what it says of several.
pub(super) fn read(scheme: &str, is_cluster: bool, text: &str) -> Result<RedisUrl, UrlError> {
    let (_, rest) = text.split_once("://").unwrap_or_default();
    if rest.contains('#') {
        // As with one server: nothing is behind it, least of all leave to skip the check of certificates.
        return Err(UrlError("it has a part behind #"));
    }
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (who, hosts) = match authority.rsplit_once('@') {
        Some((who, hosts)) => (format!("{who}@"), hosts),
        None => (String::new(), authority),
    };
    let default_port = if is_cluster {
        DEFAULT_PORT
    } else {
        SENTINEL_PORT
    };
    let hosts = hosts
        .split(',')
        .map(|text| host(text, default_port))
        .collect::<Result<Vec<_>, _>>()?;
    if hosts.len() > MOST_HOSTS {
        return Err(UrlError("it names more than 64 servers"));
    }
    // All the rest is said as for one server.
    let one = |database: &str, query: &str| {
        let mark = if query.is_empty() { "" } else { "?" };
        let host = &hosts[0];
        RedisUrl::parse(&format!("{scheme}://{who}{host}/{database}{mark}{query}"))
    };
    if is_cluster {
        let url = one(path, query)?;
        if url.database != 0 {
            return Err(UrlError("a Cluster has no database but 0"));
        }
        return Ok(RedisUrl {
            behind: Behind::Cluster(hosts),
            ..url
        });
    }
    let (master, database) = path.split_once('/').unwrap_or((path, ""));
    let master = decoded(master)?;
    if master.is_empty() {
        return Err(UrlError(
            "it does not say by which name the Sentinels know the master",
        ));
    }
    let mut sentinels = Sentinels {
        hosts: hosts.clone(),
        master,
        user: None,
        password: None,
    };
    let mut others = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=').unwrap_or((pair, "")) {
            ("sentinel_user", user) => sentinels.user = Some(decoded(user)?),
            ("sentinel_password", password) => {
                sentinels.password = Some(Secret::new(decoded(password)?));
            }
            _ => others.push(pair),
        }
    }
    let url = one(database, &others.join("&"))?;
    Ok(RedisUrl {
        behind: Behind::Sentinels(sentinels),
        ..url
    })
}

fn host(text: &str, default_port: u16) -> Result<Host, UrlError> {
    if text.is_empty() {
        return Err(UrlError("it names no host, or one too few"));
    }
    let url = parse(&format!("redis://{text}"))?;
    let name = url.host_str().filter(|name| !name.is_empty());
    let name = name.ok_or(UrlError("it names no host"))?;
    Ok(Host {
        name: name.trim_matches(['[', ']']).to_owned(),
        port: url.port().unwrap_or(default_port),
    })
}

/// Shows the hosts, between the scheme and the path.
pub(super) fn show(f: &mut fmt::Formatter<'_>, hosts: &[Host]) -> fmt::Result {
    for (index, host) in hosts.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(f, "{comma}{host}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_servers_are_read_and_shown_without_secrets() {
        for (text, shown) in [
            ("redis+cluster://a", "redis+cluster://a:6379"),
            (
                "rediss+cluster://us:p%40ss@a:1,[::1]:2,c/0",
                "rediss+cluster://a:1,[::1]:2,c:6379",
            ),
            (
                "redis+sentinel://a/mymaster",
                "redis+sentinel://a:26379/mymaster/0",
            ),
            (
                "rediss+sentinel://:hunter2@a:1,b:2/my%20master/3?sentinel_password=hunter2",
                "rediss+sentinel://a:1,b:2/my master/3",
            ),
        ] {
            let url = RedisUrl::parse(text).unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), shown);
        }
    }

    #[test]
    fn each_server_has_the_credentials_that_are_its() {
        let text =
            "rediss+sentinel://us:p%2Cw@a:1,b:2/m/3?sentinel_user=watch&sentinel_password=s%2Bw";
        let url = RedisUrl::parse(text).unwrap();
        let Behind::Sentinels(sentinels) = &url.behind else {
            panic!("{url}");
        };
        let told = Host {
            name: "10.0.0.7".to_owned(),
            port: 7,
        };
        let master = url.of_server(&told);
        assert_eq!(master.to_string(), "rediss://10.0.0.7:7/3");
        assert_eq!(master.user.as_deref(), Some("us"));
        assert_eq!(master.password.unwrap().expose(), "p,w");
        let sentinel = url.of_sentinel(sentinels, &sentinels.hosts[1]);
        assert_eq!(sentinel.to_string(), "rediss://b:2/0");
        assert_eq!(sentinel.user.as_deref(), Some("watch"));
        assert_eq!(sentinel.password.unwrap().expose(), "s+w");
        assert!(url.has_password());
    }

    #[test]
    fn what_is_wrong_is_an_error_that_does_not_show_it() {
        for text in [
            "redis+cluster://",
            "redis+cluster://a,",
            "redis+cluster://:hunter2@",
            "redis+cluster://a:hunter2",
            "redis+cluster://a/3",
            "redis+cluster://a#insecure",
            "redis+cluster://a?sentinel_password=hunter2",
            "redis+sentinel://a",
            "redis+sentinel://a/",
            "redis+sentinel://a/m/hunter2",
            "redis+sentinel://a/m#insecure",
            "redis+sentinel://a/m?hunter2",
            "redis+hunter2://a/m",
        ] {
            let error = RedisUrl::parse(text).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
        let many = vec!["a"; MOST_HOSTS + 1].join(",");
        assert!(RedisUrl::parse(&format!("redis+cluster://{many}")).is_err());
    }
}
