//! Cases that were not recorded: what kiln does where LinuxKit is known to do something else, and both are known.

use std::collections::BTreeMap;
use std::fs;

use serde::Deserialize;
use serde_json::Value;

use super::case::{self, Mode};
use super::{deviation, each, effective};
use crate::harness::tree;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    case: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    yaml: String,
    /// A second file.
    more: Option<String>,
    #[serde(default)]
    args: String,
    #[serde(default)]
    status: i32,
    #[serde(default)]
    says: Vec<String>,
    #[serde(default)]
    right: BTreeMap<String, Value>,
    /// The same with `--compat linuxkit`; nothing is looked at when both are missing.
    #[serde(default)]
    linuxkit: BTreeMap<String, Value>,
    #[serde(default)]
    linuxkit_says: Vec<String>,
}

impl Case {
    fn faults(&self) -> Vec<String> {
        let folder = tempfile::tempdir().expect("a temp folder can be made");
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("it is writable");
        let more = if self.more.is_some() { "more.yml" } else { "" };
        let format = if self.args.contains("--format") { "" } else { "--format tar" };
        write("input.yml", &self.yaml);
        write("more.yml", self.more.as_deref().unwrap_or_default());
        write(
            "cmd",
            &format!("$TOOL build --cache $CACHE --no-sbom {format} {} --o $OUT/out.tar input.yml {more}", self.args),
        );
        let mut faults = self.check(folder.path(), Mode::Default, self.status, &self.says, &self.right);
        if !self.linuxkit.is_empty() || !self.linuxkit_says.is_empty() {
            let status = i32::from(!self.linuxkit_says.is_empty());
            faults.extend(self.check(folder.path(), Mode::Compat, status, &self.linuxkit_says, &self.linuxkit));
        }
        faults
    }

    fn check(
        &self,
        folder: &std::path::Path,
        mode: Mode,
        status: i32,
        says: &[String],
        right: &BTreeMap<String, Value>,
    ) -> Vec<String> {
        let outcome = case::run(folder, mode);
        if outcome.status != status {
            return vec![format!("{mode:?}: status {} instead of {status}:\n{}", outcome.status, outcome.stderr)];
        }
        let mut faults = vec![];
        for word in says.iter().filter(|word| !outcome.stderr.contains(word.as_str())) {
            faults.push(format!("{mode:?}: no `{word}` in:\n{}", outcome.stderr));
        }
        let trees: Vec<_> = outcome
            .outputs
            .iter()
            .map(|(name, bytes)| (name.clone(), effective::effective(effective::from_tar(bytes))))
            .collect();
        let wrong = right.iter().filter_map(|(at, wanted)| deviation::wrong(at, wanted, &outcome, &trees));
        faults.extend(wrong.map(|fault| format!("{mode:?}: {fault}")));
        faults
    }
}

#[test]
fn what_was_not_recorded_is_right_too() {
    let text = fs::read_to_string(tree().join("tests/conformance/own.toml")).expect("own.toml is there");
    let own: Own = toml::from_str(&text).expect("own.toml can be read");
    let cases: BTreeMap<String, Case> = own.case.into_iter().map(|case| (case.name.clone(), case)).collect();
    let names: Vec<String> = cases.keys().cloned().collect();
    each(&names, |name| cases[name].faults());
}
