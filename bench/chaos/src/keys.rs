//! What is cached: few keys, so that readers, loads and invalidations meet, of kinds with a policy each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use larder_core::{
    Endpoint, Event, Gate, Governor, Key, Method, Mode, Pattern, Policy, PolicyPatch, Tag,
};

pub(crate) const SERVICE: &str = "chaos";
/// Keys of each kind.
pub(crate) const EACH: usize = 8;
/// All of them.
pub(crate) const KEYS: usize = EACH * Kind::ALL.len();
/// Tags of the kind that has some.
pub(crate) const TAGS: usize = 2;
/// After this time a load fails.
pub(crate) const LOAD_TIMEOUT: Duration = Duration::from_secs(8);

/// Keys with a policy of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Plain entries that live long.
    Plain,
    /// Plain entries that live for a second.
    Short,
    /// Framed: tags, stale values while one is loaded anew, and where a load fails or is slow.
    Tagged,
    /// Framed: tags, and nothing else; they live long.
    Lasting,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Plain, Self::Short, Self::Tagged, Self::Lasting];

    pub(crate) fn of(key: usize) -> Self {
        Self::ALL[key / EACH]
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Short => "short",
            Self::Tagged => "tagged",
            Self::Lasting => "lasting",
        }
    }

    pub(crate) fn is_framed(self) -> bool {
        matches!(self, Self::Tagged | Self::Lasting)
    }

    pub(crate) fn keys(self) -> std::ops::Range<usize> {
        let first = EACH * self as usize;
        first..first + EACH
    }

    /// How long a value is fresh.
    pub(crate) fn ttl(self) -> Duration {
        match self {
            Self::Plain | Self::Lasting => Duration::from_secs(30),
            Self::Short => Duration::from_secs(1),
            Self::Tagged => Duration::from_millis(1_500),
        }
    }

    /// How long past that it may be served at the most.
    pub(crate) fn stale(self) -> Duration {
        match self {
            Self::Plain | Self::Short | Self::Lasting => Duration::ZERO,
            Self::Tagged => Duration::from_secs(4),
        }
    }

    fn policy(self, key: usize) -> anyhow::Result<Policy> {
        let mut patch = PolicyPatch {
            ttl_seconds: Some(self.ttl().as_secs_f64()),
            jitter: Some(0.25),
            load_timeout_seconds: Some(LOAD_TIMEOUT.as_secs_f64()),
            ..PolicyPatch::default()
        };
        if self.is_framed() {
            patch.tags = Some(vec![tag(key % TAGS)?]);
        }
        if self == Self::Tagged {
            patch.stale_while_revalidate_seconds = Some(0.5);
            patch.stale_if_error_seconds = Some(self.stale().as_secs_f64());
            patch.soft_load_timeout_seconds = Some(0.02);
        }
        Ok(patch.apply(&Policy::default())?)
    }
}

pub(crate) fn endpoint_of(key: usize) -> String {
    format!("/{}?n={}", Kind::of(key).name(), key % EACH)
}

/// Where an entry lies in Redis.
pub(crate) fn entry_of(key: usize) -> String {
    format!("cache:{SERVICE}:{}", endpoint_of(key))
}

pub(crate) fn key(key: usize) -> anyhow::Result<Key> {
    Ok(Key::new(SERVICE, &endpoint_of(key))?)
}

pub(crate) fn tag(number: usize) -> anyhow::Result<Tag> {
    Ok(Tag::new(&format!("tag-{number}"))?)
}

pub(crate) fn pattern(kind: Kind) -> anyhow::Result<Pattern> {
    Ok(Pattern::parse(&format!(
        "cache:{SERVICE}:/{}*",
        kind.name()
    ))?)
}

pub(crate) fn endpoint(kind: Kind) -> anyhow::Result<Endpoint> {
    Ok(Endpoint::new(Method::get(), &format!("/{}", kind.name()))?)
}

/// What the control plane would be.
pub(crate) struct Policies {
    on: Vec<(Key, Arc<Policy>)>,
    off: Vec<(Key, Arc<Policy>)>,
    is_off: AtomicBool,
}

impl Policies {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let all = |mode: Mode| {
            let one = |number: usize| {
                let policy = Kind::of(number).policy(number)?.with_mode(mode);
                Ok::<_, anyhow::Error>((key(number)?, Arc::new(policy)))
            };
            let policies = (0..KEYS).map(one).collect::<Result<Vec<_>, _>>();
            policies.context("the policies")
        };
        Ok(Self {
            on: all(Mode::On)?,
            off: all(Mode::Off)?,
            is_off: AtomicBool::new(false),
        })
    }

    /// Switches caching off or on, for everything.
    pub(crate) fn switch(&self, is_off: bool) {
        self.is_off.store(is_off, Ordering::SeqCst);
    }

    /// Of a key that is none of these: of the first.
    fn find(&self, key: &Key) -> &Arc<Policy> {
        let policies = match self.is_off.load(Ordering::SeqCst) {
            true => &self.off,
            false => &self.on,
        };
        let found = policies.iter().find(|(known, _)| known == key);
        &found.unwrap_or(&policies[0]).1
    }
}

impl Governor for Policies {
    fn gate(&self, key: &Key) -> Gate {
        Gate::from(&**self.find(key))
    }

    fn policy(&self, key: &Key) -> Arc<Policy> {
        Arc::clone(self.find(key))
    }

    fn template(&self, _key: &Key) -> Option<Box<str>> {
        None
    }

    fn record(&self, _key: &Key, _event: Event) {}

    fn record_refresh(&self, _key: &Key, _load: Option<Duration>) {}
}
