//! The checks of a Redis or Valkey server.

use std::time::Duration;

use larder::{AfterFailover, Product, RedisStore, Settings, Store as _, StoreError, Survey};

use super::{Checked, Report, Verdict, holes, secret_file};
use crate::output::bytes;

/// How long the server is waited for.
const PATIENCE: Duration = Duration::from_secs(3);
const OWN_USER: &str =
    "give Larder a user with the least rights (docs/stores.md) and put it into REDIS_URL";

pub(crate) async fn examine(store: &RedisStore, settings: &Settings) -> Report {
    let mut checks = match survey(store).await {
        Ok(surveys) => {
            let is_one = surveys.len() == 1;
            let of_each = surveys.iter().flat_map(|survey| {
                let checks = checks(survey, settings);
                checks.map(|(check, verdict)| match is_one {
                    true => (check, verdict),
                    false => (check, verdict.of(&survey.server)),
                })
            });
            of_each.collect()
        }
        Err(error) => vec![("connection", unreached(&error))],
    };
    let key = settings.redis_tls_key.as_deref();
    checks.extend(key.and_then(|path| secret_file("key file", path)));
    Report {
        store: store.name(),
        checks,
    }
}

fn checks(survey: &Survey, settings: &Settings) -> [Checked; 8] {
    [
        ("connection", Verdict::fine(greeting(survey))),
        ("password", password(survey)),
        ("rights", rights(survey)),
        ("encryption", encryption(survey, settings)),
        ("version", version(survey)),
        ("memory", memory(survey)),
        ("failover", failover(survey, settings.after_failover)),
        ("sharing", sharing(survey)),
    ]
}

/// A survey of each server; waited for, since there is nothing better to do.
async fn survey(store: &RedisStore) -> Result<Vec<Survey>, StoreError> {
    let begin = tokio::time::Instant::now();
    loop {
        match store.survey().await {
            Err(_) if begin.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            answer => return answer,
        }
    }
}

fn name(product: Product) -> &'static str {
    match product {
        Product::Redis => "Redis",
        Product::Valkey => "Valkey",
    }
}

fn greeting(survey: &Survey) -> String {
    let version = survey.version.as_deref().unwrap_or("of an unknown version");
    format!(
        "{} {version}, as the user {}",
        name(survey.product),
        survey.user
    )
}

fn unreached(error: &StoreError) -> Verdict {
    Verdict::warning(
        error.to_string(),
        "start the server, or set REDIS_URL to where it is; until then nothing is cached",
    )
}

fn password(survey: &Survey) -> Verdict {
    let is_open = match survey.default_access {
        Some(default) => Some(default.is_on && !default.needs_password),
        // Who got in without one knows.
        None if !survey.gave_password => Some(true),
        None => None,
    };
    match is_open {
        Some(true) if !survey.is_local => Verdict::warning(
            "whoever reaches the server gets in without a password",
            "set one for the default user (requirepass), or turn that user off (ACL SETUSER default off)",
        ),
        Some(true) => Verdict::fine("none is needed, and no network leads here by this address"),
        Some(false) => Verdict::fine("nobody gets in without one"),
        None => Verdict::unknown(
            "this user may not ask whether others get in without one",
            "look as an administrator: ACL GETUSER default",
        ),
    }
}

fn rights(survey: &Survey) -> Verdict {
    match survey.access {
        Some(access) if access.is_unlimited => Verdict::warning(
            format!("the user {} may do everything on the server", survey.user),
            OWN_USER,
        ),
        // One that may do everything may ask about itself, too.
        _ => Verdict::fine(format!("those of the user {} are limited", survey.user)),
    }
}

fn encryption(survey: &Survey, settings: &Settings) -> Verdict {
    let files = [
        &settings.redis_tls_ca,
        &settings.redis_tls_cert,
        &settings.redis_tls_key,
    ];
    if survey.is_secured {
        Verdict::fine("TLS, with the server's certificate checked")
    } else if files.iter().any(|file| file.is_some()) {
        Verdict::warning(
            "REDIS_TLS_… is set, but the URL is not one of TLS, so nothing is encrypted",
            "write rediss:// and the server's TLS port in REDIS_URL, or unset REDIS_TLS_…",
        )
    } else if survey.is_local {
        Verdict::fine("none, and no network in between")
    } else {
        Verdict::warning(
            "the password and all values go over the network as they are",
            "let the server speak TLS (tls-port), and write rediss:// in REDIS_URL (docs/stores.md)",
        )
    }
}

fn version(survey: &Survey) -> Verdict {
    let product = name(survey.product);
    let said = survey.version.as_deref().unwrap_or_default();
    let Some(release) = holes::release(said) else {
        return Verdict::unknown(
            format!("the server's version is not told, or is none: {said}"),
            "look yourself whether it has known holes",
        );
    };
    match holes::of(survey.product, release, survey.is_secured) {
        None => Verdict::fine(format!("{product} {said} has no hole that is known here")),
        Some((cves, (major, minor, patch))) => Verdict::warning(
            format!("{product} {said} has known holes: {}", cves.join(", ")),
            format!(
                "update to {major}.{minor}.{patch} or newer; a distribution may have mended it under the same number (Debian does: its changelog tells)"
            ),
        ),
    }
}

fn memory(survey: &Survey) -> Verdict {
    const SET_POLICY: &str = "set maxmemory-policy to allkeys-lfu or allkeys-lru";
    let Some(limit) = survey.max_memory else {
        return Verdict::unknown(
            "the server does not tell its maxmemory",
            "allow INFO, or look as an administrator: CONFIG GET maxmemory",
        );
    };
    let policy = survey
        .memory_policy
        .as_deref()
        .unwrap_or("an unknown policy");
    match (limit, policy) {
        (0, _) => Verdict::warning(
            "maxmemory is 0: the server takes memory until the machine has none",
            "set maxmemory, and maxmemory-policy to allkeys-lfu or allkeys-lru",
        ),
        (_, "noeviction") => Verdict::warning(
            "the policy is noeviction: once it is full, nothing more is stored",
            SET_POLICY,
        ),
        (_, "volatile-ttl") => Verdict::warning(
            "the policy is volatile-ttl: once it is full, what was stored for a short time goes first, used or not",
            SET_POLICY,
        ),
        _ => Verdict::fine(format!("at most {}, {policy}", bytes(limit))),
    }
}

fn failover(survey: &Survey, after_failover: AfterFailover) -> Verdict {
    match (after_failover, survey.tells_life) {
        (AfterFailover::Keep, _) => Verdict::fine(
            "LARDER_AFTER_FAILOVER=keep: the cache stays warm; what had been deleted may be back after a restart or a failover, for the rest of its life",
        ),
        (AfterFailover::Strict, true) => Verdict::fine(
            "after a restart or a failover the cache begins cold, and nothing that had been deleted comes back",
        ),
        (AfterFailover::Strict, false) => Verdict::warning(
            "the server does not tell this user which life it is in, so what it may have lost can't be told: plain entries are not read, others only over the connection that wrote them",
            "allow INFO (run_id, master_replid), or set LARDER_AFTER_FAILOVER=keep",
        ),
    }
}

fn sharing(survey: &Survey) -> Verdict {
    let Some(sample) = &survey.sample else {
        return Verdict::unknown(
            "the keys may not be looked at",
            "allow SCAN, which clearing needs, too",
        );
    };
    match sample.foreign {
        0 => Verdict::fine(format!(
            "of {} keys looked at, all are Larder's",
            sample.keys
        )),
        foreign => Verdict::warning(
            format!(
                "of {} keys looked at, {foreign} are other programs': {}",
                sample.keys,
                sample.prefixes.join(", ")
            ),
            "give the cache a server of its own: it is filled, and evicted from, as one; at least a database of its own (…/1)",
        ),
    }
}
