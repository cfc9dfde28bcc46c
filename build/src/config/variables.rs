//! Variables of a file: `${NAME}` in its values, for each NAME that its own `variables:` lists. A file without that
//! section is left alone, and so is every other `$`: LinuxKit's files, and shell text in them, mean what they meant.

use std::collections::BTreeMap;

use super::Fault;
use super::decode::shown;
use super::node::{Node, Value};

/// Most variables of one file.
const MAX_VARIABLES: usize = 500;
/// Longest value that comes out, in bytes.
const MAX_VALUE_BYTES: usize = 16 << 20;

/// The section's name.
pub(super) const SECTION: &str = "variables";

/// Declared variables with their values; [`None`]: declared without a default, and nobody gives a value.
#[derive(Debug, Default)]
pub(super) struct Variables {
    declared: BTreeMap<String, Option<String>>,
    values: BTreeMap<String, String>,
}

impl Variables {
    /// Those of a document's tree whose scalars below `variables` are all text or nothing. `given` gives the value of a
    /// variable from outside.
    pub fn of(root: &Node, given: &dyn Fn(&str) -> Option<String>) -> Result<Self, (Fault, super::place::Mark)> {
        let Some((key, section)) = root.entry(SECTION) else { return Ok(Self::default()) };
        let refuse = |text: String, mark| Err((Fault::Invalid { text }, mark));
        let entries = match &section.value {
            Value::Null => return Ok(Self::default()),
            Value::Map(entries) => entries,
            _ => return refuse("`variables` is a mapping of names to default values".into(), key.mark),
        };
        if entries.len() > MAX_VARIABLES {
            return refuse(format!("more than {MAX_VARIABLES} variables"), key.mark);
        }
        let mut variables = Self::default();
        for (name, default) in entries {
            if name_len(&name.text) != Some(name.text.len()) {
                let text = format!(
                    "`{}` cannot be a variable's name; use letters, digits and `_`, beginning with a letter or `_`",
                    shown(&name.text)
                );
                return refuse(text, name.mark);
            }
            let default = match &default.value {
                Value::Text(text) => Some(text.clone()),
                Value::Null => None,
                _ => return refuse("a variable's default is text, or nothing".into(), default.mark),
            };
            let value = given(&name.text).or(default);
            if let Some(value) = &value {
                variables.values.insert(name.text.clone(), value.clone());
            }
            variables.declared.insert(name.text.clone(), value);
        }
        Ok(variables)
    }

    pub fn is_empty(&self) -> bool {
        self.declared.is_empty()
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.declared.keys().map(String::as_str)
    }

    /// Those that have a value.
    pub fn values(&self) -> &BTreeMap<String, String> {
        &self.values
    }

    /// `text` with the values put in; [`None`] if there is nothing to put in.
    pub fn expand(&self, text: &str) -> Result<Option<String>, Fault> {
        if self.declared.is_empty() || !text.contains("${") {
            return Ok(None);
        }
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        let mut changed = false;
        while let Some(start) = rest.find("${") {
            let (before, reference) = rest.split_at(start);
            out.push_str(before);
            let Some(found) = self.reference(reference) else {
                out.push_str("${");
                rest = &reference[2..];
                continue;
            };
            changed = true;
            if out.ends_with('$') {
                // `$${NAME}` is how to write `${NAME}`.
                out.pop();
                out.push_str(&reference[..found.len]);
            } else {
                out.push_str(&found.value()?);
            }
            if out.len() > MAX_VALUE_BYTES {
                return Err(Fault::TooMuch { limit: MAX_VALUE_BYTES, what: "bytes of one value" });
            }
            rest = &reference[found.len..];
        }
        out.push_str(rest);
        Ok(changed.then_some(out))
    }

    /// What stands at the start of `text`, if it is a reference to a declared variable.
    fn reference<'a>(&'a self, text: &'a str) -> Option<Reference<'a>> {
        let inner = text.strip_prefix("${")?;
        let (name, rest) = inner.split_at(name_len(inner)?);
        let value = self.declared.get(name)?.as_deref();
        let (otherwise, len) = if rest.starts_with('}') {
            (Otherwise::Fault, 2 + name.len() + 1)
        } else {
            let words = rest.get(2..)?;
            let end = words.find('}')?;
            let otherwise = match rest.get(..2)? {
                ":-" => Otherwise::Default(&words[..end]),
                ":?" => Otherwise::Message(&words[..end]),
                _ => return None,
            };
            (otherwise, 2 + name.len() + 2 + end + 1)
        };
        Some(Reference { name, value, otherwise, len })
    }
}

/// `${NAME}`, `${NAME:-DEFAULT}` or `${NAME:?MESSAGE}`.
struct Reference<'a> {
    name: &'a str,
    value: Option<&'a str>,
    otherwise: Otherwise<'a>,
    len: usize,
}

enum Otherwise<'a> {
    Fault,
    Default(&'a str),
    Message(&'a str),
}

impl Reference<'_> {
    fn value(&self) -> Result<String, Fault> {
        match (self.value, &self.otherwise) {
            (Some(value), Otherwise::Fault) => Ok(value.into()),
            (Some(value), _) if !value.is_empty() => Ok(value.into()),
            (_, Otherwise::Default(default)) => Ok((*default).into()),
            (_, Otherwise::Message(message)) => {
                Err(Fault::Invalid { text: format!("variable `{}`: {}", self.name, shown(message)) })
            }
            (None, Otherwise::Fault) => {
                let name = self.name;
                let text = format!(
                    "variable `{name}` has no value; give one with --set {name}=VALUE, in the environment, or under `variables`"
                );
                Err(Fault::Invalid { text })
            }
        }
    }
}

/// Length of the name that `text` begins with.
fn name_len(text: &str) -> Option<usize> {
    let first = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let len = text.bytes().take_while(|c| c.is_ascii_alphanumeric() || *c == b'_').count();
    first.then_some(len)
}
