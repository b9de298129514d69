//! API keys of the control plane: made, listed, revoked; in its database, or over its API.

use std::time::{SystemTime, UNIX_EPOCH};

use larder::Settings;
use larder::api::{ApiKey, ApiKeyList, MadeApiKey, NewApiKey};
use larder_control::Keyring;
use reqwest::{Method, StatusCode};

use crate::args::{KeyAction, KeyCreate, Said, Where};
use crate::control;
use crate::history::when;
use crate::output::{Column, Done, Output};
use crate::policy_api::{ControlPlane, because, checked};

pub(crate) async fn run(
    action: KeyAction,
    settings: &Settings,
    output: &Output,
) -> anyhow::Result<Done> {
    match action {
        KeyAction::Create(create) => {
            let keys = Keys::open(create.place, settings).await?;
            let made = keys.create(&new(&create)).await?;
            tell(&made, output)
        }
        KeyAction::List { place } => {
            let keys = Keys::open(place, settings).await?.list().await?;
            list(keys, output)
        }
        KeyAction::Revoke { id, reason, place } => {
            let keys = Keys::open(place, settings).await?;
            let is_revoked = keys.revoke(&id, reason).await?;
            if output.is_json() {
                output.json(&serde_json::json!({ "revoked": is_revoked }))?;
            } else {
                output.line(match is_revoked {
                    true => "revoked: it is refused within seconds, and its streams end",
                    false => {
                        "there is no such key, or it was revoked before: larder key list shows them"
                    }
                })?;
            }
            Ok(match is_revoked {
                true => Done::Yes,
                false => Done::NotThere,
            })
        }
    }
}

/// Where keys are.
enum Keys {
    Database(Box<Keyring>),
    Remote(ControlPlane),
}

impl Keys {
    async fn open(place: Where, settings: &Settings) -> anyhow::Result<Self> {
        if place.remote {
            return Ok(Self::Remote(ControlPlane::of(settings)?));
        }
        let plane = control::plane_settings(settings)?;
        Ok(Self::Database(Box::new(Keyring::open(&plane).await?)))
    }

    async fn create(self, new: &NewApiKey) -> anyhow::Result<MadeApiKey> {
        match self {
            Self::Database(keys) => {
                let made = keys.create(new, Said::because(None).author()).await?;
                keys.close().await;
                Ok(made)
            }
            Self::Remote(plane) => {
                let request = plane.request(Method::POST, "/api/api-keys");
                let answer = plane.send(request.body(serde_json::to_vec(new)?)).await?;
                plane.read(checked(answer).await?).await
            }
        }
    }

    async fn list(self) -> anyhow::Result<Vec<ApiKey>> {
        match self {
            Self::Database(keys) => {
                let list = keys.list().await?;
                keys.close().await;
                Ok(list)
            }
            Self::Remote(plane) => {
                let list: ApiKeyList = plane.get("/api/api-keys").await?;
                Ok(list.keys)
            }
        }
    }

    /// `false`: there was none to revoke.
    async fn revoke(self, id: &str, reason: Option<String>) -> anyhow::Result<bool> {
        let said = Said::because(reason);
        match self {
            Self::Database(keys) => {
                let author = said.author();
                let is_revoked = keys.revoke(id, author, said.reason).await?;
                keys.close().await;
                Ok(is_revoked)
            }
            Self::Remote(plane) => {
                let is_id = id.bytes().all(|digit| digit.is_ascii_alphanumeric());
                if !is_id || id.is_empty() {
                    return Ok(false);
                }
                let path = because(format!("/api/api-keys/{id}"), &said);
                let answer = plane.send(plane.request(Method::DELETE, &path)).await?;
                if answer.status() == StatusCode::NOT_FOUND {
                    return Ok(false);
                }
                checked(answer).await?;
                Ok(true)
            }
        }
    }
}

fn new(create: &KeyCreate) -> NewApiKey {
    NewApiKey {
        name: create.name.clone(),
        role: create.role(),
        services: create.services(),
        expires_at_seconds: create.time.map(|time| now().saturating_add(time)),
        reason: create.reason.clone(),
    }
}

/// Prints the secret alone, so that a script can take it; what there is to know of it goes to standard error.
fn tell(made: &MadeApiKey, output: &Output) -> anyhow::Result<Done> {
    if output.is_json() {
        output.json(made)?;
        return Ok(Done::Yes);
    }
    output.line(&made.secret)?;
    let of = match made.key.services.join(", ").as_str() {
        "*" => "all services".to_owned(),
        services => services.to_owned(),
    };
    eprintln!(
        "key {} ({}) for {}: nothing shows this secret again. Services and larder take it from LARDER_CONTROL_KEY",
        larder::escape(&made.key.id),
        made.key.role.as_str(),
        larder::escape(&of)
    );
    Ok(Done::Yes)
}

fn list(keys: Vec<ApiKey>, output: &Output) -> anyhow::Result<Done> {
    if output.is_json() {
        output.json(&keys)?;
        return Ok(Done::Yes);
    }
    let row = |key: ApiKey| {
        let state = state(&key);
        let or_never = |at: Option<u64>| at.map_or_else(|| "never".to_owned(), when);
        vec![
            key.id,
            key.role.as_str().to_owned(),
            key.services.join(", "),
            key.name,
            state,
            or_never(key.used_at_seconds),
            when(key.made_at_seconds),
        ]
    };
    let columns = [
        Column::Text("ID"),
        Column::Text("ROLE"),
        Column::Text("SERVICES"),
        Column::Text("NAME"),
        Column::Text("STATE"),
        Column::Text("USED"),
        Column::Text("MADE"),
    ];
    output.table(&columns, keys.into_iter().map(row).collect())?;
    Ok(Done::Yes)
}

fn state(key: &ApiKey) -> String {
    match (key.revoked_at_seconds, key.expires_at_seconds) {
        (Some(at), _) => format!("revoked {}", when(at)),
        (None, Some(at)) if at <= now() => format!("over since {}", when(at)),
        (None, Some(at)) => format!("until {}", when(at)),
        (None, None) => "holds".to_owned(),
    }
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}
