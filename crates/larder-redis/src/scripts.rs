//! Scripts: what a server does in one step that no single command does. Their texts are constants; keys and values go
//! beside them (SECURITY SF-7).

use crate::command::{Command, Expect};
use crate::resp::Value;
use crate::servers::{Answer, Servers};
use larder_core::Guard;

/// Stores an entry for who holds its lease, and ends that: 1; 0: it does not hold; 2: another entry came in between.
///
/// Keys: lease, entry. Arguments: the token; what is expected there (see `crate::lease::Expected`); `EX` or `PX` and the
/// life; the value. Without a first line that says what it is, it may delete in a server that is full.
pub(crate) const FILL: &str = "\
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local expected = ARGV[2]
if expected == '' then
  if redis.call('EXISTS', KEYS[2]) == 1 then
    redis.call('DEL', KEYS[1])
    return 2
  end
elseif expected ~= '*' then
  local found = redis.call('GET', KEYS[2])
  local may_have_ended = string.sub(expected, 1, 1) == '?'
  if found and redis.sha1hex(found) ~= string.sub(expected, -40) or not found and not may_have_ended then
    redis.call('DEL', KEYS[1])
    return 2
  end
end
if ARGV[3] == 'EX' then
  redis.call('SETEX', KEYS[2], ARGV[4], ARGV[5])
else
  redis.call('PSETEX', KEYS[2], ARGV[4], ARGV[5])
end
redis.call('DEL', KEYS[1])
return 1";

/// Keeps a lease. Key: the lease. Arguments: the token, milliseconds.
pub(crate) const EXTEND: &str = "\
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])";

/// Gives a lease back. Key: the lease. Arguments: the token; what is left in its place for so many milliseconds, or
/// nothing.
pub(crate) const RELEASE: &str = "\
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '' then
  redis.call('DEL', KEYS[1])
else
  redis.call('PSETEX', KEYS[1], ARGV[3], ARGV[2])
end
return 1";

/// A script, by its text and by what servers call it once they know it.
pub(crate) struct Script {
    text: &'static str,
    name: String,
}

/// One call of a script: its keys, all of one slot, behind how many they are, and its arguments.
pub(crate) struct Call<'a> {
    pub(crate) words: Vec<&'a [u8]>,
    pub(crate) guard: Option<&'a Guard>,
    /// Over which connection alone it is sent.
    pub(crate) over: Option<u64>,
}

impl Script {
    pub(crate) fn new(text: &'static str) -> Self {
        Self {
            text,
            name: sha1_hex(text.as_bytes()),
        }
    }

    fn by_name<'a>(&'a self, words: &[&'a [u8]]) -> Vec<&'a [u8]> {
        let name: [&[u8]; 2] = [b"EVALSHA", self.name.as_bytes()];
        [&name, words].concat()
    }

    /// The arguments of a call by the script's text, which every server knows.
    pub(crate) fn by_text<'a>(&self, words: &[&'a [u8]]) -> Vec<&'a [u8]> {
        let text: [&[u8]; 2] = [b"EVAL", self.text.as_bytes()];
        [&text, words].concat()
    }

    /// Calls it, together; for a server that does not know it yet, by its text.
    pub(crate) async fn call(&self, servers: &Servers, calls: &[Call<'_>]) -> Vec<Answer> {
        let named: Vec<Vec<&[u8]>> = calls.iter().map(|call| self.by_name(&call.words)).collect();
        let mut answers = send(servers, &named, calls.iter()).await;
        let unknown: Vec<usize> = (0..answers.len())
            .filter(|index| is_unknown(&answers[*index]))
            .collect();
        if !unknown.is_empty() {
            let texts = unknown
                .iter()
                .map(|index| self.by_text(&calls[*index].words));
            let texts: Vec<Vec<&[u8]>> = texts.collect();
            let again = unknown.iter().map(|index| &calls[*index]);
            let again = send(servers, &texts, again).await;
            for (index, answer) in std::iter::zip(unknown, again) {
                answers[index] = answer;
            }
        }
        answers
    }
}

async fn send<'a>(
    servers: &Servers,
    arguments: &[Vec<&[u8]>],
    calls: impl Iterator<Item = &'a Call<'a>>,
) -> Vec<Answer> {
    let commands = std::iter::zip(arguments, calls).map(|(arguments, call)| {
        Command::script(arguments, Expect::Integer)
            .guarded(call.guard)
            .only_over(call.over)
    });
    let commands: Vec<Command<'_>> = commands.collect();
    servers.ask_over(&commands).await
}

/// Whether a script was not run, since the server does not know its name.
fn is_unknown(answer: &Answer) -> bool {
    matches!(&answer.outcome, Ok(Some(Value::Error(error))) if error.starts_with(b"NOSCRIPT"))
}

/// The answer of a script that answers with a number.
pub(crate) fn number(answer: &Answer) -> Option<i64> {
    match answer.outcome {
        Ok(Some(Value::Integer(number))) => Some(number),
        _ => None,
    }
}

/// As `redis.sha1hex` has it. It tells whether two texts are the same where nobody gains by making two that are not seem so.
pub(crate) fn sha1_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, bytes);
    digest.as_ref().iter().fold(String::new(), |mut hex, byte| {
        // Writing to a text in memory can't fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_called_by_the_name_that_redis_gives_it() {
        assert_eq!(
            sha1_hex(b"return 1"),
            "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"
        );
    }
}
