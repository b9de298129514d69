//! The part of `docs/benchmarks.md` that is measured: tables and charts, between two markers; the rest is written by
//! hand, and stays.

use std::path::Path;

use anyhow::Context as _;

use crate::charts::{Bars, Group, bars, lines};
use crate::results::{Comparison, Figure, Results, Series};
use crate::rounds::median;

const BEGIN: &str = "<!-- measured: begin (./scripts/bench writes what is between these lines) -->";
const END: &str = "<!-- measured: end -->";

/// Where things are, from the root of the repository.
const RESULTS: &str = "bench/results/marks.json";
const DOCUMENT: &str = "docs/benchmarks.md";
const CHARTS: &str = "docs/benchmarks";

/// A part of the document: the rows whose names begin like this.
struct Section {
    title: &'static str,
    prefix: &'static str,
    /// Whether its comparisons have a chart of their own.
    is_charted: bool,
}

const SECTIONS: [Section; 13] = [
    section("In the process", "in_process", true),
    section("Embedded", "embedded", true),
    section("Redis", "redis hit", true),
    section("Redis, many at once", "redis cluster", false),
    section("HTTP", "http", true),
    section("Guarantees", "guarantees", false),
    section("With Redis away", "redis ", false),
    section("Under attack", "config", false),
    section("Streams", "streams", false),
    section("Conditional reads", "conditional", false),
    section("Policies in a service", "policies", false),
    section("What a hit costs", "costs", false),
    section("Growth", "growth", false),
];

const fn section(title: &'static str, prefix: &'static str, is_charted: bool) -> Section {
    Section {
        title,
        prefix,
        is_charted,
    }
}

impl Section {
    /// Whether a row of this name is one of this section's: the first whose prefix fits has it.
    fn has(&self, name: &str) -> bool {
        let first = SECTIONS
            .iter()
            .find(|section| name.starts_with(section.prefix));
        first.is_some_and(|section| section.title == self.title)
    }

    fn slug(&self) -> String {
        self.title.to_lowercase().replace([' ', ','], "-")
    }
}

/// What was measured before, if there is something.
pub(crate) fn earlier(root: &Path) -> anyhow::Result<Option<Results>> {
    let path = root.join(RESULTS);
    if !path.exists() {
        return Ok(None);
    }
    let text = std::fs::read(&path)?;
    let results = serde_json::from_slice(&text);
    Ok(Some(results.with_context(|| {
        format!(
            "{} is of another form: delete it, and run all",
            path.display()
        )
    })?))
}

/// Writes the results, the charts, and the document's measured part.
pub(crate) fn write(root: &Path, results: &Results) -> anyhow::Result<()> {
    let path = root.join(DOCUMENT);
    let document = std::fs::read_to_string(&path)?;
    let (before, rest) = document
        .split_once(BEGIN)
        .with_context(|| format!("{} has no line {BEGIN}", path.display()))?;
    let (_, after) = rest
        .split_once(END)
        .with_context(|| format!("{} has no line {END}", path.display()))?;
    let charts = root.join(CHARTS);
    std::fs::create_dir_all(&charts)?;
    for (name, svg) in draw(results) {
        std::fs::write(charts.join(name), svg)?;
    }
    let measured = markdown(results, true);
    let text = format!("{before}{BEGIN}\n\n{measured}\n{END}{after}");
    std::fs::write(&path, text)?;
    let json = serde_json::to_string_pretty(results)?;
    Ok(std::fs::write(root.join(RESULTS), json + "\n")?)
}

/// All tables, with or without the charts beside them.
pub(crate) fn markdown(results: &Results, with_charts: bool) -> String {
    let mut text = format!("{}.\n", results.machine);
    let days = days(results);
    match (days.first(), days.last()) {
        (Some(first), Some(last)) if first == last => {
            text.push_str(&format!("\nMeasured on {first}.\n"));
        }
        (Some(first), Some(last)) => {
            text.push_str(&format!("\nMeasured from {first} to {last}.\n"));
        }
        _ => {}
    }
    for section in &SECTIONS {
        let comparisons: Vec<_> = in_section(&results.comparisons, section, |row| &row.name);
        let figures: Vec<_> = in_section(&results.figures, section, |row| &row.name);
        let series: Vec<_> = in_section(&results.series, section, |row| &row.name);
        if comparisons.is_empty() && figures.is_empty() && series.is_empty() {
            continue;
        }
        text.push_str(&format!("\n## {}\n", section.title));
        if with_charts && section.is_charted && !comparisons.is_empty() {
            text.push_str(&image(section.title, &format!("{}.svg", section.slug())));
        }
        if !comparisons.is_empty() {
            text.push_str(&comparison_table(&comparisons));
        }
        if !figures.is_empty() {
            text.push_str(&figure_table(&figures));
        }
        for series in series {
            text.push_str(&format!("\n**{}**, {}\n", series.name, series.unit));
            if with_charts {
                text.push_str(&image(&series.name, &chart_name(series)));
            }
            text.push_str(&series_table(series));
        }
    }
    text
}

fn in_section<'a, T>(rows: &'a [T], section: &Section, name: impl Fn(&T) -> &String) -> Vec<&'a T> {
    rows.iter().filter(|row| section.has(name(row))).collect()
}

fn days(results: &Results) -> Vec<&str> {
    let comparisons = results.comparisons.iter().map(|row| &*row.measured);
    let figures = results.figures.iter().map(|row| &*row.measured);
    let series = results.series.iter().map(|row| &*row.measured);
    let mut days: Vec<&str> = comparisons.chain(figures).chain(series).collect();
    days.sort_unstable();
    days
}

fn image(title: &str, name: &str) -> String {
    format!("\n![{title}](benchmarks/{name})\n")
}

fn comparison_table(rows: &[&Comparison]) -> String {
    let mut text = "\n| what | Larder | peer | unit | ratio | mark | |\n| --- | ---: | ---: | --- | ---: | ---: | --- |\n".to_owned();
    for row in rows {
        text.push_str(&format!(
            "| {} | {} | {} {} | {} | {:.2} | {} | {} |\n",
            row.name,
            spread(&row.rounds.ours),
            spread(&row.rounds.theirs),
            row.peer,
            row.unit,
            row.rounds.ratio(),
            row.mark.map_or_else(String::new, |mark| mark.to_string()),
            verdict(row.mark.is_some(), row.is_met()),
        ));
    }
    text
}

fn figure_table(rows: &[&Figure]) -> String {
    let mut text =
        "\n| what | Larder | unit | mark | |\n| --- | ---: | --- | ---: | --- |\n".to_owned();
    for row in rows {
        text.push_str(&format!(
            "| {} | {} | {} | {} | {} |\n",
            row.name,
            spread(&row.values),
            row.unit,
            row.mark.map_or_else(String::new, |mark| mark.to_string()),
            verdict(row.mark.is_some(), row.is_met()),
        ));
    }
    text
}

fn series_table(series: &Series) -> String {
    let mut text = format!("\n| {} |", series.axis);
    for line in &series.lines {
        text.push_str(&format!(" {} |", line.side));
    }
    text.push_str("\n| ---: |");
    text.push_str(&" ---: |".repeat(series.lines.len()));
    text.push('\n');
    let places = series.lines.first().map_or(&[][..], |line| &line.points);
    for place in places {
        text.push_str(&format!("| {} |", place.at));
        for line in &series.lines {
            let point = line.points.iter().find(|point| point.at == place.at);
            let cell = point.map_or_else(String::new, |point| spread(&point.values));
            text.push_str(&format!(" {cell} |"));
        }
        text.push('\n');
    }
    text
}

fn verdict(has_mark: bool, is_met: bool) -> &'static str {
    match (has_mark, is_met) {
        (false, _) => "",
        (true, true) => "met",
        (true, false) => "**missed**",
    }
}

/// The median, with the least and the most where there are several.
fn spread(values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    let middle = median(values);
    let digits = if middle < 10.0 { 2 } else { 0 };
    if least == most {
        return format!("{middle:.digits$}");
    }
    format!("{middle:.digits$} ({least:.digits$}–{most:.digits$})")
}

/// The charts, with their files' names.
fn draw(results: &Results) -> Vec<(String, String)> {
    let mut charts = Vec::new();
    for section in SECTIONS.iter().filter(|section| section.is_charted) {
        let rows = in_section(&results.comparisons, section, |row| &row.name);
        if let Some(first) = rows.first() {
            let chart = Bars {
                title: section.title,
                unit: &first.unit,
                groups: groups(&rows),
            };
            charts.push((format!("{}.svg", section.slug()), bars(&chart)));
        }
    }
    for series in &results.series {
        charts.push((chart_name(series), lines(series)));
    }
    charts
}

fn chart_name(series: &Series) -> String {
    let name = series.name.replace(", ", "-").replace([' ', '_'], "-");
    format!("{name}.svg")
}

/// One group for each name: Larder, and its peers.
fn groups(rows: &[&Comparison]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for row in rows {
        let peer = (row.peer.clone(), median(&row.rounds.theirs));
        if let Some(group) = groups.iter_mut().find(|group| group.name == row.name) {
            group.bars.push(peer);
            continue;
        }
        let ours: Vec<f64> = rows
            .iter()
            .filter(|other| other.name == row.name)
            .flat_map(|other| other.rounds.ours.iter().copied())
            .collect();
        groups.push(Group {
            name: row.name.clone(),
            bars: vec![("Larder".to_owned(), median(&ours)), peer],
        });
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use crate::results::Mark;
    use crate::rounds::Rounds;

    fn results() -> Results {
        let mut results = Results::new(Machine::default());
        results.comparisons.push(Comparison {
            name: "in_process hit, 10 keys".to_owned(),
            peer: "moka".to_owned(),
            unit: "ns".to_owned(),
            mark: Some(Mark::AtMost(0.6)),
            rounds: Rounds {
                ours: vec![90.0, 100.0, 110.0],
                theirs: vec![100.0, 100.0, 100.0],
            },
            measured: "2026-11-25".to_owned(),
        });
        results
    }

    #[test]
    fn what_is_written_by_hand_stays() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["docs", "bench/results"] {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let document = root.path().join(DOCUMENT);
        std::fs::write(&document, format!("before\n{BEGIN}\nold\n{END}\nafter\n")).unwrap();
        for _ in 0..2 {
            write(root.path(), &results()).unwrap();
            let text = std::fs::read_to_string(&document).unwrap();
            assert!(text.starts_with("before\n"), "{text}");
            assert!(text.ends_with("\nafter\n"), "{text}");
            assert!(!text.contains("old"), "{text}");
            let row = "| in_process hit, 10 keys | 100 (90–110) | 100 moka | ns | 1.00 | ≤ 0.6 | **missed** |";
            assert_eq!(text.matches(row).count(), 1, "{text}");
        }
        assert!(root.path().join(CHARTS).join("in-the-process.svg").exists());
        let kept = earlier(root.path()).unwrap().unwrap();
        assert_eq!(kept.missed(), 1);
    }

    #[test]
    fn a_document_without_the_markers_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("docs")).unwrap();
        let document = root.path().join(DOCUMENT);
        std::fs::write(&document, "by hand").unwrap();
        assert!(write(root.path(), &results()).is_err());
        assert_eq!(std::fs::read_to_string(&document).unwrap(), "by hand");
    }

    #[test]
    fn every_row_is_in_one_section() {
        for (name, title) in [
            ("redis hit, 10 keys, 1 tasks", "Redis"),
            ("redis hit on one thread, 10 keys, 64 tasks", "Redis"),
            ("redis cluster get_many, 100 keys", "Redis, many at once"),
            ("guarantees redis hits, 10 keys", "Guarantees"),
            (
                "redis stopped, a lookup without its load, p99",
                "With Redis away",
            ),
            ("config read under attack, p99", "Under attack"),
            ("growth embedded, hit", "Growth"),
        ] {
            let having: Vec<_> = SECTIONS
                .iter()
                .filter(|section| section.has(name))
                .map(|section| section.title)
                .collect();
            assert_eq!(having, [title], "{name}");
        }
    }
}
