//! The client: a governor whose policies come from the control plane.

use std::fmt;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use larder_core::api::Via;
use larder_core::{Check, Event, Gate, Governor, Key, Named, Policy, Secret, Service, WeakCache};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::announce::Announce;
use crate::fetch::{AuthoritiesError, ControlKeyError, Remote, UrlError};
use crate::follow::Follow;
use crate::intake::{Intake, Standing, unquoted};
use crate::invalidations::Invalidations;
use crate::known_good::{Kept, KnownGood};
use crate::policies::{InForce, Policies};
use crate::recorder::{Noted, Recorder};
use crate::report::{Backlog, Reporter, Turns};
use crate::{fetch, report};

/// What the client needs to know.
#[derive(Clone)]
pub struct ClientSettings {
    /// Where the control plane is: `http://127.0.0.1:8000`.
    pub url: String,
    /// The API key that it asks for; `None`: it asks for none. Sent over `http:` to this machine alone.
    pub key: Option<Secret>,
    /// A PEM file with the authorities to trust for an `https:` URL; `None`: the machine's.
    pub authorities: Option<PathBuf>,
    /// The service whose policies are wanted.
    pub service: Service,
    /// Where the last policies are kept; `None`: nowhere.
    pub state_dir: Option<PathBuf>,
    /// What holds for an endpoint of which the control plane says nothing.
    pub defaults: Policy,
    /// Which store the service has: instances that share one give the same number.
    pub store_id: u32,
}

impl fmt::Debug for ClientSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientSettings")
            .field("url", &self.url)
            .field("service", &self.service)
            .field("has_key", &self.key.is_some())
            .finish_non_exhaustive()
    }
}

/// Why a client can't be started. A control plane that is away is no reason.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The URL is not one.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The key can't be sent.
    #[error(transparent)]
    Key(#[from] ControlKeyError),
    /// The authorities can't be read.
    #[error(transparent)]
    Authorities(#[from] AuthoritiesError),
    /// There is no Tokio runtime to run on.
    #[error("a client runs on a Tokio runtime: start it from within one")]
    NoRuntime,
    /// The HTTP client can't be made.
    #[error(
        "can't set up HTTP and TLS for the control plane: {0}; install ca-certificates, or use an http: URL"
    )]
    Http(String),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    NoRandomness,
}

/// How a client stands with its control plane.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Status {
    /// The version of the policies in force; `None` before there are any.
    pub version: Option<u64>,
    /// Over what they came, or were last confirmed.
    pub via: Via,
    /// Whether they come from the disk, and the control plane has not confirmed them yet.
    pub from_disk: bool,
    /// Why the latest that the control plane sent could not be put in force; `None` if it is.
    pub rejected: Option<String>,
    /// Whether the control plane answered when it was last asked, or tells of changes.
    pub connected: bool,
    /// Why the control plane's latest answer is not in force, or why there is none; `None` if all is well.
    pub trouble: Option<String>,
    /// Windows that were measured and could not be delivered.
    pub dropped_windows: u64,
}

/// A governor whose policies come from the control plane. Runs until it is closed or dropped.
pub struct Client {
    shared: Arc<Shared>,
    closing: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// What the client and its tasks share.
pub(crate) struct Shared {
    pub(crate) service: Service,
    pub(crate) defaults: Policy,
    pub(crate) policies: ArcSwap<Policies>,
    pub(crate) recorder: Recorder,
    /// What the store did not do since the last report.
    pub(crate) store_errors: AtomicU64,
    /// What is not told by `standing`.
    pub(crate) status: Mutex<Status>,
    /// What is in force, for those who want to hear of changes.
    pub(crate) standing: watch::Sender<Standing>,
    pub(crate) invalidations: Invalidations,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("service", &self.shared.service)
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Starts a client on the current Tokio runtime. Waits for nothing: until the control plane answers, the last
    /// policies that were kept hold, or the defaults.
    ///
    /// # Errors
    /// A [`StartError`] that says what to do.
    pub fn start(settings: ClientSettings) -> Result<Arc<Self>, StartError> {
        let runtime = Handle::try_current().map_err(|_| StartError::NoRuntime)?;
        let reporter = Reporter::new(&settings.service, settings.store_id)
            .map_err(|_| StartError::NoRandomness)?;
        let position = settings
            .state_dir
            .clone()
            .map(|folder| KnownGood::new(folder, settings.service.clone()));
        let known_good = settings
            .state_dir
            .map(|folder| KnownGood::new(folder, settings.service.clone()));
        let shared = Arc::new(Shared {
            policies: ArcSwap::from_pointee(Policies::defaults(&settings.defaults)),
            invalidations: Invalidations::new(
                settings.service.clone(),
                settings.store_id,
                position,
            ),
            service: settings.service,
            defaults: settings.defaults,
            recorder: Recorder::default(),
            store_errors: AtomicU64::default(),
            status: Mutex::default(),
            standing: watch::Sender::default(),
        });
        let make_remote = || {
            let (url, key) = (&settings.url, settings.key.as_ref());
            Remote::new(url, key, settings.authorities.as_deref(), &shared.service)
        };
        let (remote, kept) = std::thread::scope(|scope| {
            // Meanwhile: to read the machine's authorities for https takes as long as to read a thousand policies.
            let beside = std::thread::Builder::new().name("larder-start".to_owned());
            let remote = beside.spawn_scoped(scope, make_remote);
            let kept = known_good.as_ref().and_then(|kept| shared.kept(kept));
            let remote = match remote {
                Ok(remote) => remote.join().unwrap_or_else(|panic| resume_unwind(panic)),
                // The machine has no thread to spare.
                Err(_) => make_remote(),
            };
            (remote, kept)
        });
        let remote = Arc::new(remote?);
        let (etag, recalled) = match kept {
            Some((kept, policies)) => (shared.recall(&kept, policies), Some(kept)),
            None => (None, None),
        };
        let (closing, is_closing) = watch::channel(false);
        let following = Follow {
            intake: Intake {
                shared: Arc::clone(&shared),
                known_good: known_good.map(Arc::new),
                etag,
                parked: None,
                is_parked_latest: false,
            },
            remote: Arc::clone(&remote),
        };
        let announcing = Announce {
            shared: Arc::clone(&shared),
            remote: Arc::clone(&remote),
            instance: reporter.instance().to_owned(),
        };
        let reporting = report::Report {
            shared: Arc::clone(&shared),
            remote,
            reporter,
            backlog: Backlog::default(),
            turns: Turns::default(),
        };
        let obeying = Arc::clone(&shared);
        let is_over = is_closing.clone();
        let obeying = async move { obeying.invalidations.run(is_over).await };
        let tasks = vec![
            runtime.spawn(obeying),
            runtime.spawn(following.run(is_closing.clone())),
            runtime.spawn(announcing.run(is_closing.clone())),
            runtime.spawn(reporting.run(is_closing)),
        ];
        // Behind them: to free thousands of small texts takes a while.
        runtime.spawn(async move { drop(recalled) });
        Ok(Arc::new(Self {
            shared,
            closing,
            tasks: Mutex::new(tasks),
        }))
    }

    /// What holds for a key, where it came from, and why.
    #[must_use]
    pub fn decision(&self, key: &Key) -> InForce {
        self.shared.policies.load().in_force(key)
    }

    /// From now on does in this cache what the control plane tells it to invalidate; the first one that is given is it. Does not
    /// keep the cache.
    pub fn invalidate_in(&self, cache: WeakCache) {
        self.shared.invalidations.bind(cache);
    }

    /// How the client stands with its control plane.
    #[must_use]
    pub fn status(&self) -> Status {
        let standing = self.shared.standing.borrow().clone();
        Status {
            version: standing.version,
            via: standing.via,
            from_disk: standing.via == Via::LastKnownGood,
            rejected: standing.rejected.map(|rejected| rejected.reason),
            ..self.shared.status().clone()
        }
    }

    /// Sends what was measured, waiting at most 2 s for it, and ends. Policies stay as they are.
    pub async fn close(&self) {
        self.closing.send_replace(true);
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            // A task that panicked has nothing left to send.
            let _ = task.await;
        }
    }
}

impl Governor for Client {
    fn gate(&self, key: &Key) -> Gate {
        self.shared.policies.load().gate(key)
    }

    fn policy(&self, key: &Key) -> Arc<Policy> {
        self.shared.policies.load().policy(key)
    }

    fn template(&self, key: &Key) -> Option<Box<str>> {
        self.shared.policies.load().template(key)
    }

    fn record(&self, key: &Key, event: Event) {
        self.shared.count(key, Noted::Answer(event));
    }

    fn record_refresh(&self, key: &Key, load: Option<Duration>) {
        self.shared.count(key, Noted::Refresh(load));
    }

    fn note_lookup(&self, key: &Key) {
        if let Some(watched) = self.shared.policies.load().watched(key) {
            watched.saw(key);
        }
    }

    fn note_answer(&self, key: &Key, json: &Bytes, check: Option<Check>) {
        let policies = self.shared.policies.load();
        if let Some(watched) = policies.watched(key) {
            // Where an older entry may have been stored for less, nobody knows how old it is.
            let check = check.filter(|check| !check.is_by_ttl || policies.is_ttl_settled(key));
            watched.answered(key, json, check);
        }
    }

    fn note_store_error(&self) {
        self.shared.store_errors.fetch_add(1, Ordering::Relaxed);
    }

    fn note_invalidated(&self, what: Named<'_>) {
        let policies = self.shared.policies.load();
        match what {
            Named::Keys(keys) => {
                for key in keys {
                    if let Some(watched) = policies.watched(key) {
                        watched.erased(Some(key));
                    }
                }
            }
            Named::Tag(tag) => policies.erase(|_, policy| policy.tags().contains(tag)),
            Named::Endpoint(None) => policies.erase(|_, _| true),
            Named::Endpoint(Some(template)) => {
                policies.erase(|endpoint, _| endpoint.template() == template);
            }
        }
    }
}

// === impl Shared ===

impl Shared {
    fn count(&self, key: &Key, noted: Noted) {
        match self.policies.load().counters(key) {
            Some(counters) => counters.count(noted),
            None => self.recorder.count(key, noted),
        }
    }

    /// What was kept on the disk, and the policies that it says, if they can be used.
    fn kept(&self, known_good: &KnownGood) -> Option<(Kept, Policies)> {
        let kept = known_good.read()?;
        match Policies::new(&kept.config, self, &Policies::defaults(&self.defaults)) {
            Ok(policies) => Some((kept, policies)),
            Err(error) => {
                tracing::warn!(%error, "the kept policies can't be used; the defaults hold until the control plane answers");
                None
            }
        }
    }

    /// Puts what was kept in force, and says under which tag the control plane knows it.
    fn recall(&self, kept: &Kept, policies: Policies) -> Option<String> {
        tracing::info!(
            service = self.service.as_str(),
            version = kept.config.version,
            "the last policies hold until the control plane answers"
        );
        self.policies.store(Arc::new(policies));
        let etag = kept.etag.clone().filter(|tag| fetch::is_tag(tag));
        self.standing.send_replace(Standing {
            version: Some(kept.config.version),
            tag: etag.as_deref().map(unquoted),
            via: Via::LastKnownGood,
            since: Some(Instant::now()),
            rejected: None,
        });
        etag
    }

    pub(crate) fn status(&self) -> std::sync::MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
