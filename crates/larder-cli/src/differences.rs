//! What differs, for people: a line for each field, one below the other.

use larder::api::{Difference, Kind};
use larder::escape;
use serde_json::{Map, Value};

use crate::output::Output;

const GREEN: &str = "\u{1b}[32m";
const YELLOW: &str = "\u{1b}[33m";
const RED: &str = "\u{1b}[31m";
const PLAIN: &str = "\u{1b}[0m";

/// A field of an endpoint; the endpoint's name stands in the first of its lines.
struct Line {
    sign: char,
    endpoint: String,
    field: String,
    values: String,
}

/// Prints what differs: `+` for what is new, `-` for what is gone, `~` for what is otherwise.
pub(crate) fn print(changes: &[Difference], output: &Output) -> anyhow::Result<()> {
    for line in rendered(changes, output.has_colours()) {
        output.line(&line)?;
    }
    Ok(())
}

fn rendered(changes: &[Difference], has_colours: bool) -> Vec<String> {
    let lines: Vec<Line> = changes.iter().flat_map(lines_of).collect();
    let width = |of: fn(&Line) -> &str| {
        let widths = lines.iter().map(|line| of(line).chars().count());
        widths.max().unwrap_or_default()
    };
    let (endpoints, fields) = (width(|line| &line.endpoint), width(|line| &line.field));
    let laid_out = lines.iter().map(|line| {
        let Line {
            sign,
            endpoint,
            field,
            values,
        } = line;
        let text = format!("{sign} {endpoint:<endpoints$}  {field:<fields$}  {values}");
        let text = text.trim_end();
        match has_colours {
            true => format!("{}{text}{PLAIN}", colour(*sign)),
            false => text.to_owned(),
        }
    });
    laid_out.collect()
}

fn colour(sign: char) -> &'static str {
    match sign {
        '+' => GREEN,
        '-' => RED,
        _ => YELLOW,
    }
}

fn lines_of(change: &Difference) -> Vec<Line> {
    let of_kind = match change.kind {
        Kind::Policy => "",
        Kind::Override => " (override)",
        Kind::Decision => " (decision)",
    };
    let name = format!("{}{of_kind}", escape(&change.endpoint));
    let (sign, fields) = match (&change.before, &change.after) {
        (None, Some(after)) => ('+', each(after)),
        (Some(before), None) => ('-', each(before)),
        (Some(before), Some(after)) => ('~', both(before, after)),
        (None, None) => return Vec::new(),
    };
    let mut name = Some(name);
    fields
        .into_iter()
        .map(|(field, values)| Line {
            sign,
            endpoint: name.take().unwrap_or_default(),
            field,
            values,
        })
        .collect()
}

/// All fields; where there is none, a line all the same.
fn each(fields: &Value) -> Vec<(String, String)> {
    let fields = fields.as_object().filter(|fields| !fields.is_empty());
    match fields {
        Some(fields) => fields
            .iter()
            .map(|(field, value)| (escape(field).into_owned(), shown(Some(value))))
            .collect(),
        None => vec![("(all by default)".to_owned(), String::new())],
    }
}

/// The fields that are not as they were.
fn both(before: &Value, after: &Value) -> Vec<(String, String)> {
    let none = Map::new();
    let before = before.as_object().unwrap_or(&none);
    let after = after.as_object().unwrap_or(&none);
    let new = after.keys().filter(|field| !before.contains_key(*field));
    let changed = before
        .keys()
        .chain(new)
        .filter(|field| before.get(*field) != after.get(*field));
    let lines: Vec<_> = changed
        .map(|field| {
            let values = format!("{} → {}", shown(before.get(field)), shown(after.get(field)));
            (escape(field).into_owned(), values)
        })
        .collect();
    match lines.is_empty() {
        // The names of parameters alone.
        true => vec![("(named otherwise)".to_owned(), String::new())],
        false => lines,
    }
}

fn shown(value: Option<&Value>) -> String {
    match value {
        None => "(unset)".to_owned(),
        Some(Value::String(text)) => escape(text).into_owned(),
        Some(value) => escape(&value.to_string()).into_owned(),
    }
}

/// The fields of a policy one behind the other: `mode="on" ttl_seconds=60`.
pub(crate) fn in_a_line(fields: &Value) -> String {
    let fields = fields.as_object().cloned().unwrap_or_default();
    let fields: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    fields.join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn change(kind: Kind, endpoint: &str, before: Value, after: Value) -> Difference {
        let some = |value: Value| Some(value).filter(|value| !value.is_null());
        Difference {
            kind,
            endpoint: endpoint.to_owned(),
            before: some(before),
            after: some(after),
        }
    }

    #[test]
    fn fields_stand_below_each_other() {
        let changes = [
            change(
                Kind::Policy,
                "/new/{id}",
                Value::Null,
                json!({"mode": "on", "ttl_seconds": 60}),
            ),
            change(
                Kind::Policy,
                "/a",
                json!({"jitter": 0.5, "ttl_seconds": 60}),
                json!({"ttl_seconds": 5, "jitter": 0.5, "vary": ["accept"]}),
            ),
            change(Kind::Policy, "POST /gone", json!({}), Value::Null),
            change(Kind::Override, "/a", json!({"mode": "off"}), Value::Null),
        ];
        let expected = [
            "+ /new/{id}      mode              on",
            "+                ttl_seconds       60",
            "~ /a             ttl_seconds       60 → 5",
            "~                vary              (unset) → [\"accept\"]",
            "- POST /gone     (all by default)",
            "- /a (override)  mode              off",
        ];
        assert_eq!(rendered(&changes, false), expected);
        let coloured = rendered(&changes, true);
        assert_eq!(coloured[2], format!("{YELLOW}{}{PLAIN}", expected[2]));
    }

    #[test]
    fn nothing_from_outside_steers_a_terminal() {
        let changes = [change(
            Kind::Decision,
            "/\u{1b}[31m",
            json!({"reason": "\u{1b}]0;x\u{7}"}),
            json!({"\u{9b}2J": "\n", "reason": ["\u{202e}"]}),
        )];
        let all = rendered(&changes, false).join("");
        assert!(
            !all.chars().any(|one| one.is_control() || one == '\u{202e}'),
            "{all:?}"
        );
    }
}
