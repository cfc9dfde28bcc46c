//! Licences: an SPDX expression stays, anything else becomes a reference to a text of its own (SPDX 2.3, clause 10).

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::document::ExtractedLicence;

/// What is said where nothing is known.
pub(super) const NO_ASSERTION: &str = "NOASSERTION";

/// Licences that are on no list, by their reference.
#[derive(Debug, Default)]
pub(super) struct Licences(BTreeMap<String, ExtractedLicence>);

impl Licences {
    /// `text` of a package database as an expression.
    pub fn declared(&mut self, text: &str) -> String {
        let text = text.trim();
        if text.is_empty() {
            return NO_ASSERTION.into();
        }
        if spdx::Expression::parse(text).is_ok_and(|parsed| parsed.requirements().all(is_listed)) {
            return text.into();
        }
        let id = reference("", text);
        self.0.entry(id.clone()).or_insert_with(|| ExtractedLicence::of_text(&id, text));
        id
    }

    /// A licence that somebody else's document brings. Returns what it is called here.
    pub fn adopt(&mut self, mut licence: ExtractedLicence) -> String {
        let wanted = reference(&licence.license_id, &licence.extracted_text);
        licence.license_id.clone_from(&wanted);
        self.0.entry(wanted.clone()).or_insert(licence);
        wanted
    }

    /// All of them, sorted.
    pub fn into_infos(self) -> Vec<ExtractedLicence> {
        self.0.into_values().collect()
    }
}

/// References would need a text that is not there.
fn is_listed(required: &spdx::expression::ExpressionReq) -> bool {
    matches!(required.req.license, spdx::LicenseItem::Spdx { .. })
}

/// A readable start, and so much of the text's digest that no two texts share a reference.
fn reference(id: &str, text: &str) -> String {
    const NAME_CHARS: usize = 40;
    const DIGEST_BYTES: usize = 8;
    let name = if id.is_empty() { text } else { id.trim_start_matches("LicenseRef-") };
    let name: String = name.chars().take(NAME_CHARS).map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let digest = Sha256::digest([id.as_bytes(), b"\0", text.as_bytes()].concat());
    let digest: String = digest.iter().take(DIGEST_BYTES).map(|byte| format!("{byte:02x}")).collect();
    match name.trim_matches('-') {
        "" => format!("LicenseRef-{digest}"),
        name => format!("LicenseRef-{name}-{digest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_on_the_list_is_an_expression() {
        let mut licences = Licences::default();
        for text in ["MIT", "GPL-2.0-only", "BSD-2-Clause AND (ISC OR Zlib)", "GPL-2.0-or-later WITH GCC-exception-3.1"]
        {
            assert_eq!(licences.declared(text), text);
        }
        assert_eq!(licences.declared(" "), NO_ASSERTION);
        for text in ["custom", "MIT AND", "GPL 2", "LicenseRef-x", "a/b", "a b", "(((", "\"<&"] {
            let id = licences.declared(text);
            let rest = id.strip_prefix("LicenseRef-").unwrap();
            assert!(rest.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'), "{id}");
        }
        let infos = licences.into_infos();
        assert_eq!(infos.len(), 8, "each has its own");
        assert!(infos.iter().any(|info| info.extracted_text == "GPL 2"));
    }
}
