//! Every setting, its value, and where it came from.

use larder::Settings;
use serde_json::json;

use crate::output::{Column, Done, Output};

pub(crate) fn run(settings: &Settings, output: &Output) -> anyhow::Result<Done> {
    let list = settings.list();
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
