//! What can be set, from where it came, and what is wrong with it.

mod reading;

use std::collections::HashMap;
use std::env::VarError;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use larder_core::{SealingKeys, Secret};
use larder_redis::AfterFailover;

use crate::dotenv::{self, DotEnvError, Owner};
use crate::secret_file;
use reading::{
    read_address, read_after_failover, read_bytes, read_control_key, read_control_plane_url,
    read_journal, read_key_secret, read_l1_bytes, read_list, read_milliseconds, read_path,
    read_port, read_socket_address, shown_database,
};

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

#[cfg(test)]
mod tests;
