//! The file `.env`: read with care, taken literally.
//!
//! It may lie in a folder that somebody else prepared, so it is read only if it is a regular file of at most 64 KiB
//! that belongs to this user (or root) and that not everybody may write. Its values are literal: no `${NAME}`, no
//! command, no escape. They never enter the process environment.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

const MAX_BYTES: u64 = 64 << 10;

/// Who may own the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// This user, or root: for a file that was merely found.
    Ourselves,
    /// Anyone: for a file that was named (containers mount files of other users).
    Anyone,
}

/// Why the file is not read.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {why}", path = path.display())]
pub struct DotEnvError {
    path: PathBuf,
    why: String,
}

/// What the file sets; nothing if there is none and none was named.
pub(crate) fn read(path: &Path, owner: Owner) -> Result<HashMap<String, String>, DotEnvError> {
    let error = |why: String| DotEnvError {
        path: path.to_owned(),
        why,
    };
    let text = match open(path, owner) {
        Ok(Some(text)) => text,
        Ok(None) => return Ok(HashMap::new()),
        Err(why) => return Err(error(why)),
    };
    parse(&text).map_err(error)
}

fn open(path: &Path, owner: Owner) -> Result<Option<String>, String> {
    // Not blocking: a fifo would wait for a writer.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let flags = match owner {
        Owner::Ourselves => flags | OFlags::NOFOLLOW,
        Owner::Anyone => flags,
    };
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => std::fs::File::from(file),
        Err(Errno::NOENT) if owner == Owner::Ourselves => return Ok(None),
        Err(Errno::LOOP) => {
            return Err("is a symbolic link, which is not followed: name the file itself in LARDER_ENV_FILE".to_owned());
        }
        Err(error) => {
            return Err(format!(
                "can't be opened ({error}): make it readable, or remove it"
            ));
        }
    };
    let status = rustix::fs::fstat(&file).map_err(|error| error.to_string())?;
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
        return Err(
            "is not a regular file: remove it, or name another in LARDER_ENV_FILE".to_owned(),
        );
    }
    if owner == Owner::Ourselves {
        let us = rustix::process::geteuid().as_raw();
        if status.st_uid != us && status.st_uid != 0 {
            return Err("belongs to another user, who could point this service anywhere: own it (chown), or name it in LARDER_ENV_FILE if that is meant".to_owned());
        }
        if status.st_mode & 0o002 != 0 {
            return Err("can be written by everybody: run chmod o-w on it".to_owned());
        }
    }
    let mut text = String::new();
    file.take(MAX_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(|error| format!("can't be read as text ({error})"))?;
    if text.len() as u64 > MAX_BYTES {
        return Err("is larger than 64 KiB: it is meant for a few settings".to_owned());
    }
    Ok(Some(text))
}

/// Lines `NAME=value`; the last of equal names counts. No error shows a value: it may be a secret.
fn parse(text: &str) -> Result<HashMap<String, String>, String> {
    let mut values = HashMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let number = index + 1;
        let (name, value) = line
            .split_once('=')
            .ok_or_else(|| format!("line {number} is not NAME=value"))?;
        let name = name.trim();
        let is_name = !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_name {
            return Err(format!(
                "line {number} does not begin with a name of letters, digits and _"
            ));
        }
        let value = unquote(value).ok_or_else(|| {
            format!("line {number} has a quote that is not closed, or text behind it")
        })?;
        values.insert(name.to_owned(), value.to_owned());
    }
    Ok(values)
}

/// A value without its quotes, or without the comment behind it: a `#` begins one where a space or a tab stands before it.
fn unquote(value: &str) -> Option<&str> {
    let begun = value.trim_start();
    for quote in ['"', '\''] {
        if let Some(rest) = begun.strip_prefix(quote) {
            let (inner, behind) = rest.split_once(quote)?;
            let behind = behind.trim_start();
            return (behind.is_empty() || behind.starts_with('#')).then_some(inner);
        }
    }
    let is_comment = |at: &usize| value[..*at].ends_with(char::is_whitespace);
    let mut hashes = value.match_indices('#').map(|(at, _)| at);
    let end = hashes.find(is_comment).unwrap_or(value.len());
    Some(value[..end].trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_literal() {
        let text = "# a comment\nexport A=1\nB = \"two words\" # why\nC='#3'\nD=${HOME} $(id) \\n # why\nE=\nA=last\n";
        let values = parse(text).unwrap();
        let value = |name: &str| values[name].as_str();
        assert_eq!(
            ["A", "B", "C", "D", "E"].map(value),
            ["last", "two words", "#3", "${HOME} $(id) \\n", ""]
        );
    }

    #[test]
    fn a_comment_begins_behind_a_space_or_a_tab() {
        let values = parse("A= # nothing\nB=1\t# why\nC=#3\nD=a#b #c\nE =  'x' # y\n").unwrap();
        let value = |name: &str| values[name].as_str();
        assert_eq!(
            ["A", "B", "C", "D", "E"].map(value),
            ["", "1", "#3", "a#b", "x"]
        );
    }

    #[test]
    fn what_is_no_setting_is_an_error_with_its_line_and_without_its_value() {
        for text in [
            "A=1\nhunter2",
            "A=1\nB C=hunter2",
            "A=1\nB=\"hunter2",
            "A=1\n=hunter2",
        ] {
            let error = parse(text).unwrap_err();
            assert!(
                error.contains("line 2") && !error.contains("hunter2"),
                "{error}"
            );
        }
    }
}
