//! What a server tells of itself to one who looks after it.

use std::collections::HashMap;
use std::net::IpAddr;

use bytes::Bytes;
use larder_core::StoreError;

use crate::command::{Command, Expect};
use crate::node::Node;
use crate::probe::{field, text};
use crate::resp::Value;
use crate::url::{Address, RedisUrl};

/// So many steps of a scan are made at the most, of so many keys each.
const SAMPLE_STEPS: usize = 10;
const SAMPLE_COUNT: &[u8] = b"1000";
/// What keys begin with is told up to here, in characters.
const PREFIX_CHARS: usize = 32;
/// So many beginnings are told.
const PREFIXES: usize = 5;

/// What a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// Redis, or what gives itself out as one.
    Redis,
    /// Valkey.
    Valkey,
}

/// What a user of the server may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Whether it can be logged in as.
    pub is_on: bool,
    /// Whether that takes a password.
    pub needs_password: bool,
    /// Whether all commands on all keys are allowed.
    pub is_unlimited: bool,
}

/// A look at some of the database's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// How many were looked at.
    pub keys: u64,
    /// How many of them are not Larder's.
    pub foreign: u64,
    /// What most of those begin with, up to their first `:`; as the server says it, to be escaped where it is shown.
    pub prefixes: Vec<String>,
}

/// What a server tells of itself. `None` is what it does not tell this user.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Survey {
    /// Its URL, without a password.
    pub server: String,
    /// What it is.
    pub product: Product,
    /// Its version, such as `7.2.11`.
    pub version: Option<String>,
    /// Whether it is reached by TLS.
    pub is_secured: bool,
    /// Whether it is reached without a network: by loopback or a socket file.
    pub is_local: bool,
    /// As whom we are logged in.
    pub user: String,
    /// Whether we gave a password.
    pub gave_password: bool,
    /// What that user may do.
    pub access: Option<Access>,
    /// What may be done by those who name no user.
    pub default_access: Option<Access>,
    /// `maxmemory` in bytes; 0 is no limit.
    pub max_memory: Option<u64>,
    /// `maxmemory-policy`.
    pub memory_policy: Option<String>,
    /// Whether it tells which life it is in. If not, nothing can be told of what it may have lost, and of what it has only
    /// framed entries are read, over the connection that wrote them.
    pub tells_life: bool,
    /// Some of the keys; a bounded number, whatever the database holds.
    pub sample: Option<Sample>,
}

/// Asks a server.
pub(crate) async fn take(node: &Node) -> Result<Survey, StoreError> {
    let url = node.url();
    let user = url.user.as_deref().unwrap_or("default");
    let of_user: [&[u8]; 3] = [b"ACL", b"GETUSER", user.as_bytes()];
    let of_default: [&[u8]; 3] = [b"ACL", b"GETUSER", b"default"];
    let answers = node
        .ask(&[
            Command::new(&[b"INFO", b"server"], Expect::Text),
            Command::new(&[b"INFO", b"memory"], Expect::Text),
            Command::new(&of_user, Expect::Array),
            Command::new(&of_default, Expect::Array),
        ])
        .await?;
    let answers: Vec<Value> = answers.into_iter().flatten().collect();
    let [server, memory, access, default_access] = &answers[..] else {
        return Err(StoreError::Refused("it left answers out".to_owned()));
    };
    let (server, memory) = (text(server), text(memory));
    let valkey = field(&server, "valkey_version:");
    Ok(Survey {
        server: url.to_string(),
        product: match valkey {
            Some(_) => Product::Valkey,
            None => Product::Redis,
        },
        version: valkey.or_else(|| field(&server, "redis_version:")),
        is_secured: url.is_secured(),
        is_local: is_local(url),
        user: user.to_owned(),
        gave_password: url.has_password(),
        access: read_access(access),
        default_access: read_access(default_access),
        max_memory: field(&memory, "maxmemory:").and_then(|bytes| bytes.parse().ok()),
        memory_policy: field(&memory, "maxmemory_policy:"),
        tells_life: node
            .current()
            .is_some_and(|connection| connection.life().is_told()),
        sample: sample(node).await?,
    })
}

fn is_local(url: &RedisUrl) -> bool {
    match &url.address {
        Address::Unix(_) => true,
        Address::Tcp { host, .. } => match host.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => host.eq_ignore_ascii_case("localhost"),
        },
    }
}

/// What `ACL GETUSER` answers; `None` if that may not be asked.
fn read_access(answer: &Value) -> Option<Access> {
    let Value::Array(parts) = answer else {
        return None;
    };
    let part = |name: &str| {
        let mut pairs = parts.chunks_exact(2);
        pairs.find_map(|pair| match pair {
            [Value::Text(said), value] if said == name => Some(value),
            _ => None,
        })
    };
    let Some(Value::Array(flags)) = part("flags") else {
        return None;
    };
    let has_flag = |flag: &str| {
        let is_it = |said: &Value| matches!(said, Value::Text(said) if said == flag);
        flags.iter().any(is_it)
    };
    // A text since Redis 7; before, keys are a list, and flags tell the same.
    let words = |name: &str| part(name).map(text).unwrap_or_default();
    let has_word = |name: &str, word: &str| words(name).split(' ').any(|said| said == word);
    let all_commands = has_flag("allcommands") || words("commands").trim() == "+@all";
    let all_keys = has_flag("allkeys") || has_word("keys", "~*");
    Some(Access {
        is_on: has_flag("on"),
        needs_password: !has_flag("nopass"),
        is_unlimited: all_commands && all_keys,
    })
}

/// Looks at some keys; `None` if that may not be done.
async fn sample(node: &Node) -> Result<Option<Sample>, StoreError> {
    let mut cursor = Bytes::from_static(b"0");
    let mut keys = 0;
    let mut foreign: HashMap<String, u64> = HashMap::new();
    for _ in 0..SAMPLE_STEPS {
        let scan: [&[u8]; 4] = [b"SCAN", &cursor, b"COUNT", SAMPLE_COUNT];
        let answer = node.ask_one(Command::new(&scan, Expect::Array)).await?;
        let Some(Value::Array(parts)) = answer else {
            return Ok(None);
        };
        let [Value::Text(next), Value::Array(found)] = &parts[..] else {
            return Ok(None);
        };
        for key in found {
            let Value::Text(key) = key else { continue };
            keys += 1;
            if !key.starts_with(b"cache:") && !key.starts_with(b"larder:") {
                *foreign.entry(prefix(key)).or_default() += 1;
            }
        }
        if next == "0" {
            break;
        }
        cursor = next.clone();
    }
    let mut by_count: Vec<(String, u64)> = foreign.into_iter().collect();
    by_count.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
    Ok(Some(Sample {
        keys,
        foreign: by_count.iter().map(|(_, count)| count).sum(),
        prefixes: by_count
            .into_iter()
            .map(|(prefix, _)| prefix)
            .take(PREFIXES)
            .collect(),
    }))
}

/// What a key begins with, up to its first `:`.
fn prefix(key: &[u8]) -> String {
    let end = key
        .iter()
        .position(|byte| *byte == b':')
        .map_or(key.len(), |at| at + 1);
    let text = String::from_utf8_lossy(&key[..end]);
    text.chars().take(PREFIX_CHARS).collect()
}
