//! Users of the dashboard: made, listed, changed, removed; in the control plane's database, or over its API.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use anyhow::{Context as _, bail};
use larder::api::{NewUser, User, UserChange, UserList};
use larder::{Secret, Settings};
use larder_control::Keyring;
use reqwest::{Method, StatusCode};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::args::{Said, UserAction, UserOf, Where};
use crate::control;
use crate::history::when;
use crate::output::{Column, Done, Output};
use crate::policy_api::{ControlPlane, because, checked};

pub(crate) async fn run(
    action: UserAction,
    settings: &Settings,
    output: &Output,
) -> anyhow::Result<Done> {
    match action {
        UserAction::Create(user) => {
            let new = new(&user)?;
            let is_made = Users::open(user.place, settings).await?.create(new).await?;
            told(output, is_made, "made", "there is a user of this name")
        }
        UserAction::List { place } => {
            let users = Users::open(place, settings).await?.list().await?;
            list(users, output)
        }
        UserAction::Role(user) => {
            let change = UserChange {
                role: Some(user.role()),
                services: Some(user.services()),
                reason: user.reason,
                ..UserChange::default()
            };
            let users = Users::open(user.place, settings).await?;
            let is_changed = users.change(&user.name, change).await?;
            told(output, is_changed, "changed", ABSENT)
        }
        UserAction::Password { name, place } => {
            let change = UserChange {
                password: Some(password()?.expose().to_owned()),
                ..UserChange::default()
            };
            let users = Users::open(place, settings).await?;
            let is_changed = users.change(&name, change).await?;
            told(output, is_changed, "changed", ABSENT)
        }
        UserAction::Remove {
            name,
            reason,
            place,
        } => {
            let users = Users::open(place, settings).await?;
            let is_removed = users.remove(&name, reason).await?;
            told(output, is_removed, "removed", ABSENT)
        }
    }
}

const ABSENT: &str = "there is no such user: larder user list shows them";

fn told(output: &Output, is_done: bool, done: &str, not: &str) -> anyhow::Result<Done> {
    if output.is_json() {
        output.json(&serde_json::json!({ "done": is_done }))?;
    } else {
        output.line(if is_done { done } else { not })?;
    }
    Ok(match is_done {
        true => Done::Yes,
        false => Done::NotThere,
    })
}

/// Where users are.
enum Users {
    Database(Box<Keyring>),
    Remote(ControlPlane),
}

impl Users {
    async fn open(place: Where, settings: &Settings) -> anyhow::Result<Self> {
        if place.remote {
            return Ok(Self::Remote(ControlPlane::of(settings)?));
        }
        let plane = control::plane_settings(settings)?;
        Ok(Self::Database(Box::new(Keyring::open(&plane).await?)))
    }

    /// `false`: there is one of this name.
    async fn create(self, new: NewUser) -> anyhow::Result<bool> {
        match self {
            Self::Database(users) => {
                let is_made = users.create_user(new, Said::because(None).author()).await?;
                users.close().await;
                Ok(is_made)
            }
            Self::Remote(plane) => {
                let request = plane.request(Method::POST, "/api/users");
                let request = request.body(serde_json::to_vec(&new)?);
                done(&plane, request, StatusCode::CONFLICT).await
            }
        }
    }

    async fn list(self) -> anyhow::Result<Vec<User>> {
        match self {
            Self::Database(users) => {
                let list = users.users().await?;
                users.close().await;
                Ok(list)
            }
            Self::Remote(plane) => {
                let list: UserList = plane.get("/api/users").await?;
                Ok(list.users)
            }
        }
    }

    /// `false`: there is none.
    async fn change(self, name: &str, change: UserChange) -> anyhow::Result<bool> {
        match self {
            Self::Database(users) => {
                let author = Said::because(None).author();
                let is_changed = users.change_user(name, change, author).await?;
                users.close().await;
                Ok(is_changed)
            }
            Self::Remote(plane) => {
                let request = plane.request(Method::PUT, &path(name)?);
                let request = request.body(serde_json::to_vec(&change)?);
                done(&plane, request, StatusCode::NOT_FOUND).await
            }
        }
    }

    /// `false`: there is none.
    async fn remove(self, name: &str, reason: Option<String>) -> anyhow::Result<bool> {
        let said = Said::because(reason);
        match self {
            Self::Database(users) => {
                let author = said.author();
                let is_removed = users.remove_user(name, author, said.reason).await?;
                users.close().await;
                Ok(is_removed)
            }
            Self::Remote(plane) => {
                let request = plane.request(Method::DELETE, &because(path(name)?, &said));
                done(&plane, request, StatusCode::NOT_FOUND).await
            }
        }
    }
}

/// Whether it was done; `not`: it was not.
async fn done(
    plane: &ControlPlane,
    request: reqwest::RequestBuilder,
    not: StatusCode,
) -> anyhow::Result<bool> {
    let answer = plane.send(request).await?;
    if answer.status() == not {
        return Ok(false);
    }
    checked(answer).await?;
    Ok(true)
}

fn path(name: &str) -> anyhow::Result<String> {
    let is_letter =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'@');
    let is_name = name.starts_with(|first: char| first.is_ascii_alphanumeric());
    if !is_name || !name.bytes().all(is_letter) {
        bail!("a user's name is 1 to 64 of A-Z a-z 0-9 . _ - @, and begins with a letter or digit");
    }
    Ok(format!("/api/users/{name}"))
}

fn new(user: &UserOf) -> anyhow::Result<NewUser> {
    Ok(NewUser {
        name: user.name.clone(),
        role: user.role(),
        services: user.services(),
        password: password()?.expose().to_owned(),
        reason: user.reason.clone(),
    })
}

/// Asked for twice on a terminal, where it is not shown; else the first line of standard input.
fn password() -> anyhow::Result<Secret> {
    if !std::io::stdin().is_terminal() {
        return line();
    }
    let first = ask("Password (12 characters or more): ")?;
    let second = ask("The same again: ")?;
    if first.expose() != second.expose() {
        bail!("these are two different passwords: nothing was changed");
    }
    Ok(first)
}

fn ask(question: &str) -> anyhow::Result<Secret> {
    let stdin = std::io::stdin();
    eprint!("{question}");
    std::io::stderr().flush()?;
    let shown = tcgetattr(&stdin).context("the terminal can't be asked")?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Flush, &hidden)?;
    let typed = line();
    tcsetattr(&stdin, OptionalActions::Flush, &shown)?;
    eprintln!();
    typed
}

fn line() -> anyhow::Result<Secret> {
    // With room for a long one from the start, so that no part is left behind by growing.
    let mut line = String::with_capacity(4_096);
    let read = std::io::stdin().lock().read_line(&mut line);
    let line = Secret::new(line);
    if read? == 0 {
        bail!("there is no password on standard input: type it, or send it there");
    }
    let text = line.expose().trim_end_matches(['\r', '\n']);
    Ok(Secret::new(text.to_owned()))
}

fn list(users: Vec<User>, output: &Output) -> anyhow::Result<Done> {
    if output.is_json() {
        output.json(&users)?;
        return Ok(Done::Yes);
    }
    let row = |user: User| {
        vec![
            user.name,
            user.role.as_str().to_owned(),
            user.services.join(", "),
            when(user.made_at_seconds),
        ]
    };
    let columns = [
        Column::Text("NAME"),
        Column::Text("ROLE"),
        Column::Text("SERVICES"),
        Column::Text("MADE"),
    ];
    output.table(&columns, users.into_iter().map(row).collect())?;
    Ok(Done::Yes)
}
