//! Where kiln differs from what was recorded on purpose: rows of docs/compatibility.md, with what is right instead.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde::Deserialize;
use serde_json::Value;

use super::case::{Mode, Outcome};
use super::compare::Difference;
use super::effective::Tree;
use crate::harness::tree;

/// All of `deviations.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deviations {
    /// Cases that cannot pass yet.
    #[serde(default)]
    pub pending: Vec<String>,
    pub deviation: Vec<Deviation>,
}

/// One row, for some cases.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deviation {
    /// First field of its row.
    pub row: String,
    /// Cases by their number: `v038`.
    pub cases: Vec<String>,
    /// Also with `--compat linuxkit`.
    #[serde(default)]
    pub always: bool,
    /// Exit status in place of the recorded one.
    pub status: Option<i32>,
    /// Words on standard error.
    #[serde(default)]
    pub says: Vec<String>,
    /// What may differ: `PATH` or `PATH#/POINTER`, with `*` for any text and `?` for one
    /// character.
    #[serde(default)]
    pub differs: Vec<String>,
    /// What is there instead: `PATH` to `absent` or the start of `TYPE MODE UID GID WHAT`, `PATH#/POINTER` to a value.
    #[serde(default)]
    pub right: BTreeMap<String, Value>,
}

impl Deviations {
    pub fn read() -> Self {
        let file = tree().join("tests/conformance/deviations.toml");
        toml::from_str(&fs::read_to_string(file).expect("deviations.toml is there"))
            .expect("deviations.toml can be read")
    }

    /// Those of one case in one mode.
    pub fn of(&self, case: &str, mode: Mode) -> Vec<&Deviation> {
        let number = number(case);
        let counts = |deviation: &&Deviation| {
            deviation.cases.iter().any(|case| case == number) && (mode == Mode::Default || deviation.always)
        };
        self.deviation.iter().filter(counts).collect()
    }

    /// Rows and cases that one of the two lists has and the other lacks.
    pub fn undocumented(&self) -> Vec<String> {
        let page = fs::read_to_string(tree().join("docs/compatibility.md")).expect("docs/compatibility.md is there");
        let rows: BTreeMap<&str, BTreeSet<&str>> = page.lines().filter_map(row).collect();
        let mut faults = vec![];
        let mut listed: BTreeSet<(&str, &str)> = BTreeSet::new();
        for deviation in &self.deviation {
            for case in &deviation.cases {
                listed.insert((&deviation.row, case));
                match rows.get(deviation.row.as_str()) {
                    Some(cases) if cases.contains(case.as_str()) => {}
                    Some(_) => faults.push(format!("row `{}` of docs/compatibility.md lacks {case}", deviation.row)),
                    None if self.pending.contains(case) => {}
                    None => faults.push(format!("docs/compatibility.md has no row `{}`", deviation.row)),
                }
            }
        }
        for (row, cases) in &rows {
            for case in cases.iter().filter(|case| !listed.contains(&(*row, **case))) {
                faults.push(format!("deviations.toml has no {case} for the row `{row}`"));
            }
        }
        faults
    }
}

/// `| what | v001 e002 | … |` to its first field and the cases of its second.
fn row(line: &str) -> Option<(&str, BTreeSet<&str>)> {
    let fields: Vec<&str> = line.strip_prefix("| ")?.split(" | ").collect();
    let [what, cases, ..] = fields[..] else { return None };
    let is_case = |word: &&str| {
        word.len() == 4 && word.starts_with(['v', 'e', 'p']) && word[1..].bytes().all(|byte| byte.is_ascii_digit())
    };
    Some((what, cases.split(' ').filter(is_case).collect()))
}

/// `v038` of `v038-layers`.
pub fn number(case: &str) -> &str {
    case.split('-').next().unwrap_or(case)
}

impl Deviation {
    /// Whether it covers this difference.
    pub fn covers(&self, difference: &Difference) -> bool {
        self.differs.iter().any(|pattern| matches(pattern, &difference.at))
    }

    /// What of it is not (any more) so.
    pub fn faults(&self, outcome: &Outcome, differences: &[Difference], trees: &[(String, Tree)]) -> Vec<String> {
        let mut faults = vec![];
        for pattern in &self.differs {
            if !differences.iter().any(|difference| matches(pattern, &difference.at)) {
                faults.push(format!("nothing differs at `{pattern}` any more (`{}`)", self.row));
            }
        }
        for word in self.says.iter().filter(|word| !outcome.stderr.contains(word.as_str())) {
            faults.push(format!("no `{word}` on standard error:\n{}", outcome.stderr));
        }
        faults.extend(self.right.iter().filter_map(|(at, wanted)| wrong(at, wanted, outcome, trees)));
        faults
    }
}

/// What is not as `wanted` at `PATH` or `PATH#/POINTER`; `OUTPUT!PATH` names the archive.
pub fn wrong(at: &str, wanted: &Value, outcome: &Outcome, trees: &[(String, Tree)]) -> Option<String> {
    let (path, pointer) = at.split_once('#').map_or((at, None), |(path, pointer)| (path, Some(pointer)));
    let member = trees.iter().find_map(|(name, tree)| {
        let path = path.strip_prefix(&format!("{name}!")).unwrap_or(path);
        tree.get(path)
    });
    let found = match (member, pointer) {
        (None, _) if path == "stdout" => Value::from(outcome.stdout.clone()),
        (None, _) => Value::from("absent"),
        (Some(member), None) => Value::from(member.shown()),
        (Some(member), Some("text")) => {
            Value::from(String::from_utf8_lossy(member.content.as_deref().unwrap_or_default()).into_owned())
        }
        (Some(member), Some(pointer)) => {
            let json: Value = serde_json::from_slice(member.content.as_deref().unwrap_or_default()).unwrap_or_default();
            json.pointer(pointer).cloned().unwrap_or_else(|| "absent".into())
        }
    };
    let fits = match (wanted.as_str(), found.as_str()) {
        (Some(wanted), Some(found)) if pointer.is_none() => found.starts_with(wanted),
        _ => *wanted == found,
    };
    (!fits).then(|| format!("`{at}` should be {wanted}, it is {found}"))
}

/// Whether `text` is `pattern`, in which `*` stands for any text and `?` for one character.
fn matches(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.chars(), text.chars());
    match (pattern.next(), text.next()) {
        (None, None) => true,
        (Some('*'), first) => {
            let whole = first.into_iter().collect::<String>() + text.as_str();
            let starts = whole.char_indices().map(|(at, _)| at).chain([whole.len()]);
            starts.into_iter().any(|at| matches(pattern.as_str(), &whole[at..]))
        }
        (Some(wanted), Some(found)) if wanted == found || wanted == '?' => matches(pattern.as_str(), text.as_str()),
        _ => false,
    }
}
