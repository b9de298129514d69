//! What is printed: tables for people, JSON for programs, nothing that could steer a terminal.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use larder::escape;
use serde::Serialize;

/// What came of a command that could be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    Yes,
    NotThere,
    /// It was looked over, and there is something to change.
    Warned,
}

/// In which form to print.
pub(crate) struct Output {
    json: bool,
}

/// A column of a table.
pub(crate) enum Column {
    Text(&'static str),
    Number(&'static str),
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether colours are seen, and wanted (no-color.org).
    pub(crate) fn has_colours(&self) -> bool {
        let is_refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        std::io::stdout().is_terminal() && !is_refused
    }

    /// Prints a line for people. Its parts from outside must have been escaped.
    pub(crate) fn line(&self, line: &str) -> anyhow::Result<()> {
        print(format_args!("{line}\n"))
    }

    /// Prints JSON: `value` for programs.
    pub(crate) fn json<T: Serialize>(&self, value: &T) -> anyhow::Result<()> {
        self.json_text(&serde_json::to_string(value)?)
    }

    /// [`Output::json`] of a text that is JSON: what stands in it is printed as it is written there. Read and written
    /// anew, a number would lose digits.
    pub(crate) fn json_text(&self, text: &str) -> anyhow::Result<()> {
        print(format_args!("{}\n", escape_json(&lay_out(text))))
    }

    pub(crate) fn table(&self, columns: &[Column], rows: Vec<Vec<String>>) -> anyhow::Result<()> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(columns.iter().map(|column| match column {
            Column::Text(name) | Column::Number(name) => *name,
        }));
        for (index, column) in columns.iter().enumerate() {
            if let (Column::Number(_), Some(column)) = (column, table.column_mut(index)) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for row in rows {
            table.add_row(row.iter().map(|cell| escape(cell).into_owned()));
        }
        print(format_args!("{}\n", table.trim_fmt()))
    }

    /// Prints an error with all its causes, and what to do next where they say so.
    pub(crate) fn error(&self, error: &anyhow::Error) {
        let text = format!("{error:#}");
        let mut stderr = std::io::stderr();
        let (red, plain) = if stderr.is_terminal() {
            ("\u{1b}[31m", "\u{1b}[0m")
        } else {
            ("", "")
        };
        // There is nobody left to tell if this fails.
        let _ = writeln!(stderr, "{red}larder:{plain} {}", escape(&text));
    }
}

/// A closed pipe (`larder keys | head`) ends the printing, and is no error.
fn print(text: std::fmt::Arguments<'_>) -> anyhow::Result<()> {
    match std::io::stdout().write_fmt(text) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        written => Ok(written?),
    }
}

/// JSON text with a line for each member and element.
fn lay_out(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let (mut depth, mut is_in_string, mut is_escaped) = (0_usize, false, false);
    // Whether a line is to begin before what comes next.
    let mut is_due = false;
    let begin_line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    for character in json.chars() {
        if is_in_string {
            out.push(character);
            is_in_string = is_escaped || character != '"';
            is_escaped = !is_escaped && character == '\\';
            continue;
        }
        if character.is_ascii_whitespace() {
            continue;
        }
        let is_end = matches!(character, ']' | '}');
        if is_end {
            depth = depth.saturating_sub(1);
        }
        // An empty list or object stays in its line.
        if is_due != is_end {
            begin_line(&mut out, depth);
        }
        is_due = matches!(character, '[' | '{' | ',');
        depth += usize::from(matches!(character, '[' | '{'));
        is_in_string = character == '"';
        out.push(character);
        if character == ':' {
            out.push(' ');
        }
    }
    out
}

/// JSON text in which every character that could steer a terminal is written as `\u….`.
fn escape_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        let is_layout = matches!(character, '\n');
        let shown = character.to_string();
        if is_layout || escape(&shown) == shown {
            out.push(character);
            continue;
        }
        let mut units = [0; 2];
        for unit in character.encode_utf16(&mut units) {
            out.push_str(&format!("\\u{unit:04x}"));
        }
    }
    out
}

/// A time as people read it: `4m 12s`.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match (
        seconds / 86_400,
        seconds / 3_600 % 24,
        seconds / 60 % 60,
        seconds % 60,
    ) {
        (0, 0, 0, _) => format!("{:.1}s", time.as_secs_f64()),
        (0, 0, minutes, seconds) => format!("{minutes}m {seconds}s"),
        (0, hours, minutes, _) => format!("{hours}h {minutes}m"),
        (days, hours, _, _) => format!("{days}d {hours}h"),
    }
}

/// A size as people read it: `1.5 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1_024 {
        return format!("{count} B");
    }
    let mut size = count as f64 / 1_024.0;
    let mut unit = 0;
    while size >= 1_024.0 && unit + 1 < UNITS.len() {
        size /= 1_024.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_readable() {
        assert_eq!(
            [bytes(12), bytes(1_536), bytes(3 << 30)],
            ["12 B", "1.5 KiB", "3.0 GiB"]
        );
        let times =
            [900, 61_000, 7_260_000, 90_000_000].map(|ms| duration(Duration::from_millis(ms)));
        assert_eq!(times, ["0.9s", "1m 1s", "2h 1m", "1d 1h"]);
    }

    #[test]
    fn json_is_laid_out_and_its_values_stay_as_they_are_written() {
        let text = "{\"a\":[1.10,\r\n{},[ ]],\t\"[\\\"{,\":\"\\\\\"}";
        let expected =
            "{\n  \"a\": [\n    1.10,\n    {},\n    []\n  ],\n  \"[\\\"{,\": \"\\\\\"\n}";
        assert_eq!(lay_out(text), expected);
        for value in ["[]", "7", "\"a b\"", "{\"a\":null,\"b\":[1,[2]]}"] {
            let read: serde_json::Value = serde_json::from_str(value).unwrap();
            assert_eq!(lay_out(value), serde_json::to_string_pretty(&read).unwrap());
        }
    }

    #[test]
    fn json_carries_no_control_characters() {
        let text = serde_json::to_string("\u{9b}31m\u{202e}é\u{7f}").unwrap();
        let escaped = escape_json(&text);
        assert_eq!(escaped, r#""\u009b31m\u202eé\u007f""#);
        assert_eq!(
            serde_json::from_str::<String>(&escaped).unwrap(),
            "\u{9b}31m\u{202e}é\u{7f}"
        );
    }
}
