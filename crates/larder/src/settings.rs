//! What can be set, from where it came, and what is wrong with it.

use std::collections::HashMap;
use std::env::VarError;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use larder_core::{SealingKeys, Secret};
use larder_redis::AfterFailover;

use crate::dotenv::{self, DotEnvError, Owner};
use crate::secret_file;

/// The least that an embedded store may be given, in bytes: 1 MiB.
const MIN_MAX_BYTES: u64 = 1 << 20;

/// What is read from the environment.
const NAMES: [&str; 29] = [
    "LARDER_ENV_FILE",
    "REDIS_URL",
    "REDIS_TLS_CA",
    "REDIS_TLS_CERT",
    "REDIS_TLS_KEY",
    "CONTROL_PLANE_URL",
    "LARDER_CONTROL_KEY",
    "LARDER_CONTROL_KEY_FILE",
    "DATABASE_URL",
    "LARDER_AUDIT_KEY",
    "LARDER_DIR",
    "LARDER_MAX_BYTES",
    "LARDER_L1_BYTES",
    "LARDER_JOURNAL",
    "LARDER_AFTER_FAILOVER",
    "LARDER_KEY_SECRET",
    "LARDER_SEAL_KEYS",
    "LARDER_SEAL_KEYS_FILE",
    "LARDER_ALLOWED_HOSTS",
    "LARDER_TRUSTED_PROXIES",
    "PORT",
    "CONTROL_ADDRESS",
    "CONTROL_METRICS_ADDRESS",
    "CONTROL_PORT",
    "CONTROL_TLS_CA",
    "CONTROL_TLS_CERT",
    "CONTROL_TLS_KEY",
    "PRODUCTS_DB",
    "SLOW_QUERY_MS",
];

/// Why the settings can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The file `.env`, or the one that `LARDER_ENV_FILE` names, can't be used.
    #[error(transparent)]
    DotEnv(#[from] DotEnvError),
    /// A variable has a value that it can't have. The value itself is not shown: it may be a secret.
    #[error("{name} (from {origin}): {why}")]
    Value {
        /// The variable.
        name: &'static str,
        /// Where it was set.
        origin: Origin,
        /// What is wrong, and what to write instead.
        why: String,
    },
}

/// Where a setting came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The process environment.
    Environment,
    /// The command line of a program.
    CommandLine,
    /// This file.
    File(PathBuf),
    /// Nowhere: it is what holds if nothing is said.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => f.write_str("the environment"),
            Self::CommandLine => f.write_str("the command line"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Where what the store could not confirm is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum JournalSetting {
    /// In `journal` in [`Settings::dir`].
    #[default]
    InDir,
    /// In this folder.
    Folder(PathBuf),
    /// In memory alone (`off`).
    Off,
}

/// A store that a program's command line names.
pub enum ChosenStore {
    /// The server of this URL.
    Redis(Secret),
    /// The embedded one, in a folder such as `LARDER_DIR` names.
    Folder(PathBuf),
}

/// A setting, for people: a secret is not shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The variable.
    pub name: &'static str,
    /// Its value, fit to be shown.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}

/// What can be set, by the environment or by `.env` in the working directory (the environment wins; an empty
/// variable counts as unset).
#[derive(Clone)]
pub struct Settings {
    /// `REDIS_URL`: where Redis or Valkey is; unset: the embedded store.
    pub redis_url: Option<Secret>,
    /// `REDIS_TLS_CA`: a PEM file with the authorities to trust for `rediss://`; unset: the machine's.
    pub redis_tls_ca: Option<PathBuf>,
    /// `REDIS_TLS_CERT`: a PEM file with the certificate to show to a server that asks for one, its chain behind it;
    /// unset: none. Needs `REDIS_TLS_KEY`.
    pub redis_tls_cert: Option<PathBuf>,
    /// `REDIS_TLS_KEY`: a PEM file with that certificate's key.
    pub redis_tls_key: Option<PathBuf>,
    /// `CONTROL_PLANE_URL`: where the control plane is; unset: none, the code's own policies.
    pub control_plane_url: Option<String>,
    /// `LARDER_CONTROL_KEY`, or what the file holds that `LARDER_CONTROL_KEY_FILE` names: the API key for the control plane;
    /// unset: none.
    pub control_key: Option<Secret>,
    /// `LARDER_CONTROL_KEY_FILE`: the file that it was read from.
    pub control_key_file: Option<PathBuf>,
    /// `DATABASE_URL`: the PostgreSQL in which the control plane keeps its state; unset: a SQLite file in `dir`. Programs
    /// without a control plane may have one of their own: it is looked at where the control plane is started.
    pub database_url: Option<Secret>,
    /// `LARDER_AUDIT_KEY`: the key of the control plane's audit trail; unset: the file `audit.key` in `dir`.
    pub audit_key: Option<Secret>,
    /// `LARDER_DIR`: the folder for what is kept on this machine; `.larder` in the working directory.
    pub dir: PathBuf,
    /// `LARDER_MAX_BYTES`: how much the embedded store may take on the disk, in bytes; 256 MiB.
    pub max_bytes: u64,
    /// `LARDER_L1_BYTES`: how much of the store is kept in each process too, in bytes of memory; 32 MiB; 0: nothing.
    pub l1_bytes: u64,
    /// `LARDER_JOURNAL`: where what the store could not confirm is kept; `journal` in `dir`.
    pub journal: JournalSetting,
    /// `LARDER_AFTER_FAILOVER`: what becomes of entries that a Redis took before it was restarted, or before another one took
    /// over; `strict`: they are misses.
    pub after_failover: AfterFailover,
    /// `LARDER_KEY_SECRET`: hides identities in keys; unset: routes that need it say so at start.
    pub key_secret: Option<Secret>,
    /// `LARDER_SEAL_KEYS`, or what the file holds that `LARDER_SEAL_KEYS_FILE` names: seals entries, so that who can read or
    /// write the store can't read or change them; unset: nothing is sealed.
    pub seal_keys: Option<SealingKeys>,
    /// `LARDER_SEAL_KEYS_FILE`: the file that they were read from.
    pub seal_keys_file: Option<PathBuf>,
    /// `LARDER_ALLOWED_HOSTS`: names by which the control plane may be reached, besides this machine's own.
    pub allowed_hosts: Vec<String>,
    /// `LARDER_TRUSTED_PROXIES`: proxies of which the control plane believes whom they ask for.
    pub trusted_proxies: Vec<String>,
    /// `PORT`: where the service listens; 3000.
    pub port: u16,
    /// `CONTROL_ADDRESS`: the address at which the control plane listens; 127.0.0.1.
    pub control_address: IpAddr,
    /// `CONTROL_PORT`: where the control plane listens; 8000.
    pub control_port: u16,
    /// `CONTROL_METRICS_ADDRESS`: where the control plane answers `/metrics` and probes besides, without a key; unset: nowhere.
    pub control_metrics: Option<SocketAddr>,
    /// `CONTROL_TLS_CA`: a PEM file with the authorities to trust for an `https:` [`Settings::control_plane_url`]; unset: the
    /// machine's.
    pub control_tls_ca: Option<PathBuf>,
    /// `CONTROL_TLS_CERT`: a PEM file with the certificate that the control plane shows, its chain behind it; unset: it speaks plain
    /// HTTP. Needs `CONTROL_TLS_KEY`.
    pub control_tls_cert: Option<PathBuf>,
    /// `CONTROL_TLS_KEY`: a PEM file with that certificate's key.
    pub control_tls_key: Option<PathBuf>,
    /// `PRODUCTS_DB`: the sample service's database; `products.db` in the working directory.
    pub products_db: PathBuf,
    /// `SLOW_QUERY_MS`: how slow the sample service's query is, in milliseconds; 800.
    pub slow_query_ms: u64,
    origins: HashMap<&'static str, Origin>,
}

impl Settings {
    /// Reads the process environment, then `.env` in the working directory (or the file that `LARDER_ENV_FILE`
    /// names).
    ///
    /// # Errors
    /// A [`SettingsError`] that names the variable or the file, and what to do.
    pub fn from_env() -> Result<Self, SettingsError> {
        let mut names = NAMES.iter();
        let is_no_text = |name: &&str| matches!(std::env::var(name), Err(VarError::NotUnicode(_)));
        if let Some(name) = names.find(|name| is_no_text(name)) {
            return Err(SettingsError::Value {
                name,
                origin: Origin::Environment,
                why: "is not UTF-8: write it in UTF-8, or unset it".to_owned(),
            });
        }
        Self::read(|name| std::env::var(name).ok(), Path::new(""))
    }

    /// [`Settings::from_env`] with another environment and working directory.
    ///
    /// # Errors
    /// As [`Settings::from_env`].
    pub fn read(
        environment: impl Fn(&str) -> Option<String>,
        working_directory: &Path,
    ) -> Result<Self, SettingsError> {
        let set = |name: &str| environment(name).filter(|value| !value.is_empty());
        let (path, owner) = match set("LARDER_ENV_FILE") {
            Some(path) => (working_directory.join(path), Owner::Anyone),
            None => (working_directory.join(".env"), Owner::Ourselves),
        };
        let mut source = Source {
            file: dotenv::read(&path, owner)?,
            environment: &set,
            path,
            origins: HashMap::new(),
        };
        let control_key_file = source.parsed("LARDER_CONTROL_KEY_FILE", read_path)?;
        let control_key = source.secret(
            ["LARDER_CONTROL_KEY", "LARDER_CONTROL_KEY_FILE"],
            control_key_file.as_deref(),
            working_directory,
            read_control_key,
        )?;
        let seal_keys_file = source.parsed("LARDER_SEAL_KEYS_FILE", read_path)?;
        let seal_keys = source.secret(
            ["LARDER_SEAL_KEYS", "LARDER_SEAL_KEYS_FILE"],
            seal_keys_file.as_deref(),
            working_directory,
            |text| SealingKeys::parse(text).map_err(|error| error.to_string()),
        )?;
        Ok(Self {
            redis_url: source.text("REDIS_URL").map(Secret::new),
            redis_tls_ca: source.parsed("REDIS_TLS_CA", read_path)?,
            redis_tls_cert: source.parsed("REDIS_TLS_CERT", read_path)?,
            redis_tls_key: source.parsed("REDIS_TLS_KEY", read_path)?,
            control_plane_url: source.parsed("CONTROL_PLANE_URL", read_control_plane_url)?,
            control_key,
            control_key_file,
            database_url: source.text("DATABASE_URL").map(Secret::new),
            audit_key: source.text("LARDER_AUDIT_KEY").map(Secret::new),
            dir: source
                .parsed("LARDER_DIR", read_path)?
                .unwrap_or_else(|| ".larder".into()),
            max_bytes: source
                .parsed("LARDER_MAX_BYTES", read_bytes)?
                .unwrap_or(256 << 20),
            l1_bytes: source
                .parsed("LARDER_L1_BYTES", read_l1_bytes)?
                .unwrap_or(larder_core::L1_BYTES),
            journal: source
                .parsed("LARDER_JOURNAL", read_journal)?
                .unwrap_or_default(),
            after_failover: source
                .parsed("LARDER_AFTER_FAILOVER", read_after_failover)?
                .unwrap_or_default(),
            key_secret: source.parsed("LARDER_KEY_SECRET", read_key_secret)?,
            seal_keys,
            seal_keys_file,
            allowed_hosts: source
                .parsed("LARDER_ALLOWED_HOSTS", read_list)?
                .unwrap_or_default(),
            trusted_proxies: source
                .parsed("LARDER_TRUSTED_PROXIES", read_list)?
                .unwrap_or_default(),
            port: source.parsed("PORT", read_port)?.unwrap_or(3000),
            control_address: source
                .parsed("CONTROL_ADDRESS", read_address)?
                .unwrap_or(Ipv4Addr::LOCALHOST.into()),
            control_port: source.parsed("CONTROL_PORT", read_port)?.unwrap_or(8000),
            control_metrics: source.parsed("CONTROL_METRICS_ADDRESS", read_socket_address)?,
            control_tls_ca: source.parsed("CONTROL_TLS_CA", read_path)?,
            control_tls_cert: source.parsed("CONTROL_TLS_CERT", read_path)?,
            control_tls_key: source.parsed("CONTROL_TLS_KEY", read_path)?,
            products_db: source
                .parsed("PRODUCTS_DB", read_path)?
                .unwrap_or_else(|| "products.db".into()),
            slow_query_ms: source
                .parsed("SLOW_QUERY_MS", read_milliseconds)?
                .unwrap_or(800),
            origins: source.origins,
        })
    }

    /// All settings, for people: secrets are not shown.
    #[must_use]
    pub fn list(&self) -> Vec<Setting> {
        let redis_url = self.redis_url.as_ref().map(|url| {
            larder_redis::RedisUrl::parse(url.expose()).map_or_else(
                |_| "(set, but no URL of a Redis)".to_owned(),
                |url| url.to_string(),
            )
        });
        let hidden = |secret: &Option<Secret>| {
            let hidden = secret.as_ref().map(|_| "(set, not shown)".to_owned());
            hidden.unwrap_or_else(|| "(unset)".to_owned())
        };
        let database_url = self.database_url.as_ref().map(shown_database);
        // Those of a file stand there.
        let control_key = match (&self.control_key, &self.control_key_file) {
            (Some(_), None) => Some("(set, not shown)".to_owned()),
            _ => None,
        };
        let seal_keys = match (&self.seal_keys, &self.seal_keys_file) {
            (Some(keys), None) => Some(format!("({} set, not shown)", keys.len())),
            _ => None,
        };
        let journal = self
            .journal_folder()
            .map_or_else(|| "off".to_owned(), |folder| folder.display().to_string());
        let unset = |value: Option<String>| value.unwrap_or_else(|| "(unset)".to_owned());
        let path =
            |path: &Option<PathBuf>| unset(path.as_ref().map(|path| path.display().to_string()));
        let values = [
            ("REDIS_URL", unset(redis_url)),
            ("REDIS_TLS_CA", path(&self.redis_tls_ca)),
            ("REDIS_TLS_CERT", path(&self.redis_tls_cert)),
            ("REDIS_TLS_KEY", path(&self.redis_tls_key)),
            ("CONTROL_PLANE_URL", unset(self.control_plane_url.clone())),
            ("LARDER_CONTROL_KEY", unset(control_key)),
            ("LARDER_CONTROL_KEY_FILE", path(&self.control_key_file)),
            ("DATABASE_URL", unset(database_url)),
            ("LARDER_AUDIT_KEY", hidden(&self.audit_key)),
            ("LARDER_DIR", self.dir.display().to_string()),
            ("LARDER_MAX_BYTES", self.max_bytes.to_string()),
            ("LARDER_L1_BYTES", self.l1_bytes.to_string()),
            ("LARDER_JOURNAL", journal),
            (
                "LARDER_AFTER_FAILOVER",
                match self.after_failover {
                    AfterFailover::Strict => "strict",
                    AfterFailover::Keep => "keep",
                }
                .to_owned(),
            ),
            ("LARDER_KEY_SECRET", hidden(&self.key_secret)),
            ("LARDER_SEAL_KEYS", unset(seal_keys)),
            ("LARDER_SEAL_KEYS_FILE", path(&self.seal_keys_file)),
            (
                "LARDER_ALLOWED_HOSTS",
                unset(Some(self.allowed_hosts.join(",")).filter(|hosts| !hosts.is_empty())),
            ),
            (
                "LARDER_TRUSTED_PROXIES",
                unset(Some(self.trusted_proxies.join(",")).filter(|all| !all.is_empty())),
            ),
            ("PORT", self.port.to_string()),
            ("CONTROL_ADDRESS", self.control_address.to_string()),
            ("CONTROL_PORT", self.control_port.to_string()),
            (
                "CONTROL_METRICS_ADDRESS",
                unset(self.control_metrics.map(|address| address.to_string())),
            ),
            ("CONTROL_TLS_CA", path(&self.control_tls_ca)),
            ("CONTROL_TLS_CERT", path(&self.control_tls_cert)),
            ("CONTROL_TLS_KEY", path(&self.control_tls_key)),
            ("PRODUCTS_DB", self.products_db.display().to_string()),
            ("SLOW_QUERY_MS", self.slow_query_ms.to_string()),
        ];
        values
            .into_iter()
            .map(|(name, value)| Setting {
                name,
                value,
                origin: self.origin(name),
            })
            .collect()
    }

    /// Takes what a program's command line says of the store in place of `REDIS_URL` and `LARDER_DIR`.
    pub fn choose_store(&mut self, store: ChosenStore) {
        let name = match store {
            ChosenStore::Redis(url) => {
                self.redis_url = Some(url);
                "REDIS_URL"
            }
            ChosenStore::Folder(folder) => {
                self.redis_url = None;
                self.origins.remove("REDIS_URL");
                self.dir = folder;
                "LARDER_DIR"
            }
        };
        self.origins.insert(name, Origin::CommandLine);
    }

    /// The folder of the journal; `None` if none is kept.
    #[must_use]
    pub fn journal_folder(&self) -> Option<PathBuf> {
        match &self.journal {
            JournalSetting::InDir => Some(self.dir.join("journal")),
            JournalSetting::Folder(folder) => Some(folder.clone()),
            JournalSetting::Off => None,
        }
    }

    /// Where a variable's value came from.
    #[must_use]
    pub fn origin(&self, name: &str) -> Origin {
        self.origins.get(name).cloned().unwrap_or(Origin::Default)
    }

    /// What is to be warned of: an API key of the environment that is sent where a file says.
    #[must_use]
    pub fn control_key_warning(&self) -> Option<String> {
        let names = ["LARDER_CONTROL_KEY", "LARDER_CONTROL_KEY_FILE"];
        let is_of_environment = names
            .iter()
            .any(|name| self.origin(name) == Origin::Environment);
        match self.origin("CONTROL_PLANE_URL") {
            Origin::File(path) if is_of_environment => Some(format!(
                "the API key comes from the environment, and CONTROL_PLANE_URL, to which it is sent, from {}: who can write that file gets the key",
                path.display()
            )),
            _ => None,
        }
    }

    /// An error about the value of a variable.
    #[must_use]
    pub fn error(&self, name: &'static str, why: String) -> SettingsError {
        SettingsError::Value {
            name,
            origin: self.origin(name),
            why,
        }
    }
}

/// The environment first, then the file; and which of them it was.
struct Source<'a> {
    environment: &'a dyn Fn(&str) -> Option<String>,
    file: HashMap<String, String>,
    path: PathBuf,
    origins: HashMap<&'static str, Origin>,
}

impl Source<'_> {
    fn text(&mut self, name: &'static str) -> Option<String> {
        let (value, origin) = match (self.environment)(name) {
            Some(value) => (value, Origin::Environment),
            None => {
                let value = self.file.remove(name).filter(|value| !value.is_empty())?;
                (value, Origin::File(self.path.clone()))
            }
        };
        self.origins.insert(name, origin);
        Some(value)
    }

    fn parsed<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(String) -> Result<T, String>,
    ) -> Result<Option<T>, SettingsError> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        match read(text) {
            Ok(value) => Ok(Some(value)),
            Err(why) => Err(self.error(name, why)),
        }
    }

    /// The secret of a variable, or that of the file that another one names.
    fn secret<T>(
        &mut self,
        [name, name_of_file]: [&'static str; 2],
        file: Option<&Path>,
        working_directory: &Path,
        read: impl Fn(&Secret) -> Result<T, String>,
    ) -> Result<Option<T>, SettingsError> {
        let secret = self.parsed(name, |text| read(&Secret::new(text)))?;
        let Some(file) = file else {
            return Ok(secret);
        };
        let of_file = match secret {
            Some(_) => Err(format!("is set beside {name}: unset one of them")),
            None => secret_file::read(&working_directory.join(file))
                .and_then(|text| read(&text))
                .map_err(|why| format!("{} {why}", file.display())),
        };
        of_file
            .map(Some)
            .map_err(|why| self.error(name_of_file, why))
    }

    fn error(&self, name: &'static str, why: String) -> SettingsError {
        SettingsError::Value {
            name,
            origin: self.origins.get(name).cloned().unwrap_or(Origin::Default),
            why,
        }
    }
}

fn read_control_key(text: &Secret) -> Result<Secret, String> {
    let key = text.expose().trim();
    let is_key = key.starts_with("lrd_") && key.len() > 64;
    let is_key = is_key
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_key
        .then(|| Secret::new(key.to_owned()))
        .ok_or_else(|| "is no API key: use it as `larder key create` printed it (lrd_…)".to_owned())
}

fn read_socket_address(text: String) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "is not an address and a port: use 127.0.0.1:9100".to_owned())
}

fn read_address(text: String) -> Result<IpAddr, String> {
    text.parse().map_err(|_| {
        "is not an address: use 127.0.0.1, or with API keys that of a network, or 0.0.0.0"
            .to_owned()
    })
}

/// Without anything that could be a secret, so that it may be shown.
fn read_control_plane_url(text: String) -> Result<String, String> {
    let why = "is not the URL of a control plane: use http://host:port or https://host, without a user, a password or a query";
    let rest = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    let is_plain = rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(['@', '?', '#']));
    is_plain.then_some(text).ok_or_else(|| why.to_owned())
}

/// Without user, password and parameters.
fn shown_database(url: &Secret) -> String {
    let text = url.expose();
    let rest = text
        .strip_prefix("postgres://")
        .or_else(|| text.strip_prefix("postgresql://"));
    let Some(rest) = rest else {
        return "(set, but no URL of a PostgreSQL)".to_owned();
    };
    let (place, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    // What stands before an @ there may belong to a password that is not encoded.
    if parameters.contains('@') {
        return "(set, not shown)".to_owned();
    }
    let place = place.rsplit_once('@').map_or(place, |(_, place)| place);
    format!("postgres://{}", larder_core::escape(place))
}

fn read_path(text: String) -> Result<PathBuf, String> {
    Ok(text.into())
}

fn read_journal(text: String) -> Result<JournalSetting, String> {
    Ok(match text.as_str() {
        "off" => JournalSetting::Off,
        _ => JournalSetting::Folder(text.into()),
    })
}

fn read_after_failover(text: String) -> Result<AfterFailover, String> {
    match text.as_str() {
        "strict" => Ok(AfterFailover::Strict),
        "keep" => Ok(AfterFailover::Keep),
        _ => Err(
            "is neither: use strict (the cache begins cold, and nothing that was deleted comes back) or keep (it stays warm, and what a failover lost of deletes is back for the rest of its life)"
                .to_owned(),
        ),
    }
}

fn read_port(text: String) -> Result<u16, String> {
    text.parse()
        .map_err(|_| "is not a port: use a number from 0 to 65535 (0: any free one)".to_owned())
}

fn read_milliseconds(text: String) -> Result<u64, String> {
    text.parse()
        .ok()
        .filter(|ms| *ms <= 3_600_000)
        .ok_or_else(|| "is not a time: use whole milliseconds, at most 3600000".to_owned())
}

fn read_list(text: String) -> Result<Vec<String>, String> {
    let names = text.split(',').map(|name| name.trim().to_ascii_lowercase());
    Ok(names.filter(|name| !name.is_empty()).collect())
}

fn read_key_secret(text: String) -> Result<Secret, String> {
    if text.len() < 16 {
        return Err(
            "is shorter than 16 characters, so it could be guessed: use a long random text"
                .to_owned(),
        );
    }
    Ok(Secret::new(text))
}

fn read_l1_bytes(text: String) -> Result<u64, String> {
    match text.trim() {
        "0" => Ok(0),
        _ => read_bytes(text).map_err(|why| format!("{why}; or 0 for none")),
    }
}

fn read_bytes(text: String) -> Result<u64, String> {
    let why = || {
        "is not a size: use bytes, or a number with KiB, MiB, GiB, at least 1MiB, such as 256MiB"
            .to_owned()
    };
    let digits = text.trim_end_matches(|character: char| !character.is_ascii_digit());
    let shift = match text[digits.len()..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err(why()),
    };
    let count: u64 = digits.parse().map_err(|_| why())?;
    count
        .checked_mul(1 << shift)
        .filter(|bytes| (MIN_MAX_BYTES..=1 << 44).contains(bytes))
        .ok_or_else(why)
}

#[cfg(test)]
mod tests {
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
        let settings =
            settings(&[("REDIS_URL", ""), ("CONTROL_PLANE_URL", ""), ("PORT", "")]).unwrap();
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
    fn the_url_of_a_database_is_shown_without_what_may_be_secret_and_is_none_of_a_services_business()
     {
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
}
