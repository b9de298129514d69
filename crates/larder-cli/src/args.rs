//! What can be said on the command line.

mod access;
mod invalidating;
mod steering;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args as ClapArgs, Parser, Subcommand};
use larder::{ChosenStore, Key, Pattern, Secret, Service, Settings};

use crate::replay::Include;
pub(crate) use access::{KeyAction, KeyCreate, UserAction, UserOf, Where};
pub(crate) use invalidating::{Invalidate, Named, Told};
pub(crate) use steering::{
    Apply, Audit, EndpointOf, Override, OverrideAdd, Policy, PolicyRm, PolicySet, Rollback, Said,
};

/// A cache for services: run it, look into it, clear it, steer it.
#[derive(Parser)]
#[command(name = "larder", version, max_term_width = 100, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The store: redis://…, rediss://…, unix://…, redis+sentinel://host,host/name, redis+cluster://host,host, or a
    /// folder as in LARDER_DIR, in whose store/ the embedded one lies. Without it: REDIS_URL, else LARDER_DIR, else .larder
    #[arg(long, global = true, value_name = "URL|FOLDER")]
    store: Option<String>,

    /// Print JSON, for programs
    #[arg(long, global = true)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  larder up                                              the sample service, cached, with a control plane
  larder keys 'cache:product-service:*'                  what is cached of a service
  larder policy set product-service /products --ttl 60   shorter, from now on
  larder why cache:product-service:/products             what a lookup would do, and by which rule
  larder clear 'cache:product-service:/products*'        all of it, away
  larder invalidate tag product-service product:17       what depends on it, away, everywhere
  larder explain product-service /products               what auto decided, and what would flip it
  larder override add product-service /products --for 10m --mode off --reason 'wrong prices'
  larder replay access.log.gz --ttl 60                   what a cache would have done with these requests

Exit codes: 0 done, 1 not there, 2 wrong usage, 3 could not be done, 4 doctor warns, or the audit
trail was changed.
Settings come from the environment and from .env; `larder config` lists them.
LARDER_AFTER_FAILOVER=keep uses what a Redis took before its restart or a failover: the cache stays
warm, and what had been deleted may be back. strict, the default: it begins cold.";

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Start the control plane and the sample product service
    #[cfg(feature = "demo")]
    #[command(after_help = "Examples:
  larder up
  larder up --port 3001 --control-port 8001
  REDIS_URL=redis://127.0.0.1:6379 larder up")]
    Up(Up),

    /// Start the control plane alone
    #[command(after_help = "Examples:
  larder control
  larder control --control-port 8001
  larder key create --role admin --all-services --name me && larder control --control-address 0.0.0.0")]
    Control(Control),

    /// List entries: their keys, how long they live, how large they are
    #[command(after_help = "Examples:
  larder keys
  larder keys 'cache:product-service:/products/*' --json")]
    Keys(Keys),

    /// Print an entry's value
    #[command(after_help = "Example:
  larder get cache:product-service:/products")]
    Get(Get),

    /// Explain what a lookup of a key would do now, and by which rule
    ///
    /// Shows the entry, its form and age, what it depends on, the lease of a load that is under way, what is pending of it on
    /// this machine, and the policy in force: that of CONTROL_PLANE_URL, else the default. Looking changes nothing.
    #[command(after_help = "Examples:
  larder why cache:product-service:/products
  larder why cache:product-service:/products --json")]
    Why {
        /// The whole key
        key: Key,
    },

    /// Print how long an entry lives, in seconds
    #[command(after_help = "Example:
  larder ttl cache:product-service:/products")]
    Ttl {
        /// The whole key
        key: Key,
    },

    /// Store a JSON value
    #[command(after_help = "Examples:
  larder set cache:product-service:/products '[{\"id\":1}]'
  larder set cache:product-service:/products @products.json --ttl 60")]
    Set(Set),

    /// Delete entries
    #[command(after_help = "Example:
  larder del cache:product-service:/products cache:product-service:/products/1")]
    Del {
        /// Whole keys
        #[arg(required = true)]
        keys: Vec<Key>,
    },

    /// Delete all entries that a pattern means; asks first on a terminal
    #[command(after_help = "Examples:
  larder clear 'cache:product-service:*' --dry-run
  larder clear 'cache:product-service:/products*' --yes")]
    Clear(Clear),

    /// Invalidate a key, what a pattern means, an endpoint, what depends on a tag, or all of a service: everywhere
    ///
    /// The control plane tells the store that it has, and every instance that follows the service; the answer says what was done
    /// where, and what is pending. With --service in place of a word it goes to the store itself, without a control plane: entries
    /// in the framed form are dead at once, however many they are, by one write; plain ones are removed behind it.
    #[command(
        args_conflicts_with_subcommands = true,
        subcommand_negates_reqs = true,
        after_help = "Examples:
  larder invalidate endpoint product-service '/products/{id}' --reason 'wrong prices'
  larder invalidate key cache:product-service:/products/17
  larder invalidate pattern 'cache:product-service:/products*' --dry-run
  larder invalidate tag product-service product:17 --wait 10
  larder invalidate service product-service --dry-run      what it would do, and send to the origin
  larder invalidate status 5f0c2a91d3b84e67                what is pending of it by now
  larder invalidate --service product-service --tag product:17     in the store itself
What can't be done now is pending: it is done as soon as it can be, and exit code 3 says so."
    )]
    Invalidate(Invalidate),

    /// Show how full the store is, and what happened in it
    Stats,

    /// Show and change what is cached, and for how long
    #[command(
        subcommand,
        after_help = "Examples:
  larder policy list
  larder policy set product-service /products --ttl 60
  larder policy set product-service /products --mode off
  larder policy rm product-service /products
  larder policy export > policies.json                   all of them, for a repository
  larder policy apply policies.json --dry-run            what it would change
  larder policy history product-service                  who changed what, and why
  larder policy diff product-service 12 14
  larder policy rollback product-service 12 --reason 'the launch is over'"
    )]
    Policy(Policy),

    /// Show which version of its policies each instance of a service has in force
    ///
    /// current: the one that holds; stale: another; rejected: the one that holds could not be put in force; gone: not heard
    /// of for a minute and a half.
    #[command(after_help = "Examples:
  larder instances
  larder instances product-service --json")]
    Instances {
        /// The service; all of them if left out
        service: Option<Service>,
    },
    /// Set a policy for a limited time, over what is set or decided; it ends by itself
    #[command(
        subcommand,
        after_help = "Examples:
  larder override add product-service /products --for 10m --mode on --ttl 60 --reason 'launch'
  larder override add product-service /prices --for 1h --mode off --reason 'wrong prices'
  larder override list
  larder override end 5f0c2a91d3b84e67 --reason 'prices are right again'"
    )]
    Override(Override),

    /// Make, list and revoke the API keys of the control plane
    ///
    /// In its database, on the machine where that lies (LARDER_DIR), whether it runs or not: the first key is made so. With
    /// --remote over its API, with the key in LARDER_CONTROL_KEY. Once there is a key, every request needs one.
    #[command(
        subcommand,
        after_help = "Examples:
  larder key create --role report --service product-service --name 'product service'
  larder key create --role admin --all-services --name alice --for 90d
  larder key list
  larder key revoke 5f0c2a91d3b84e67 --reason 'it was in a log'"
    )]
    Key(KeyAction),

    /// Make, list, change and remove the users that log in to the dashboard
    ///
    /// Where keys are made (larder key). Once there is a user, every request needs a log-in or a key. Passwords are asked for on a
    /// terminal, else read from standard input.
    #[command(
        subcommand,
        after_help = "Examples:
  larder user create alice --role operator --service product-service
  larder user create root --role admin --all-services < password
  larder user password alice
  larder user list"
    )]
    User(UserAction),

    /// Show who did what at the control plane, and find out whether somebody changed that
    ///
    /// Every change and every refused one is an entry of a chain made with a key that does not lie in the database. Keep the head
    /// that `larder audit head` prints somewhere else: with it, a trail that was cut or written anew is found, too.
    #[command(
        subcommand,
        after_help = "Examples:
  larder audit list product-service
  larder audit head
  larder audit verify
  larder audit verify --head 12:5f0c…    that entry 12 is there, and as it was"
    )]
    Audit(Audit),

    /// Explain what the control plane decided for an endpoint, from which figures, and what would flip it
    ///
    /// For endpoints in mode auto or shadow. Every decision is kept with all that it was made from, so one of the past can be
    /// explained as well.
    #[command(after_help = "Examples:
  larder explain product-service /products
  larder explain product-service /products/{id} --at 2h
  larder explain product-service /products --json")]
    Explain(Explain),

    /// Show what a cache would have done with the requests of an access log
    ///
    /// Runs the log's GETs, in the log's own time, through Larder's engine over a temporary store. The log is in Common or
    /// Combined Log Format, nginx JSON, or CSV with the header ts_ms,client,method,url,status,bytes; gzip or plain.
    #[command(after_help = "Examples:
  larder replay /var/log/nginx/access.log
  larder replay access.log.2.gz --ttl none --max-bytes 1GiB
  larder replay access.log --include '/products/{id}' --include '/search*' --ignore-query
  zcat access.log.*.gz | larder replay - --status 200,304 --json
  larder replay access.log --ttl 60 --svg hit-ratio.svg")]
    Replay(Replay),

    /// Show what each TTL would have done with the requests of an access log, and what auto would have decided
    ///
    /// Per endpoint, for TTLs from a second to an hour: hit ratio, time of the origin saved, share of stale hits, memory; and the
    /// decisions of the control plane's engine over time. An answer's size and status stand for what it was. How long the
    /// origin takes is the CSV's latency_ms, else --origin-ms. Reads what replay reads.
    #[command(after_help = "Examples:
  larder simulate /var/log/nginx/access.log --origin-ms 250
  larder simulate access.csv.gz --include '/products/{id}' --json
  larder simulate access.log --max-ttl 300 --svg ttls.svg")]
    Simulate(Simulate),

    /// Look over the store and how it is set up, and say what to change: exit code 4 if there is something
    #[command(
        after_help = "Checked of Redis and Valkey: password, rights, encryption, known holes of the version, memory
limit and policy, what a failover leaves, other programs' keys. Of the embedded store: folder, file system, room, disk.

Examples:
  larder doctor
  larder doctor --store rediss://cache.example:6380 --json"
    )]
    Doctor,

    /// Show every setting, its value and where it came from
    Config,

    /// Print completions for a shell
    #[command(after_help = "Example:
  larder completions bash > /etc/bash_completion.d/larder")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

impl Command {
    /// What is logged if `RUST_LOG` says nothing: commands that look speak for themselves.
    pub(crate) fn log(&self) -> &'static str {
        match self {
            #[cfg(feature = "demo")]
            Self::Up(_) => product_service::LOG,
            Self::Control(_) => "info",
            // What is there and not read would look like nothing.
            Self::Get(_) | Self::Ttl { .. } => "off,larder_redis::read=warn",
            _ => "off",
        }
    }
}

#[cfg(feature = "demo")]
#[derive(ClapArgs)]
pub(crate) struct Up {
    /// Where the product service listens [env: PORT] [default: 3000]
    #[arg(long)]
    pub(crate) port: Option<u16>,

    /// Where the control plane listens [env: CONTROL_PORT] [default: 8000]
    #[arg(long)]
    pub(crate) control_port: Option<u16>,
}

#[derive(ClapArgs)]
pub(crate) struct Control {
    /// The address at which the control plane listens; any but this machine's own needs API keys [env: CONTROL_ADDRESS] [default:
    /// 127.0.0.1]
    #[arg(long)]
    pub(crate) control_address: Option<IpAddr>,

    /// Answer /metrics and probes here too, without a key: 127.0.0.1:9100 [env: CONTROL_METRICS_ADDRESS]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) metrics_address: Option<SocketAddr>,

    /// A PEM file with the certificate to show, its chain behind it; read anew when it changes [env: CONTROL_TLS_CERT]
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,

    /// A PEM file with that certificate's key [env: CONTROL_TLS_KEY]
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,

    /// Where the control plane listens [env: CONTROL_PORT] [default: 8000]
    #[arg(long)]
    pub(crate) control_port: Option<u16>,

    /// Goes on with another key of the audit trail in PostgreSQL, where this one, by its name, is lost
    #[arg(long, value_name = "NAME")]
    pub(crate) lost_audit_key: Option<String>,
}

#[derive(ClapArgs)]
pub(crate) struct Keys {
    /// Which ones: cache:SERVICE:GLOB; all of all services if left out
    pub(crate) pattern: Option<Pattern>,

    /// At most so many
    #[arg(long, default_value_t = 10_000)]
    pub(crate) limit: usize,
}

#[derive(ClapArgs)]
pub(crate) struct Get {
    /// The whole key
    pub(crate) key: Key,

    /// The very bytes that are stored; not on a terminal, which they could steer
    #[arg(long)]
    pub(crate) raw: bool,
}

#[derive(ClapArgs)]
pub(crate) struct Set {
    /// The whole key
    pub(crate) key: Key,

    /// The value, as JSON; @FILE reads it from a file, @- from standard input
    pub(crate) value: String,

    /// How long it is fresh, in seconds
    #[arg(long, default_value_t = 300.0, value_parser = seconds, allow_hyphen_values = true)]
    pub(crate) ttl: f64,
}

#[derive(ClapArgs)]
pub(crate) struct Clear {
    /// Which ones: cache:SERVICE:GLOB
    pub(crate) pattern: Pattern,

    /// Only say how many there are
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Don't ask
    #[arg(long, short)]
    pub(crate) yes: bool,
}

#[derive(ClapArgs)]
pub(crate) struct Explain {
    #[command(flatten)]
    pub(crate) endpoint: EndpointOf,

    /// As it was then: how long ago (10m, 2h, 3d), or seconds since 1970
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<crate::explain::At>,
}

#[derive(ClapArgs)]
pub(crate) struct Simulate {
    /// The access log; - reads standard input
    pub(crate) log: PathBuf,

    /// How long the origin takes where the log does not say, in milliseconds
    #[arg(long, default_value_t = 100.0, value_parser = latency, allow_hyphen_values = true)]
    pub(crate) origin_ms: f64,

    /// The longest TTL that auto may choose, in seconds
    #[arg(long, default_value_t = 3_600.0, value_parser = seconds, allow_hyphen_values = true)]
    pub(crate) max_ttl: f64,

    /// The share of hits that may be stale where auto decides
    #[arg(long, default_value_t = 0.01, value_parser = budget, allow_hyphen_values = true)]
    pub(crate) staleness_budget: f64,

    /// Leave the query out of the key
    #[arg(long)]
    pub(crate) ignore_query: bool,

    /// Only these paths: a glob ('/products*') or a route template ('/products/{id}'); may be said several times
    #[arg(long, value_name = "GLOB|TEMPLATE")]
    pub(crate) include: Vec<Include>,

    /// Only requests that were answered so, separated by commas: 200,304
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u16).range(100..=999))]
    pub(crate) status: Vec<u16>,

    /// Draw hits and stale hits by TTL into this file
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,

    /// Show so many endpoints; --json has them all
    #[arg(long, default_value_t = 5)]
    pub(crate) top: usize,
}

#[derive(ClapArgs)]
pub(crate) struct Replay {
    /// The access log; - reads standard input
    pub(crate) log: PathBuf,

    /// How long an entry is fresh, in seconds; none: for as long as a policy allows, 365 days
    #[arg(long, default_value = "300", value_parser = life, allow_hyphen_values = true)]
    pub(crate) ttl: Duration,

    /// How much the store may take: a number of bytes, or 64MiB, 1GiB
    #[arg(long, default_value = "256MiB", value_parser = size)]
    pub(crate) max_bytes: u64,

    /// Leave the query out of the key
    #[arg(long)]
    pub(crate) ignore_query: bool,

    /// Only these paths: a glob ('/products*') or a route template ('/products/{id}'); may be said several times
    #[arg(long, value_name = "GLOB|TEMPLATE")]
    pub(crate) include: Vec<Include>,

    /// Only requests that were answered so, separated by commas: 200,304
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u16).range(100..=999))]
    pub(crate) status: Vec<u16>,

    /// Draw the hit ratio over time into this file
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,

    /// Show so many endpoints; --json has them all
    #[arg(long, default_value_t = 20)]
    pub(crate) top: usize,
}

fn tag(text: &str) -> Result<larder::Tag, String> {
    larder::Tag::new(text).map_err(|error| error.to_string())
}

fn number(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite());
    number.ok_or_else(|| "use a number".to_owned())
}

/// In milliseconds, a day at the most.
fn latency(text: &str) -> Result<f64, String> {
    let latency = number(text).ok();
    latency
        .filter(|ms| (0.0..=86_400_000.0).contains(ms))
        .ok_or_else(|| "use 0 to 86400000 milliseconds (a day)".to_owned())
}

fn budget(text: &str) -> Result<f64, String> {
    let budget = number(text).ok();
    budget
        .filter(|share| *share > 0.0 && *share <= 1.0)
        .ok_or_else(|| "use a share above 0 and at most 1, such as 0.01".to_owned())
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "use a number of seconds")?;
    let is_life = seconds > 0.0 && seconds <= larder::MAX_DURATION.as_secs_f64();
    is_life
        .then_some(seconds)
        .ok_or_else(|| "use more than 0 and at most 31536000 seconds (365 days)".to_owned())
}

fn life(text: &str) -> Result<Duration, String> {
    match text {
        "none" | "forever" => Ok(larder::MAX_DURATION),
        text => seconds(text)
            .map(Duration::from_secs_f64)
            .map_err(|error| format!("{error}, or none")),
    }
}

/// The least and the most that a store may be given, in bytes.
const STORE_BYTES: std::ops::RangeInclusive<u64> = 1 << 20..=1 << 40;

fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let unit: u64 = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        _ => return Err("use bytes, KiB, MiB or GiB, as in 64MiB".to_owned()),
    };
    let count: u64 = digits
        .parse()
        .map_err(|_| "use a whole number, as in 64MiB".to_owned())?;
    count
        .checked_mul(unit)
        .filter(|bytes| STORE_BYTES.contains(bytes))
        .ok_or_else(|| "use 1MiB to 1024GiB".to_owned())
}

impl Args {
    /// The settings, with what the command line says in their place.
    pub(crate) fn settings(&self, mut settings: Settings) -> anyhow::Result<Settings> {
        if let Some(store) = &self.store {
            settings.choose_store(read_store(store)?);
        }
        Ok(settings)
    }
}

fn read_store(store: &str) -> anyhow::Result<ChosenStore> {
    if !store.contains("://") {
        let folder = PathBuf::from(store);
        // Taken as it is said, another store would be made in this one, and found empty.
        if folder.join("data.mdb").exists() {
            bail!(
                "--store: {store} is a store itself: name the folder above it, as LARDER_DIR does"
            );
        }
        return Ok(ChosenStore::Folder(folder));
    }
    let url = larder::RedisUrl::parse(store).context("--store")?;
    if url.has_password() {
        eprintln!(
            "larder: a password on the command line can be read by other users: set REDIS_URL instead"
        );
    }
    Ok(ChosenStore::Redis(Secret::new(store.to_owned())))
}
