//! Every setting, its value, and where it came from.

use larder::{Origin, Setting, Settings};
use serde_json::json;

use crate::output::{Column, Done, Output};

/// Read from the environment alone, never from `.env`.
const FROM_ENVIRONMENT_ALONE: [&str; 4] = [
    "LARDER_ENV_FILE",
    "LARDER_CORE_DUMP",
    "NO_COLOR",
    "RUST_LOG",
];

pub(crate) fn run(settings: &Settings, output: &Output) -> anyhow::Result<Done> {
    let mut list = settings.list();
    list.extend(FROM_ENVIRONMENT_ALONE.map(from_environment));
    if output.is_json() {
        let list: Vec<_> = list
            .iter()
            .map(|setting| {
                json!({
                    "name": setting.name,
                    "value": setting.value,
                    "origin": setting.origin.to_string(),
                })
            })
            .collect();
        output.json(&list)?;
        return Ok(Done::Yes);
    }
    let rows = list
        .into_iter()
        .map(|setting| {
            vec![
                setting.name.to_owned(),
                setting.value,
                setting.origin.to_string(),
            ]
        })
        .collect();
    let columns = [
        Column::Text("SETTING"),
        Column::Text("VALUE"),
        Column::Text("FROM"),
    ];
    output.table(&columns, rows)?;
    Ok(Done::Yes)
}

fn from_environment(name: &'static str) -> Setting {
    let value = std::env::var_os(name).filter(|value| !value.is_empty());
    let origin = match value {
        Some(_) => Origin::Environment,
        None => Origin::Default,
    };
    let value = value.map_or_else(
        || "(unset)".to_owned(),
        |value| value.to_string_lossy().into_owned(),
    );
    Setting {
        name,
        value,
        origin,
    }
}
