//! Looks over the store that the settings name, and says what is to be changed about it, each with the next step.
//!
//! A check is a function from what was found out to a [`Verdict`]; it stands in the list of its store.

mod embedded;
mod holes;
mod redis;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use larder::Settings;
use serde_json::json;

use crate::output::{Column, Done, Output};

/// What a check has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// There is nothing to do; what was seen.
    Fine(String),
    /// Something is to be changed.
    Warning { what: String, next: String },
    /// It can't be told.
    Unknown { what: String, next: String },
}

impl Verdict {
    fn fine(what: impl Into<String>) -> Self {
        Self::Fine(what.into())
    }

    fn warning(what: impl Into<String>, next: impl Into<String>) -> Self {
        Self::Warning {
            what: what.into(),
            next: next.into(),
        }
    }

    fn unknown(what: impl Into<String>, next: impl Into<String>) -> Self {
        Self::Unknown {
            what: what.into(),
            next: next.into(),
        }
    }

    /// The same, of one server among several.
    fn of(self, server: &str) -> Self {
        let named = |what| format!("{server}: {what}");
        match self {
            Self::Fine(what) => Self::Fine(named(what)),
            Self::Warning { what, next } => Self::warning(named(what), next),
            Self::Unknown { what, next } => Self::unknown(named(what), next),
        }
    }

    /// Its name, what was seen, and what to do.
    fn parts(&self) -> (&'static str, &str, Option<&str>) {
        match self {
            Self::Fine(what) => ("ok", what, None),
            Self::Warning { what, next } => ("warning", what, Some(next)),
            Self::Unknown { what, next } => ("unknown", what, Some(next)),
        }
    }
}

/// What was looked at, and what came out.
type Checked = (&'static str, Verdict);

/// A store, and all that was checked of it.
struct Report {
    store: String,
    checks: Vec<Checked>,
}

pub(crate) async fn run(settings: &Settings, output: &Output) -> anyhow::Result<Done> {
    let mut report = match larder::open_redis(settings)? {
        Some(store) => redis::examine(&store, settings).await,
        None => embedded::examine(settings).await,
    };
    let seal_keys = settings.seal_keys_file.as_deref();
    let seal_keys = seal_keys.and_then(|path| secret_file("seal keys file", path));
    report.checks.extend(seal_keys);
    let is_warning = |(_, verdict): &&Checked| matches!(verdict, Verdict::Warning { .. });
    let warnings = report.checks.iter().filter(is_warning).count();
    if output.is_json() {
        print_json(&report, warnings, output)?;
    } else {
        print_table(&report, warnings, output)?;
    }
    Ok(match warnings {
        0 => Done::Yes,
        _ => Done::Warned,
    })
}

/// Who may read a file that holds a secret; nothing if there is none, of which the settings tell.
fn secret_file(check: &'static str, path: &Path) -> Option<Checked> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode();
    let path = path.display();
    let verdict = match mode & 0o004 {
        0 => Verdict::fine(format!("{path} is not for everybody to read")),
        _ => Verdict::warning(
            format!("{path}, which holds a key, may be read by every user"),
            format!("chmod o-r {path}"),
        ),
    };
    Some((check, verdict))
}

fn print_json(report: &Report, warnings: usize, output: &Output) -> anyhow::Result<()> {
    let checks: Vec<_> = report
        .checks
        .iter()
        .map(|(check, verdict)| {
            let (verdict, what, next) = verdict.parts();
            json!({"check": check, "verdict": verdict, "what": what, "next": next})
        })
        .collect();
    output.json(&json!({"store": report.store, "warnings": warnings, "checks": checks}))
}

fn print_table(report: &Report, warnings: usize, output: &Output) -> anyhow::Result<()> {
    output.line(&format!("{}\n", larder::escape(&report.store)))?;
    let mut rows = Vec::new();
    for (check, verdict) in &report.checks {
        let (verdict, what, next) = verdict.parts();
        rows.push(vec![
            (*check).to_owned(),
            verdict.to_owned(),
            what.to_owned(),
        ]);
        rows.extend(next.map(|next| vec![String::new(), String::new(), format!("-> {next}")]));
    }
    let columns = [
        Column::Text("CHECK"),
        Column::Text("VERDICT"),
        Column::Text("WHAT, AND WHAT TO DO"),
    ];
    output.table(&columns, rows)?;
    output.line(&match warnings {
        0 => "\nnothing to warn of".to_owned(),
        1 => "\n1 warning".to_owned(),
        count => format!("\n{count} warnings"),
    })
}
