//! What an image's builder stated: an in-toto statement (version 0.1 or 1) with an SPDX document in it. Only what this
//! document has fields for is taken over; identifiers are given anew where two documents use the same.

use std::collections::HashMap;

use serde::Deserialize;

use super::document::{ExtractedLicence, File, Package, Relationship};
use super::ids::{DOCUMENT, Ids};
use super::licence::Licences;

/// A document about one image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Attested {
    packages: Vec<Package>,
    files: Vec<File>,
    relationships: Vec<Relationship>,
    has_extracted_licensing_infos: Vec<ExtractedLicence>,
}

/// Why a statement lists no packages.
#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    /// No JSON, or a field of a wrong type.
    #[error("it is no statement with an SPDX document in it")]
    Json(#[from] serde_json::Error),
    /// A statement about something else.
    #[error("it has no packages and no files")]
    Empty,
}

/// A document's elements where its image lies.
pub(super) struct Merged {
    pub packages: Vec<Package>,
    pub files: Vec<File>,
    pub relationships: Vec<Relationship>,
    /// What the document is about: identifiers of its own first elements.
    pub top: Vec<String>,
}

impl Attested {
    /// Reads a statement.
    pub fn parse(statement: &[u8]) -> Result<Self, StatementError> {
        #[derive(Deserialize)]
        struct Statement {
            predicate: Attested,
        }
        let Statement { predicate } = serde_json::from_slice(statement)?;
        if predicate.len() == 0 {
            return Err(StatementError::Empty);
        }
        Ok(predicate)
    }

    /// How many packages and files.
    pub(super) fn len(&self) -> usize {
        self.packages.len() + self.files.len()
    }

    /// Its elements in `folder`.
    pub(super) fn placed(&self, folder: &str, ids: &mut Ids, licences: &mut Licences) -> Merged {
        let renamed: Vec<(String, String)> = self
            .has_extracted_licensing_infos
            .iter()
            .map(|licence| (licence.license_id.clone(), licences.adopt(licence.clone())))
            .collect();
        let renamed: HashMap<&str, &str> = renamed.iter().map(|(old, new)| (old.as_str(), new.as_str())).collect();
        let expression = |text: &mut String| *text = with_new_names(text, &renamed);

        let mut known: HashMap<&str, String> = HashMap::from([(DOCUMENT, DOCUMENT.to_owned())]);
        let (mut packages, mut files) = (self.packages.clone(), self.files.clone());
        for (package, old) in packages.iter_mut().zip(&self.packages) {
            package.id = ids.unique(&old.id);
            known.entry(&old.id).or_insert_with(|| package.id.clone());
            package.package_file_name = old.package_file_name.as_ref().map(|name| placed(folder, name));
            package.license_concluded.iter_mut().chain(&mut package.license_declared).for_each(expression);
            package.license_info_from_files.iter_mut().for_each(expression);
        }
        for (file, old) in files.iter_mut().zip(&self.files) {
            file.id = ids.unique(&old.id);
            known.entry(&old.id).or_insert_with(|| file.id.clone());
            file.file_name = placed(folder, &old.file_name);
            file.license_concluded.iter_mut().for_each(expression);
            file.license_info_in_files.iter_mut().for_each(expression);
        }
        let relationships = self.relationships(&packages, &known);
        let described: Vec<String> = relationships.iter().filter_map(described).collect();
        let all = || packages.iter().map(|package| package.id.clone()).collect();
        let top = if described.is_empty() { all() } else { described };
        Merged { packages, files, relationships, top }
    }

    fn relationships(&self, packages: &[Package], known: &HashMap<&str, String>) -> Vec<Relationship> {
        let id = |id: &str| known.get(id).cloned();
        // These two name nobody, and that is what they tell.
        let other = |name: &str| if matches!(name, "NONE" | "NOASSERTION") { Some(name.to_owned()) } else { id(name) };
        let renamed = |old: &Relationship| {
            Some(Relationship {
                spdx_element_id: id(&old.spdx_element_id)?,
                related_spdx_element: other(&old.related_spdx_element)?,
                ..old.clone()
            })
        };
        let told = self.relationships.iter().filter_map(renamed);
        let listed = packages.iter().flat_map(|package| {
            package.has_files.iter().filter_map(|file| Some(Relationship::contains(&package.id, &id(file)?)))
        });
        told.chain(listed).collect()
    }
}

/// What a relationship says that the document is about.
fn described(relationship: &Relationship) -> Option<String> {
    let Relationship { spdx_element_id: from, related_spdx_element: to, relationship_type: kind, .. } = relationship;
    match kind.as_str() {
        "DESCRIBES" if from == DOCUMENT => Some(to.clone()),
        "DESCRIBED_BY" if to == DOCUMENT => Some(from.clone()),
        _ => None,
    }
}

/// A file's name as seen from the root of what is built. SPDX 2.3 has names relative (clause 8.1).
fn placed(folder: &str, name: &str) -> String {
    let name = name.trim_start_matches("./").trim_start_matches('/');
    if folder.is_empty() { name.into() } else { format!("{folder}/{name}") }
}

/// An expression with the references that are in it renamed.
fn with_new_names(expression: &str, renamed: &HashMap<&str, &str>) -> String {
    if renamed.is_empty() {
        return expression.into();
    }
    let is_id = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    let mut out = String::with_capacity(expression.len());
    let mut rest = expression;
    while !rest.is_empty() {
        let end = rest.find(|c| !is_id(c)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        out.push_str(renamed.get(name).copied().unwrap_or(name));
        let gap = after.find(is_id).unwrap_or(after.len());
        let (between, next) = after.split_at(gap);
        out.push_str(between);
        rest = next;
    }
    out
}
