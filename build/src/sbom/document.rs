//! The document: those fields of SPDX 2.3 that a list of packages uses, in the order that SPDX' own libraries write.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Placed;
use super::ids::DOCUMENT;
use super::licence::NO_ASSERTION;

/// A whole document.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document {
    spdx_version: &'static str,
    data_license: &'static str,
    #[serde(rename = "SPDXID")]
    id: &'static str,
    name: &'static str,
    document_namespace: String,
    creation_info: CreationInfo,
    pub packages: Vec<Package>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<File>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub has_extracted_licensing_infos: Vec<ExtractedLicence>,
    pub relationships: Vec<Relationship>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CreationInfo {
    creators: [&'static str; 1],
    created: String,
}

/// A package.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Package {
    pub name: String,
    #[serde(rename = "SPDXID")]
    pub id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version_info: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package_file_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supplier: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub originator: Option<String>,
    #[serde(default = "no_assertion")]
    pub download_location: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files_analyzed: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package_verification_code: Option<VerificationCode>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checksums: Vec<Checksum>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub homepage: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_info: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license_concluded: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub license_info_from_files: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license_declared: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license_comments: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copyright_text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub external_refs: Vec<ExternalRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary_package_purpose: Option<String>,
    /// An old way to tell a relationship; it becomes one.
    #[serde(default, skip_serializing)]
    pub has_files: Vec<String>,
}

/// A digest over the files of a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct VerificationCode {
    package_verification_code_value: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    package_verification_code_excluded_files: Vec<String>,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct File {
    pub file_name: String,
    #[serde(rename = "SPDXID")]
    pub id: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    file_types: Vec<String>,
    #[serde(default)]
    checksums: Vec<Checksum>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub license_concluded: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub license_info_in_files: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    copyright_text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
}

/// A digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Checksum {
    pub algorithm: String,
    pub checksum_value: String,
}

/// What others call a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ExternalRef {
    reference_category: String,
    reference_type: String,
    reference_locator: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
}

/// A licence that is on no list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ExtractedLicence {
    pub license_id: String,
    pub extracted_text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    see_alsos: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
}

/// What one element has to do with another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Relationship {
    pub spdx_element_id: String,
    pub related_spdx_element: String,
    pub relationship_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

fn no_assertion() -> String {
    NO_ASSERTION.into()
}

impl Document {
    /// Nothing yet.
    pub fn new(created: &str) -> Self {
        Self {
            spdx_version: "SPDX-2.3",
            data_license: "CC0-1.0",
            id: DOCUMENT,
            name: "sbom",
            document_namespace: String::new(),
            creation_info: CreationInfo {
                creators: [concat!("Tool: kiln-", env!("CARGO_PKG_VERSION"))],
                created: created.into(),
            },
            packages: Vec::new(),
            files: Vec::new(),
            has_extracted_licensing_infos: Vec::new(),
            relationships: Vec::new(),
        }
    }

    /// Its JSON. The namespace, which no other document may have, is a UUID (version 8, RFC 9562) of the rest.
    pub fn into_bytes(mut self) -> Vec<u8> {
        let digest = Sha256::digest(self.json());
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&digest[..16]);
        uuid[6] = 0x80 | uuid[6] & 0x0f;
        uuid[8] = 0x80 | uuid[8] & 0x3f;
        let hex: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
        let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
        self.document_namespace = format!("https://spdx.org/spdxdocs/sbom-{}", parts.join("-"));
        let mut bytes = self.json();
        bytes.push(b'\n');
        bytes
    }

    fn json(&self) -> Vec<u8> {
        let json = serde_json::to_vec(self);
        debug_assert!(json.is_ok(), "texts and lists always have a JSON form");
        json.unwrap_or_default()
    }
}

impl Package {
    /// An image.
    pub fn of_image(id: String, placed: &Placed<'_>, purl: String) -> Self {
        let Placed { reference, manifest, role, folder } = placed;
        let place = if folder.is_empty() { "the root" } else { folder };
        Self {
            name: (*reference).into(),
            id,
            version_info: Some(manifest.to_string()),
            download_location: no_assertion(),
            files_analyzed: Some(false),
            checksums: vec![Checksum { algorithm: "SHA256".into(), checksum_value: manifest.hex() }],
            comment: Some(format!("image of {role}, in {place}")),
            external_refs: vec![ExternalRef::purl(purl)],
            primary_package_purpose: Some("CONTAINER".into()),
            ..Self::default()
        }
    }
}

impl ExternalRef {
    /// A package URL.
    pub fn purl(url: String) -> Self {
        Self {
            reference_category: "PACKAGE-MANAGER".into(),
            reference_type: "purl".into(),
            reference_locator: url,
            comment: None,
        }
    }
}

impl ExtractedLicence {
    /// One of which only this is known.
    pub fn of_text(id: &str, text: &str) -> Self {
        Self { license_id: id.into(), extracted_text: text.into(), name: None, see_alsos: Vec::new(), comment: None }
    }
}

impl Relationship {
    /// What the document is about.
    pub fn describes(id: &str) -> Self {
        Self::new(DOCUMENT, "DESCRIBES", id)
    }

    /// What is in something.
    pub fn contains(outer: &str, inner: &str) -> Self {
        Self::new(outer, "CONTAINS", inner)
    }

    fn new(from: &str, kind: &str, to: &str) -> Self {
        Self {
            spdx_element_id: from.into(),
            related_spdx_element: to.into(),
            relationship_type: kind.into(),
            comment: None,
        }
    }
}
