//! What steers services: policies, overrides, and the trail of who did so.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use larder::api::AuditHead;
use larder::{Mode, PolicyPatch, QueryRule, Service};

use super::number;

#[derive(Subcommand)]
pub(crate) enum Policy {
    /// Print the policy in force for an endpoint
    Get(EndpointOf),

    /// Set fields of an endpoint's policy; the others stay as they are
    Set(Box<PolicySet>),

    /// Remove an endpoint's policy: what holds by default holds again
    Rm(PolicyRm),

    /// List the policies of a service, or of all
    List {
        /// The service; all of them if left out
        service: Option<Service>,
    },

    /// Print the policies of a service, or of all, as a file that apply takes
    Export {
        /// The service; all of them if left out
        service: Option<Service>,
    },

    /// Give each service of a file the policies that it has there, in place of all that it has
    ///
    /// A service changes in one step or not at all. Services that are not in the file stay as they are; endpoints that are not
    /// among a service's policies have none afterwards.
    Apply(Apply),

    /// List a service's revisions, newest first: what was set, overridden and decided
    History {
        /// The service
        service: Service,

        /// At most so many
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=500))]
        limit: u32,
    },

    /// Show what a revision changed, the newest if none is said; or what differs between two
    Diff {
        /// The service
        service: Service,

        /// This revision; with another behind it, from this one (0: from nothing)
        revision: Option<u64>,

        /// To this one
        to: Option<u64>,
    },

    /// Bring the policies of an earlier revision back, as a new one; overrides stay
    Rollback(Rollback),
}

#[derive(ClapArgs)]
pub(crate) struct Apply {
    /// The file, as `larder policy export` prints it; - reads standard input
    pub(crate) file: PathBuf,

    /// Only show what it would change
    #[arg(long)]
    pub(crate) dry_run: bool,

    #[command(flatten)]
    pub(crate) said: Said,
}

#[derive(ClapArgs)]
pub(crate) struct Rollback {
    /// The service
    pub(crate) service: Service,

    /// The revision, as `larder policy history` numbers it
    pub(crate) revision: u64,

    /// Only show what it would change
    #[arg(long)]
    pub(crate) dry_run: bool,

    #[command(flatten)]
    pub(crate) said: Said,
}

/// Who changes something, and why.
#[derive(ClapArgs, Clone)]
pub(crate) struct Said {
    /// Why, for the history
    #[arg(long)]
    pub(crate) reason: Option<String>,

    /// Who, for the history; without it the user's name [env: USER]
    #[arg(long)]
    author: Option<String>,
}

impl Said {
    /// What a program says of itself.
    #[cfg(feature = "demo")]
    pub(crate) fn of(author: &str, reason: &str) -> Self {
        Self {
            reason: Some(reason.to_owned()),
            author: Some(author.to_owned()),
        }
    }

    /// Why alone: the author is the user.
    pub(crate) fn because(reason: Option<String>) -> Self {
        Self {
            reason,
            author: None,
        }
    }

    pub(crate) fn author(&self) -> Option<String> {
        let user = || std::env::var("USER").ok();
        self.author
            .clone()
            .or_else(user)
            .filter(|name| !name.is_empty())
    }
}

#[derive(Subcommand)]
pub(crate) enum Override {
    /// Begin one: the fields that are given hold until its time is over
    Add(Box<OverrideAdd>),

    /// List those in force
    List {
        /// Of this service; of all of them if left out
        service: Option<Service>,
    },

    /// End one before its time is over
    End {
        /// Its name, as `larder override list` shows it
        id: String,

        #[command(flatten)]
        said: Said,
    },
}

#[derive(ClapArgs)]
pub(crate) struct OverrideAdd {
    #[command(flatten)]
    pub(crate) endpoint: EndpointOf,

    /// How long it holds: 90s, 10m, 2h, 3d; at most 30d
    #[arg(long = "for", value_name = "TIME", value_parser = crate::explain::span, required_unless_present = "until")]
    pub(crate) time: Option<u64>,

    /// When it ends, in seconds since 1970
    #[arg(long, value_name = "SECONDS", conflicts_with = "time")]
    pub(crate) until: Option<u64>,

    /// In the place of the one that is in force for this endpoint
    #[arg(long)]
    pub(crate) replace: bool,

    #[command(flatten)]
    pub(crate) fields: PolicyFields,

    #[command(flatten)]
    pub(crate) said: Said,
}

#[derive(Subcommand)]
pub(crate) enum Audit {
    /// List entries, newest first
    List {
        /// Only those of this service, none of which was refused
        service: Option<Service>,

        /// At most so many
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=500))]
        limit: u32,
    },

    /// Print where the trail ends, to be kept somewhere else
    Head,

    /// Look over the whole trail, in the control plane's folder (LARDER_DIR), which may be in use
    Verify {
        /// A head that was printed before: its entry must still be there
        #[arg(long, value_parser = head)]
        head: Option<AuditHead>,
    },
}

#[derive(ClapArgs)]
pub(crate) struct EndpointOf {
    /// The service
    pub(crate) service: Service,

    /// The endpoint: /products, /products/{id}, or with a method 'POST /search'
    pub(crate) endpoint: larder::Endpoint,
}

#[derive(ClapArgs)]
pub(crate) struct PolicySet {
    #[command(flatten)]
    pub(crate) endpoint: EndpointOf,

    #[command(flatten)]
    pub(crate) fields: PolicyFields,

    #[command(flatten)]
    pub(crate) said: Said,
}

#[derive(ClapArgs)]
pub(crate) struct PolicyRm {
    #[command(flatten)]
    pub(crate) endpoint: EndpointOf,

    #[command(flatten)]
    pub(crate) said: Said,
}

/// What can be set.
#[derive(ClapArgs)]
pub(crate) struct PolicyFields {
    /// on, off, auto: the control plane decides, or shadow: off, but what auto would do can be explained
    #[arg(long, value_parser = mode)]
    mode: Option<Mode>,

    /// How long an entry is fresh, in seconds
    #[arg(long, value_parser = number, allow_hyphen_values = true)]
    ttl: Option<f64>,

    /// The shortest TTL that auto may choose, in seconds
    #[arg(long, value_parser = number, allow_hyphen_values = true)]
    min_ttl: Option<f64>,

    /// The longest TTL that auto may choose, in seconds; without it: the TTL if that is set, else an hour
    #[arg(long, value_parser = number, allow_hyphen_values = true)]
    max_ttl: Option<f64>,

    /// The share of hits that may be stale where auto decides, such as 0.01
    #[arg(long, value_parser = number, allow_hyphen_values = true)]
    staleness_budget: Option<f64>,

    /// The share of the TTL that chance may take away, 0 to 1
    #[arg(long, value_parser = number, allow_hyphen_values = true)]
    jitter: Option<f64>,

    /// How long past the TTL an entry may be served while it is loaded anew, in seconds
    #[arg(long, value_parser = number, allow_hyphen_values = true)]
    stale_while_revalidate: Option<f64>,

    /// How long past the TTL an entry may be served where a load fails, in seconds
    #[arg(long, value_parser = number, allow_hyphen_values = true)]
    stale_if_error: Option<f64>,

    /// How long "there is none" is fresh, in seconds
    #[arg(long, value_parser = number, allow_hyphen_values = true)]
    negative_ttl: Option<f64>,

    /// After how many seconds of a load a stale value is served, if there is one; 0: never
    #[arg(long, value_parser = number, allow_hyphen_values = true)]
    soft_load_timeout: Option<f64>,

    /// After how many seconds a load fails
    #[arg(long, value_parser = number, allow_hyphen_values = true)]
    load_timeout: Option<f64>,

    /// Larger values, in bytes, are not cached
    #[arg(long)]
    max_value_bytes: Option<u64>,

    /// The query parameters that are part of the key, separated by commas; '' for none
    #[arg(long)]
    include_query: Option<String>,

    /// The request headers that the answer depends on, separated by commas; '' for none
    #[arg(long)]
    vary: Option<String>,

    /// The tags by which the entries can be invalidated, separated by commas; '' for none
    #[arg(long, value_parser = tags)]
    tags: Option<Tags>,
}

impl PolicyFields {
    /// The fields that were given.
    pub(crate) fn patch(&self) -> PolicyPatch {
        PolicyPatch {
            mode: self.mode,
            ttl_seconds: self.ttl,
            min_ttl_seconds: self.min_ttl,
            max_ttl_seconds: self.max_ttl,
            staleness_budget: self.staleness_budget,
            jitter: self.jitter,
            stale_while_revalidate_seconds: self.stale_while_revalidate,
            stale_if_error_seconds: self.stale_if_error,
            negative_ttl_seconds: self.negative_ttl,
            soft_load_timeout_seconds: self.soft_load_timeout,
            load_timeout_seconds: self.load_timeout,
            max_value_bytes: self.max_value_bytes,
            include_query: self
                .include_query
                .as_deref()
                .map(names)
                .map(QueryRule::Only),
            vary: self.vary.as_deref().map(names),
            tags: self.tags.as_ref().map(|tags| tags.0.clone()),
        }
    }
}

fn names(list: &str) -> Vec<String> {
    let names = list.split(',').map(str::trim);
    names
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

fn mode(text: &str) -> Result<Mode, String> {
    match text {
        "on" => Ok(Mode::On),
        "off" => Ok(Mode::Off),
        "auto" => Ok(Mode::Auto),
        "shadow" => Ok(Mode::Shadow),
        _ => Err("use on, off, auto or shadow".to_owned()),
    }
}

/// The tags of a policy.
#[derive(Clone)]
struct Tags(Vec<larder::Tag>);

fn tags(text: &str) -> Result<Tags, String> {
    let names = text.split(',').map(str::trim);
    let tags = names.filter(|name| !name.is_empty()).map(larder::Tag::new);
    tags.collect::<Result<_, _>>()
        .map(Tags)
        .map_err(|error| error.to_string())
}

fn head(text: &str) -> Result<AuditHead, String> {
    let wrong = || "use a head as `larder audit head` prints it: 12:5f0c…".to_owned();
    let (sequence, mac) = text.split_once(':').ok_or_else(wrong)?;
    let is_mac = mac.len() == 64 && mac.bytes().all(|digit| digit.is_ascii_hexdigit());
    let sequence = sequence.parse().ok().filter(|_| is_mac);
    Ok(AuditHead {
        sequence: sequence.ok_or_else(wrong)?,
        mac: mac.to_ascii_lowercase(),
        key_id: String::new(),
    })
}
