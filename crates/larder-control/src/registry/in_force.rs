//! What is in force for an endpoint, and why: an override, else a policy, else a decision, else the default. Above all of them
//! stands that only answers to safe methods are cached.

use larder_decide::MIN_ANSWERS;
use larder_logs::format_time;
use larder_model::api::{EndpointConfig, Source, Watch};
use larder_model::{Endpoint, Method, Mode, Policy, PolicyError, PolicyPatch, Service};

use crate::decision::Decision;
use crate::stored::{Identity, StoredOverride, StoredService, is_decided};

/// What is in force for an endpoint that has a policy or an override.
pub(super) fn config(
    stored: &StoredService,
    key: &Identity,
    endpoint: &Endpoint,
) -> Result<EndpointConfig, PolicyError> {
    let policy = stored.policies.get(key);
    let set = policy.map_or_else(PolicyPatch::default, |policy| policy.patch.clone());
    let decision = stored.decisions.get(key);
    let is_left_to_the_engine = is_decided(&set);
    let over = stored.overrides.get(key);
    let patch = over.map_or_else(PolicyPatch::default, |over| over.patch.clone());
    let has_ttl = patch.ttl_seconds.is_some();
    let values = patch.or(set).apply(&Policy::default())?;
    let in_force = in_force(endpoint, &values, decision, over);
    let mut config = assemble(&stored.service, endpoint, &values, stored.version, in_force);
    if is_left_to_the_engine && endpoint.method().is_safe() {
        // Also while an override holds: what is measured meanwhile is what is decided from afterwards.
        config.watch = Some(decision.map_or(EVERYTHING, |decision| decision.watch));
    }
    let is_auto = matches!(values.mode(), Mode::Auto | Mode::Shadow);
    let ttl = decision.map(|decision| decision.ttl);
    if let Some(ttl) = ttl.filter(|ttl| is_auto && !has_ttl && !ttl.is_zero()) {
        // The policy's bounds hold, also those that were set since.
        let ttl = ttl.max(values.min_ttl()).min(values.max_ttl());
        config.ttl_seconds = ttl.as_secs_f64();
    }
    Ok(config)
}

fn in_force(
    endpoint: &Endpoint,
    values: &Policy,
    decision: Option<&Decision>,
    over: Option<&StoredOverride>,
) -> (bool, String, Source) {
    let source = match (over, values.mode()) {
        (Some(_), _) => Source::Override,
        (None, Mode::Auto | Mode::Shadow) => Source::Auto,
        (None, Mode::On | Mode::Off) => Source::Policy,
    };
    if !endpoint.method().is_safe() {
        let source = if over.is_some() {
            source
        } else {
            Source::Policy
        };
        return (false, unsafe_reason(endpoint.method()), source);
    }
    let who = over.map_or_else(
        || "a policy".to_owned(),
        |over| format!("an override of {}", over.author),
    );
    let ttl = values.ttl().as_secs_f64();
    let (is_cached, mut reason) = match values.mode() {
        Mode::On => (true, format!("{who} caches this endpoint for {ttl} s")),
        Mode::Off => (false, format!("{who} keeps this endpoint out of the cache")),
        mode => {
            let is_on = decision.is_some_and(|decision| decision.cache_enabled);
            let reason = decision.map_or_else(undecided, |decision| decision.reason.clone());
            let reason = match over {
                Some(_) => format!("{who} changes what holds here; {reason}"),
                None => reason,
            };
            (mode == Mode::Auto && is_on, reason)
        }
    };
    if let Some(over) = over {
        let until = format_time(over.expiry.at_seconds().saturating_mul(1_000));
        reason.push_str(&format!(", until {until}: {}", over.reason));
    }
    (is_cached, reason, source)
}

/// What is measured before anything was decided.
const EVERYTHING: Watch = Watch {
    key_share: 1.0,
    check_share: 0.0,
};

pub(super) fn default_config(
    service: &Service,
    endpoint: &Endpoint,
    version: u64,
) -> EndpointConfig {
    let (cache_enabled, reason) = if endpoint.method().is_safe() {
        let reason = "no policy is set for this endpoint: the default holds, unless the service's code has its own";
        (true, reason.to_owned())
    } else {
        (false, unsafe_reason(endpoint.method()))
    };
    let in_force = (cache_enabled, reason, Source::Default);
    assemble(service, endpoint, &Policy::default(), version, in_force)
}

fn assemble(
    service: &Service,
    endpoint: &Endpoint,
    policy: &Policy,
    version: u64,
    (cache_enabled, reason, source): (bool, String, Source),
) -> EndpointConfig {
    EndpointConfig {
        service_name: service.as_str().to_owned(),
        endpoint: endpoint.template().to_owned(),
        method: endpoint.method().as_str().to_owned(),
        cache_enabled,
        mode: policy.mode(),
        ttl_seconds: policy.ttl().as_secs_f64(),
        watch: None,
        jitter: policy.jitter(),
        stale_while_revalidate_seconds: policy.stale_while_revalidate().as_secs_f64(),
        stale_if_error_seconds: policy.stale_if_error().as_secs_f64(),
        negative_ttl_seconds: policy.negative_ttl().as_secs_f64(),
        soft_load_timeout_seconds: policy.soft_load_timeout().as_secs_f64(),
        load_timeout_seconds: policy.load_timeout().as_secs_f64(),
        max_value_bytes: policy.max_value_bytes(),
        include_query: policy.include_query().clone(),
        vary: policy.vary().to_vec(),
        tags: policy.tags().to_vec(),
        circuit_breaker: false,
        reason,
        source,
        version,
    }
}

fn unsafe_reason(method: &Method) -> String {
    format!("{method} is not a safe method, so its answers are never cached")
}

fn undecided() -> String {
    format!("auto: off until {MIN_ANSWERS} answers of the origin were measured")
}
