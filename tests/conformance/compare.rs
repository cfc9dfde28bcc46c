//! What two trees disagree on.

use std::collections::BTreeSet;

use serde_json::Value;

use super::effective::{Member, Tree};

/// One thing that is not as it was recorded. `at` is a path, or `PATH#/POINTER` inside of a document.
#[derive(Debug, Clone)]
pub struct Difference {
    pub at: String,
    pub wanted: String,
    pub found: String,
}

/// What every document is read with that is no JSON.
pub fn yaml(name: &str, text: &str) -> Option<Value> {
    kiln_build::config::decode(kiln_build::config::Source { name, text }).ok()
}

/// Compares two trees. `text` gives the recorded text of a generated file.
pub fn trees(wanted: &Tree, found: &Tree, text: &dyn Fn(&str) -> Option<Vec<u8>>) -> Vec<Difference> {
    let mut differences = vec![];
    let paths: BTreeSet<&String> = wanted.keys().chain(found.keys()).collect();
    for path in paths {
        match (wanted.get(path), found.get(path)) {
            (Some(wanted), Some(found)) => differences.extend(members(path, wanted, found, text)),
            (Some(wanted), None) => {
                differences.push(Difference { at: path.clone(), wanted: wanted.shown(), found: "absent".into() });
            }
            (None, Some(found)) if is_implied(path, found, wanted) => {}
            (None, Some(found)) => {
                differences.push(Difference { at: path.clone(), wanted: "absent".into(), found: found.shown() });
            }
            (None, None) => {}
        }
    }
    differences
}

/// A folder that whoever unpacks the recorded archive makes by himself, because something is in it.
fn is_implied(path: &str, found: &Member, wanted: &Tree) -> bool {
    let below = format!("{path}/");
    (found.kind, found.mode, found.uid, found.gid) == ('d', 0o755, 0, 0)
        && wanted.range(below.clone()..).next().is_some_and(|(path, _)| path.starts_with(&below))
}

fn members(path: &str, wanted: &Member, found: &Member, text: &dyn Fn(&str) -> Option<Vec<u8>>) -> Vec<Difference> {
    let same = |what: &str, member: &Member| Member { what: what.into(), content: None, ..member.clone() };
    let mut differences = vec![];
    let mut found = found.clone();
    let mut wanted = wanted.clone();
    // An initrd has no records. Which of several parts of a build a shared folder comes from says nothing.
    if wanted.records.is_empty() {
        found.records.clear();
    }
    if wanted.kind == 'd' {
        let own = |key: &String, _: &mut String| !key.starts_with("LINUXKIT.");
        wanted.records.retain(own);
        found.records.retain(own);
    }
    if wanted.what != found.what
        && let (Some(old), Some(new)) = (text(path), &found.content)
        && let Some(documents) = documents(path, &old, new)
    {
        differences.extend(documents);
        (wanted, found) = (same("document", &wanted), same("document", &found));
    }
    if same(&wanted.what, &wanted) != same(&found.what, &found) {
        let shown = |member: &Member| format!("{} {:?}", member.shown(), member.records);
        differences.push(Difference { at: path.into(), wanted: shown(&wanted), found: shown(&found) });
    }
    differences
}

/// What two documents disagree on; `None` if they are none.
pub fn documents(path: &str, old: &[u8], new: &[u8]) -> Option<Vec<Difference>> {
    let (old, new) = (std::str::from_utf8(old).ok()?, std::str::from_utf8(new).ok()?);
    let mut differences = vec![];
    if path.ends_with(".json") {
        values(path, "", &serde_json::from_str(old).ok()?, &serde_json::from_str(new).ok()?, &mut differences);
        return Some(differences);
    }
    let (old, new) = (yaml(path, old)?, yaml(path, new)?);
    if !old.is_object() || !new.is_object() {
        return None;
    }
    values(path, "", &said(old), &said(new), &mut differences);
    Some(differences)
}

/// A configuration without what says nothing: LinuxKit writes out every field that it knows, empty or not.
fn said(value: Value) -> Value {
    let says = |value: &Value| match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::Number(_) => true,
    };
    match value {
        Value::Array(items) => items.into_iter().map(said).collect(),
        Value::Object(fields) => {
            fields.into_iter().map(|(key, value)| (key, said(value))).filter(|(_, value)| says(value)).collect()
        }
        other => other,
    }
}

fn values(path: &str, pointer: &str, old: &Value, new: &Value, differences: &mut Vec<Difference>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for key in old.keys().chain(new.keys().filter(|key| !old.contains_key(*key))) {
                let (old, new) = (old.get(key).unwrap_or(&Value::Null), new.get(key).unwrap_or(&Value::Null));
                let pointer = format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
                values(path, &pointer, old, new, differences);
            }
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            for (index, (old, new)) in old.iter().zip(new).enumerate() {
                values(path, &format!("{pointer}/{index}"), old, new, differences);
            }
        }
        _ if old == new => {}
        _ => differences.push(Difference {
            at: format!("{path}#{pointer}"),
            wanted: old.to_string(),
            found: new.to_string(),
        }),
    }
}
