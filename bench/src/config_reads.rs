//! How many conditional reads of a service's policies one core answers: those who have them, and ask whether they are still
//! the latest.
//!
//! The control plane has one core to itself, and those who ask have the other. They show API keys: a key's own bound of 20,000
//! reads a second is not what is measured, so there are several.

use std::process::Command;

use anyhow::Context as _;

use crate::hostile::{SERVICE, make_key};
use crate::load::wrk_says;
use crate::report::{Mark, Report};
use crate::server::Server;

const KEYS: usize = 8;
const CONNECTIONS: &str = "64";
const SECONDS: &str = "5";

pub(crate) fn measure(report: &mut Report) -> anyhow::Result<()> {
    let name = "conditional config reads on one core";
    if !report.wants(name) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let keys: Vec<String> = (0..KEYS)
        .map(|number| make_key(folder.path(), &number.to_string()))
        .collect::<Result<_, _>>()?;
    let control = Server::control_on(folder.path(), "0")?;
    let tag = tag(control.port, &keys[0])?;
    let script = folder.path().join("read.lua");
    std::fs::write(&script, lua(&tag, &keys))?;
    let url = format!("http://127.0.0.1:{}/api/config/{SERVICE}", control.port);
    let ask = || -> anyhow::Result<f64> {
        let mut command = Command::new("taskset");
        command.args(["-c", "1", "wrk", "-t", "1", "-c", CONNECTIONS]);
        command.args(["-d", SECONDS, "-s"]).arg(&script).arg(&url);
        Ok(wrk_says(&mut command)? / 1e3)
    };
    ask()?;
    let values = (0..report.rounds())
        .map(|_| ask())
        .collect::<Result<_, _>>()?;
    report.add_figure(name, "thousand/s", Mark::AtLeast(60.0), values);
    Ok(())
}

/// The tag of what is in force: who has it is told that it is.
fn tag(port: u16, key: &str) -> anyhow::Result<String> {
    let head = |known: &str| -> anyhow::Result<String> {
        let output = Command::new("curl")
            .args(["-sf", "-o", "/dev/null", "-D", "-"])
            .arg("-H")
            .arg(format!("Authorization: Bearer {key}"))
            .arg("-H")
            .arg(format!("If-None-Match: {known}"))
            .arg(format!("http://127.0.0.1:{port}/api/config/{SERVICE}"))
            .output()?;
        Ok(String::from_utf8(output.stdout)?)
    };
    let first = head("\"another\"")?;
    let tag = first.lines().find_map(|line| line.strip_prefix("etag: "));
    let tag = tag.context("the answer has no tag")?;
    anyhow::ensure!(head(tag)?.starts_with("HTTP/1.1 304 "), "it is not 304");
    Ok(tag.to_owned())
}

/// Requests with one key after the other.
fn lua(tag: &str, keys: &[String]) -> String {
    let keys: Vec<String> = keys.iter().map(|key| format!("\"{key}\"")).collect();
    format!(
        r#"local requests, at = {{}}, 0
function init()
  for i, key in ipairs({{ {keys} }}) do
    requests[i] = wrk.format("GET", nil, {{ ["If-None-Match"] = '{tag}', ["Authorization"] = "Bearer " .. key }})
  end
end
function request()
  at = at % #requests + 1
  return requests[at]
end
"#,
        keys = keys.join(", ")
    )
}
