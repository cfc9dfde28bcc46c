//! `kiln ps`, and `kiln inspect` of a machine.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use kiln_run::control::{Client, Request};
use serde_json::{Value, json};

use super::record::Record;
use super::registry::Named;
use crate::args;
use crate::failure::Failure;
use crate::printer::Printer;

/// Lists machines.
pub fn list(asked: &args::Ps, printer: &Printer) -> Result<(), Failure> {
    let registry = super::registry()?;
    let line = |runs: bool| move |named: Named| Line::new(named, runs);
    let running = registry.running();
    let ended = if asked.all { registry.ended() } else { vec![] };
    if asked.names {
        let names: String = running.iter().chain(&ended).map(|named| format!("{}\n", named.name)).collect();
        return Ok(printer.data(names.as_bytes())?);
    }
    let lines: Vec<Line> = running.into_iter().map(line(true)).chain(ended.into_iter().map(line(false))).collect();
    if asked.json {
        let all: Vec<Value> = lines.iter().map(Line::json).collect();
        return Ok(printer.data(format!("{}\n", serde_json::to_string_pretty(&all)?).as_bytes())?);
    }
    Ok(printer.data(table(&lines).as_bytes())?)
}

/// Shows one machine that runs.
pub fn inspect(name: &Path, as_json: bool, printer: &Printer) -> Result<(), Failure> {
    let mut machine = super::connect(name)?;
    let state_dir = super::state_dir(name);
    let ports = machine.ask(&Request::PortList {})?;
    let record = Record::read(&state_dir).map_err(|error| {
        Failure::new(format!("`{}` does not tell of the machine: {error}", state_dir.join(super::RECORD).display()))
    })?;
    let line = Line { named: Named { name: record.name.clone(), state_dir }, runs: true, record: Some(record) };
    let mut shown = line.json();
    if let Some(fields) = shown.as_object_mut() {
        fields.insert("ports".into(), serde_json::to_value(&ports)?);
    }
    if as_json {
        return Ok(printer.data(format!("{}\n", serde_json::to_string_pretty(&shown)?).as_bytes())?);
    }
    let mut text = String::new();
    for (key, value) in shown.as_object().into_iter().flatten() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:<14} {value}", key.replace('_', " "));
    }
    Ok(printer.data(text.as_bytes())?)
}

struct Line {
    named: Named,
    runs: bool,
    /// Missing when the state folder was taken away.
    record: Option<Record>,
}

impl Line {
    fn new(named: Named, runs: bool) -> Self {
        let record = Record::read(&named.state_dir).ok();
        Self { named, runs, record }
    }

    fn state(&self) -> String {
        match self.record.as_ref().and_then(|record| record.ended.as_ref()) {
            _ if self.runs => "running".into(),
            Some(ended) => ended.how.clone(),
            None => "was killed".into(),
        }
    }

    /// Memory that the host really gives, in bytes.
    fn used_bytes(&self) -> Option<u64> {
        let pid = Client::connect(&self.named.state_dir).ok()?.pid().ok()?;
        used_bytes(u32::try_from(pid.as_raw_pid()).ok()?)
    }

    fn json(&self) -> Value {
        let mut value = match &self.record {
            Some(record) => json!(record),
            None => json!({"state_dir": self.named.state_dir}),
        };
        if let Some(fields) = value.as_object_mut() {
            // The link's name is the one that works.
            fields.insert("name".into(), json!(self.named.name));
            fields.insert("state".into(), json!(self.state()));
            if self.runs {
                fields.insert("memory_used_bytes".into(), json!(self.used_bytes()));
            }
        }
        value
    }

    fn cells(&self) -> [String; 7] {
        let known = |text: &dyn Fn(&Record) -> String| self.record.as_ref().map(text).unwrap_or_else(|| "-".into());
        let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
        let used = if self.runs { self.used_bytes().map(mib) } else { None };
        [
            self.named.name.clone(),
            self.state(),
            if self.runs { known(&|record| record.pid.to_string()) } else { "-".into() },
            known(&|record| record.cpus.to_string()),
            format!("{} of {}", used.unwrap_or_else(|| "-".into()), known(&|record| mib(record.memory_mib << 20))),
            known(&|record| time(record.age_s())),
            known(&|record| format!("{} ({})", record.from, record.backend)),
        ]
    }
}

/// What a process holds of memory, and what those hold that it started: the QEMU of the fallback.
fn used_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let below: u64 = children
        .flat_map(|pids| pids.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<u32>>())
        .filter_map(used_bytes)
        .sum();
    Some((kib? << 10) + below)
}

/// A time in the two units that say most.
fn time(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{}s", seconds % 60),
        3600..86400 => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

fn table(lines: &[Line]) -> String {
    let head = ["NAME", "STATE", "PID", "CPUS", "MEMORY", "TIME", "FROM"].map(str::to_owned);
    let rows: Vec<[String; 7]> = [head].into_iter().chain(lines.iter().map(Line::cells)).collect();
    let width = |column: usize| rows.iter().filter_map(|row| Some(row.get(column)?.chars().count())).max().unwrap_or(0);
    let widths: Vec<usize> = (0..7).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::record::{Ended, tests::record};
    use super::*;

    #[test]
    fn a_machine_that_is_gone_is_said_to_be() {
        let folder = tempfile::tempdir().unwrap();
        let named = || Named { name: "vm".into(), state_dir: folder.path().into() };
        let shown = table(&[Line::new(named(), false)]);
        assert!(shown.ends_with("vm    was killed  -    -     - of -  -     -\n"), "{shown}");
        let ended = Some(Ended { at_s: 3800, status: 0, how: "powered off".into() });
        Record { ended, ..record(folder.path()) }.write().unwrap();
        let line = Line::new(named(), false);
        let shown = table(std::slice::from_ref(&line));
        assert!(shown.ends_with("vm    powered off  -    2     - of 1024 MiB  1h1m  out/vm (kvm)\n"), "{shown}");
        assert_eq!(
            (line.json()["state"].as_str(), line.json()["memory_used_bytes"].is_null()),
            (Some("powered off"), true)
        );
    }

    #[test]
    fn times_are_short() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (61, "1m1s"), (7260, "2h1m"), (90_000, "1d1h")] {
            assert_eq!(time(seconds), text);
        }
    }

    #[test]
    fn a_process_that_runs_uses_memory() {
        assert!(used_bytes(std::process::id()).is_some_and(|bytes| bytes > 1 << 20));
    }
}
