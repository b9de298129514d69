//! Reads the text of single settings; what can't be read is told in words that follow the setting's name.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use larder_core::Secret;
use larder_redis::AfterFailover;

use super::JournalSetting;

/// The least that an embedded store may be given, in bytes: 1 MiB.
const MIN_MAX_BYTES: u64 = 1 << 20;

pub(super) fn read_control_key(text: &Secret) -> Result<Secret, String> {
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

pub(super) fn read_socket_address(text: String) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "is not an address and a port: use 127.0.0.1:9100".to_owned())
}

pub(super) fn read_address(text: String) -> Result<IpAddr, String> {
    text.parse().map_err(|_| {
        "is not an address: use 127.0.0.1, or with API keys that of a network, or 0.0.0.0"
            .to_owned()
    })
}

/// Without anything that could be a secret, so that it may be shown.
pub(super) fn read_control_plane_url(text: String) -> Result<String, String> {
    let why = "is not the URL of a control plane: use http://host:port or https://host, without a user, a password or a query";
    let rest = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    let is_plain = rest.is_some_and(|rest| !rest.is_empty() && !rest.contains(['@', '?', '#']));
    is_plain.then_some(text).ok_or_else(|| why.to_owned())
}

/// Without user, password and parameters.
pub(super) fn shown_database(url: &Secret) -> String {
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

pub(super) fn read_path(text: String) -> Result<PathBuf, String> {
    Ok(text.into())
}

pub(super) fn read_journal(text: String) -> Result<JournalSetting, String> {
    Ok(match text.as_str() {
        "off" => JournalSetting::Off,
        _ => JournalSetting::Folder(text.into()),
    })
}

pub(super) fn read_after_failover(text: String) -> Result<AfterFailover, String> {
    match text.as_str() {
        "strict" => Ok(AfterFailover::Strict),
        "keep" => Ok(AfterFailover::Keep),
        _ => Err(
            "is neither: use strict (the cache begins cold, and nothing that was deleted comes back) or keep (it stays warm, and what a failover lost of deletes is back for the rest of its life)"
                .to_owned(),
        ),
    }
}

pub(super) fn read_port(text: String) -> Result<u16, String> {
    text.parse()
        .map_err(|_| "is not a port: use a number from 0 to 65535 (0: any free one)".to_owned())
}

pub(super) fn read_milliseconds(text: String) -> Result<u64, String> {
    text.parse()
        .ok()
        .filter(|ms| *ms <= 3_600_000)
        .ok_or_else(|| "is not a time: use whole milliseconds, at most 3600000".to_owned())
}

pub(super) fn read_list(text: String) -> Result<Vec<String>, String> {
    let names = text.split(',').map(|name| name.trim().to_ascii_lowercase());
    Ok(names.filter(|name| !name.is_empty()).collect())
}

pub(super) fn read_key_secret(text: String) -> Result<Secret, String> {
    if text.len() < 16 {
        return Err(
            "is shorter than 16 characters, so it could be guessed: use a long random text"
                .to_owned(),
        );
    }
    Ok(Secret::new(text))
}

pub(super) fn read_l1_bytes(text: String) -> Result<u64, String> {
    match text.trim() {
        "0" => Ok(0),
        _ => read_bytes(text).map_err(|why| format!("{why}; or 0 for none")),
    }
}

pub(super) fn read_bytes(text: String) -> Result<u64, String> {
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
