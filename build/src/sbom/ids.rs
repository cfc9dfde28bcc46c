//! Identifiers of a document's elements (SPDX 2.3, clause 7.2): `SPDXRef-` and letters, digits, `.` and `-`; each once.

use std::collections::{HashMap, HashSet};

/// The document itself.
pub(super) const DOCUMENT: &str = "SPDXRef-DOCUMENT";

/// Longest identifier before a number that makes it unique.
const LEN_MAX: usize = 200;

/// Those that are taken.
#[derive(Debug)]
pub(super) struct Ids {
    taken: HashSet<String>,
    next: HashMap<String, u32>,
}

impl Default for Ids {
    fn default() -> Self {
        Self { taken: HashSet::from([DOCUMENT.to_owned()]), next: HashMap::new() }
    }
}

impl Ids {
    /// `wanted`, as near as it can be had.
    pub fn unique(&mut self, wanted: &str) -> String {
        let base = clean(wanted);
        if self.taken.insert(base.clone()) {
            return base;
        }
        let next = self.next.entry(base.clone()).or_insert(1);
        loop {
            *next += 1;
            let id = format!("{base}-{next}");
            if self.taken.insert(id.clone()) {
                return id;
            }
        }
    }
}

fn clean(wanted: &str) -> String {
    let name = wanted.strip_prefix("SPDXRef-").unwrap_or(wanted);
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
    let name = name.trim_matches('-');
    let name = name.get(..LEN_MAX).unwrap_or(name);
    format!("SPDXRef-{}", if name.is_empty() { "x" } else { name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_identifier_is_given_twice_and_all_are_valid() {
        let mut ids = Ids::default();
        let long = "é".repeat(1000);
        let wanted = ["SPDXRef-DOCUMENT", "a", "SPDXRef-a", "a", "a-2", "", "services[0]", "x/y+z", "x-y-z", &long];
        let given: Vec<String> = wanted.iter().map(|wanted| ids.unique(wanted)).collect();
        let expected = ["DOCUMENT-2", "a", "a-2", "a-3", "a-2-2", "x", "services-0", "x-y-z", "x-y-z-2", "x-2"];
        let expected: Vec<String> = expected.iter().map(|id| format!("SPDXRef-{id}")).collect();
        assert_eq!(given, expected);
    }
}
