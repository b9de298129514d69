//! What is to be invalidated.

use clap::{Args as ClapArgs, Subcommand};
use larder::{Endpoint, Key, Pattern, Service, Tag};

use super::steering::Said;
use super::{number, tag};

#[derive(ClapArgs)]
pub(crate) struct Invalidate {
    /// In the store itself: of this service
    #[arg(long, required = true)]
    pub(crate) service: Option<Service>,

    /// In the store itself: the entries with this tag
    #[arg(long, value_parser = tag, conflicts_with = "endpoint")]
    pub(crate) tag: Option<Tag>,

    /// In the store itself: the entries of this endpoint: /products, /products/{id}
    #[arg(long)]
    pub(crate) endpoint: Option<Endpoint>,

    #[command(subcommand)]
    pub(crate) named: Option<Named>,
}

#[derive(Subcommand)]
pub(crate) enum Named {
    /// One entry
    Key {
        /// The whole key
        key: Key,

        #[command(flatten)]
        told: Told,
    },

    /// The entries that a pattern means
    Pattern {
        /// Which ones: cache:SERVICE:GLOB
        pattern: Pattern,

        #[command(flatten)]
        told: Told,
    },

    /// The entries of an endpoint
    Endpoint {
        /// The service
        service: Service,

        /// The endpoint: /products, /products/{id}
        endpoint: Endpoint,

        #[command(flatten)]
        told: Told,
    },

    /// The entries that depend on a tag
    Tag {
        /// The service
        service: Service,

        /// The tag
        #[arg(value_parser = tag)]
        tag: Tag,

        #[command(flatten)]
        told: Told,
    },

    /// All entries of a service
    Service {
        /// The service
        service: Service,

        #[command(flatten)]
        told: Told,
    },

    /// Show how far an invalidation is by now
    Status {
        /// Its name, as it was printed
        id: String,
    },

    /// List the latest invalidations
    List {
        /// Of this service; of all of them if left out
        service: Option<Service>,
    },
}

/// How it is to be done.
#[derive(ClapArgs)]
pub(crate) struct Told {
    /// Only say what it would do
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// How long to wait until all have done it, in seconds, 30 at the most
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0, value_parser = wait, allow_hyphen_values = true)]
    pub(crate) wait: f64,

    /// A name of your own for it: said again, it is done once
    #[arg(long)]
    pub(crate) id: Option<String>,

    #[command(flatten)]
    pub(crate) said: Said,
}

fn wait(text: &str) -> Result<f64, String> {
    let seconds = number(text).ok();
    seconds
        .filter(|seconds| (0.0..=30.0).contains(seconds))
        .ok_or_else(|| "use 0 to 30 seconds".to_owned())
}
