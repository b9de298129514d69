//! A journal's records: one a line, each with its version and a checksum, so that a hostile or damaged one is known as such.
//!
//! `{checksum} 1 + {number} {item}` was added; `{checksum} 1 - {number},{number}` were applied. The checksum is the XXH3
//! of what stands behind it, in 16 hexadecimal digits. An item is `key {key}`, `pattern {pattern}`, `service {service}`,
//! `endpoint {service} {lane}` or `tag {service} {tag}`: no key, pattern or name has a line's end in it.

use std::fmt::Write as _;
use std::io::{self, Read};

use larder_model::{Key, Pattern, Service, Tag};
use twox_hash::XxHash3_64;

use super::invalidation::Item;
use super::tombstones::Pending;
use crate::version::{ENDPOINT_LANES, VersionName};

const VERSION: &str = "1";
/// No line is longer, in bytes: the longest item is a pattern or a key of 1,024.
const MAX_LINE: usize = 4_096;
/// A line names at most so many records that were applied.
const MARKS_PER_LINE: usize = 100;

/// Writes that these were added.
pub(super) fn write_added(added: &[Pending], out: &mut String) {
    for Pending { item, record } in added {
        write_line(out, |line| {
            let _ = write!(line, "{VERSION} + {record} ");
            write_item(item, line);
        });
    }
}

/// Writes that the records of these numbers were applied.
pub(super) fn write_applied(records: &[u64], out: &mut String) {
    for records in records.chunks(MARKS_PER_LINE) {
        write_line(out, |line| {
            let _ = write!(line, "{VERSION} - ");
            for (index, record) in records.iter().enumerate() {
                let comma = if index == 0 { "" } else { "," };
                let _ = write!(line, "{comma}{record}");
            }
        });
    }
}

// Writing to a `String` can't fail.
fn write_line(out: &mut String, write: impl FnOnce(&mut String)) {
    let mut line = String::new();
    write(&mut line);
    let checksum = XxHash3_64::oneshot(line.as_bytes());
    let _ = writeln!(out, "{checksum:016x} {line}");
}

fn write_item(item: &Item, line: &mut String) {
    let _ = match item {
        Item::Key(key) => write!(line, "key {key}"),
        Item::Pattern(pattern) => write!(line, "pattern {pattern}"),
        Item::Version(service, VersionName::Service) => write!(line, "service {service}"),
        Item::Version(service, VersionName::Endpoint(lane)) => {
            write!(line, "endpoint {service} {lane}")
        }
        Item::Version(service, VersionName::Tag(tag)) => write!(line, "tag {service} {tag}"),
    };
}

#[derive(Debug, PartialEq, Eq)]
enum Record {
    Added(u64, Item),
    Applied(Vec<u64>),
}

fn read_line(line: &[u8]) -> Option<Record> {
    if line.len() > MAX_LINE {
        return None;
    }
    let (checksum, line) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    if checksum != format!("{:016x}", XxHash3_64::oneshot(line.as_bytes())) {
        return None;
    }
    let line = line.strip_prefix(VERSION)?;
    if let Some(records) = line.strip_prefix(" - ") {
        let records = records.split(',').map(str::parse);
        return records.collect::<Result<_, _>>().ok().map(Record::Applied);
    }
    let (record, item) = line.strip_prefix(" + ")?.split_once(' ')?;
    Some(Record::Added(record.parse().ok()?, read_item(item)?))
}

fn read_item(text: &str) -> Option<Item> {
    let (kind, text) = text.split_once(' ')?;
    if kind == "key" {
        return Key::parse(text).ok().map(Item::Key);
    }
    if kind == "pattern" {
        return Pattern::parse(text).ok().map(Item::Pattern);
    }
    let (service, name) = match text.split_once(' ') {
        Some((service, name)) => (service, Some(name)),
        None => (text, None),
    };
    let name = match (kind, name) {
        ("service", None) => VersionName::Service,
        ("endpoint", Some(lane)) => {
            let lane = lane.parse().ok().filter(|lane| *lane < ENDPOINT_LANES)?;
            VersionName::Endpoint(lane)
        }
        ("tag", Some(tag)) => VersionName::Tag(Tag::new(tag).ok()?),
        _ => return None,
    };
    Some(Item::Version(Service::new(service).ok()?, name))
}

/// What a journal holds.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// What was added and not applied.
    pub(super) pending: Vec<Item>,
    /// The services that it names.
    pub(super) services: Vec<Service>,
    /// How many whole lines could not be read.
    pub(super) unreadable: usize,
    /// Whether it is larger than a journal can be, and was read in part.
    pub(super) is_cut: bool,
}

/// Reads a journal, at most so many bytes of it.
///
/// A last line without an end is that of a process which died in mid-write: nobody was told that it is kept.
pub(super) fn replay(file: impl Read, max_bytes: u64) -> io::Result<Replay> {
    let mut bytes = Vec::new();
    file.take(max_bytes + 1).read_to_end(&mut bytes)?;
    let mut replay = Replay {
        is_cut: bytes.len() as u64 > max_bytes,
        ..Replay::default()
    };
    let mut added = std::collections::HashMap::new();
    let mut services = std::collections::HashSet::new();
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
    for line in bytes[..whole].split(|byte| *byte == b'\n') {
        if line.is_empty() {
            continue;
        }
        match read_line(line) {
            Some(Record::Added(record, item)) => {
                services.insert(item.service());
                added.insert(record, item);
            }
            Some(Record::Applied(records)) => {
                for record in records {
                    added.remove(&record);
                }
            }
            None => replay.unreadable += 1,
        }
    }
    replay.pending = added.into_values().collect();
    replay.services = services.into_iter().collect();
    Ok(replay)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items() -> Vec<Item> {
        let service = Service::new("svc").unwrap();
        let version = |name| Item::Version(service.clone(), name);
        vec![
            Item::Key(Key::new("svc", "/a?b=1").unwrap()),
            Item::Key(Key::new("svc", &"/é".repeat(900)).unwrap()),
            Item::Pattern(Pattern::parse("cache:svc:/é and [a-c]*").unwrap()),
            version(VersionName::Service),
            version(VersionName::Endpoint(ENDPOINT_LANES - 1)),
            version(VersionName::Tag(Tag::new("product:1").unwrap())),
        ]
    }

    fn written(items: &[Item]) -> String {
        let mut out = String::new();
        let numbered = std::iter::zip(items.iter().cloned(), 1..);
        let added: Vec<_> = numbered
            .map(|(item, record)| Pending { item, record })
            .collect();
        write_added(&added, &mut out);
        out
    }

    fn read(text: impl AsRef<[u8]>) -> Replay {
        replay(text.as_ref(), 1 << 20).unwrap()
    }

    fn sorted(items: &[Item]) -> Vec<String> {
        let mut texts: Vec<_> = items.iter().map(|item| format!("{item:?}")).collect();
        texts.sort();
        texts
    }

    #[test]
    fn what_was_written_is_read() {
        let replay = read(written(&items()));
        assert_eq!(sorted(&replay.pending), sorted(&items()));
        assert_eq!((replay.unreadable, replay.is_cut), (0, false));
        assert_eq!(replay.services.len(), 1);
    }

    #[test]
    fn what_was_applied_is_not_pending() {
        let mut text = written(&items());
        write_applied(&[2, 3, 77], &mut text);
        let replay = read(&text);
        assert_eq!(replay.pending.len(), items().len() - 2);
        assert_eq!(replay.unreadable, 0);
        let all: Vec<u64> = (1..=1_000).collect();
        write_applied(&all, &mut text);
        assert_eq!((read(&text).pending.len(), read(&text).unreadable), (0, 0));
    }

    #[test]
    fn a_line_that_is_not_ours_is_counted_and_skipped() {
        let good = written(&items()[..1]);
        let sealed = |line: &str| {
            let mut out = String::new();
            write_line(&mut out, |text| text.push_str(line));
            out
        };
        for hostile in [
            "garbage\n".to_owned(),
            "\0\0\0\n".to_owned(),
            good.replace("/a", "/b"),
            sealed("2 + 1 key cache:svc:/a"),
            sealed("1 + 1 key larder:svc:/a"),
            sealed("1 + 1 pattern cache:*"),
            sealed("1 + 1 endpoint svc 4096"),
            sealed("1 + 1 service svc more"),
            sealed("1 + -1 service svc"),
            sealed("1 * 1 service svc"),
            sealed(&format!("1 + 1 tag svc {}", "a".repeat(129))),
            sealed(&format!("1 - {}", vec!["1"; 3_000].join(","))),
            sealed("1 - 1,x"),
        ] {
            let replay = read(format!("{hostile}{good}"));
            assert_eq!(replay.unreadable, 1, "{hostile}");
            assert_eq!(replay.pending, items()[..1], "{hostile}");
        }
        let not_text = [b"\xff\xfe\n".as_slice(), good.as_bytes()].concat();
        assert_eq!(read(not_text).unreadable, 1);
    }

    #[test]
    fn a_journal_that_was_cut_short_holds_what_is_whole() {
        let text = written(&items());
        let ends: Vec<_> = text.match_indices('\n').map(|(at, _)| at + 1).collect();
        for length in 0..text.len() {
            let replay = read(&text.as_bytes()[..length]);
            let whole = ends.iter().filter(|end| **end <= length).count();
            assert_eq!(replay.pending.len(), whole, "{length}");
            assert_eq!((replay.unreadable, replay.is_cut), (0, false), "{length}");
        }
    }

    #[test]
    fn what_is_too_large_is_read_in_part() {
        let text = written(&items());
        let replay = replay(text.as_bytes(), text.len() as u64 - 2).unwrap();
        assert!(replay.is_cut);
        assert_eq!(replay.pending.len(), items().len() - 1);
        let endless = super::replay(std::io::repeat(b'\n'), 1 << 16).unwrap();
        assert!(endless.is_cut && endless.pending.is_empty());
    }
}
