//! Packages in registries: one manifest for each architecture under `TAG-ARCH`, and an index of them all under `TAG`.
//!
//! Each architecture may be pushed from another machine: the index is made of what the registry has by then.

use serde_json::{Value, json};

use super::{Package, PackageError};
use crate::cancel::Cancel;
use crate::oci::{
    Digest, Platform, PushRequest, Reference, RegistryOptions, RemoteManifest, Store, push, put_remote_manifest,
    remote_manifest,
};
use crate::progress::Progress;

use sha2::{Digest as _, Sha256};

const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
/// More entries in an index are a mistake or an attack.
const ENTRIES_MAX: usize = 256;

/// How registries are reached while something is published.
#[derive(Clone, Copy)]
pub struct Publishing<'a> {
    /// Credentials, certificates, limits.
    pub registry: &'a RegistryOptions,
    /// Stops it.
    pub cancel: &'a Cancel,
    /// Hears how far it is.
    pub progress: &'a dyn Progress,
}

impl Package {
    /// Pushes the images that `store` has for `architectures`, then the index. `release` is a tag that they get besides
    /// their own.
    ///
    /// Errors: a changed package, which nobody else could make; an image that the store lacks; what registries say.
    pub fn push(
        &self,
        store: &Store,
        architectures: &[String],
        release: Option<&str>,
        with: Publishing<'_>,
    ) -> Result<(), PackageError> {
        if self.is_dirty() {
            return Err(PackageError::Dirty { folder: self.folder().to_owned() });
        }
        let reference = self.full_reference();
        let root = store.root_digest(reference)?;
        let root = root.ok_or_else(|| PackageError::NotBuilt { reference: reference.to_string() })?;
        for target in self.targets(release)? {
            for architecture in architectures {
                let target = of_architecture(&target, architecture)?;
                let platform = Platform::linux(architecture);
                let request = PushRequest { root, target: &target, platform: Some(&platform) };
                push(&request, store, with.registry, with.cancel, with.progress)?;
            }
            self.write_index(&target, with)?;
        }
        Ok(())
    }

    /// Makes the index of all architectures that the registry has, and gives it the package's tag. Returns them.
    ///
    /// Errors: none is there; what registries say.
    pub fn push_index(&self, release: Option<&str>, with: Publishing<'_>) -> Result<Vec<String>, PackageError> {
        if self.is_dirty() {
            return Err(PackageError::Dirty { folder: self.folder().to_owned() });
        }
        let mut found = Vec::new();
        for target in self.targets(release)? {
            found = self.write_index(&target, with)?;
        }
        Ok(found)
    }

    /// Whether the registry has what the store has under the package's tag.
    pub fn is_published(&self, store: &Store, with: Publishing<'_>) -> Result<bool, PackageError> {
        let here = store.root_digest(self.full_reference())?;
        let there = remote_manifest(self.full_reference(), with.registry, with.cancel, with.progress)?;
        Ok(there.is_some_and(|there| Some(there.digest) == here))
    }

    /// The package's own name, or with a release also that one.
    fn targets(&self, release: Option<&str>) -> Result<Vec<Reference>, PackageError> {
        let mut targets = vec![self.full_reference().clone()];
        if let Some(release) = release {
            targets.push(tagged(self.full_reference(), release)?);
        }
        Ok(targets)
    }

    fn write_index(&self, target: &Reference, with: Publishing<'_>) -> Result<Vec<String>, PackageError> {
        let (mut entries, mut found) = (Vec::new(), Vec::new());
        for architecture in &self.recipe().arches {
            let reference = of_architecture(target, architecture)?;
            let manifest = remote_manifest(&reference, with.registry, with.cancel, with.progress)?;
            let Some(manifest) = manifest else { continue };
            entries.extend(index_entries(&manifest, architecture));
            found.push(architecture.clone());
        }
        if found.is_empty() {
            return Err(PackageError::NothingPushed { reference: target.to_string() });
        }
        entries.truncate(ENTRIES_MAX);
        let bytes = json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": entries}).to_string().into_bytes();
        let digest = Digest::from_bytes(Sha256::digest(&bytes).into());
        let index = RemoteManifest { digest, media_type: INDEX_TYPE.into(), bytes };
        put_remote_manifest(target, &index, with.registry, with.cancel, with.progress)?;
        with.progress.note(&format!("pushed `{target}` for {}", found.join(", ")));
        Ok(found)
    }
}

/// What an index says of the image of one architecture: of a plain manifest one entry, of an index what it has itself.
fn index_entries(manifest: &RemoteManifest, architecture: &str) -> Vec<Value> {
    let document: Value = serde_json::from_slice(&manifest.bytes).unwrap_or_default();
    match document.get("manifests").and_then(Value::as_array) {
        Some(entries) => entries.iter().take(ENTRIES_MAX).cloned().collect(),
        None => vec![json!({
            "mediaType": manifest.media_type,
            "digest": manifest.digest.to_string(),
            "size": manifest.bytes.len(),
            "platform": {"architecture": architecture, "os": "linux"},
        })],
    }
}

/// Gives an image in a registry another tag, without fetching it. Returns its digest.
///
/// Errors: `from` is not there; the two are not in the same repository; what the registry says.
pub fn remote_tag(from: &Reference, to: &Reference, with: Publishing<'_>) -> Result<Digest, PackageError> {
    let place = |reference: &Reference| (reference.registry().to_owned(), reference.repository().to_owned());
    if place(from) != place(to) || to.digest().is_some() {
        return Err(PackageError::OtherRepository { from: from.to_string(), to: to.to_string() });
    }
    let manifest = remote_manifest(from, with.registry, with.cancel, with.progress)?;
    let manifest = manifest.ok_or_else(|| PackageError::NotThere { reference: from.to_string() })?;
    put_remote_manifest(to, &manifest, with.registry, with.cancel, with.progress)?;
    Ok(manifest.digest)
}

fn of_architecture(reference: &Reference, architecture: &str) -> Result<Reference, PackageError> {
    tagged(reference, &format!("{}-{architecture}", reference.tag().unwrap_or("latest")))
}

fn tagged(reference: &Reference, tag: &str) -> Result<Reference, PackageError> {
    let name = format!("{}/{}:{tag}", reference.registry(), reference.repository());
    name.parse().map_err(|source| PackageError::BadTag { tag: tag.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    fn refused(from: &str, to: &str) -> String {
        let (registry, cancel) = (RegistryOptions { attempts: 1, ..RegistryOptions::default() }, Cancel::default());
        let with = Publishing { registry: &registry, cancel: &cancel, progress: &Silent };
        remote_tag(&from.parse().unwrap(), &to.parse().unwrap(), with).unwrap_err().to_string()
    }

    #[test]
    fn a_tag_stays_in_its_repository() {
        assert!(refused("a/b:1", "a/c:1").contains("`docker.io/a/c:1`"));
        assert!(refused("127.0.0.1:1/b:1", "127.0.0.1:2/b:2").contains("one repository"));
        assert!(refused("a/b:1", &format!("a/b@sha256:{}", "0".repeat(64))).contains("one repository"));
    }

    #[test]
    fn names_of_architectures_are_tags() {
        let reference: Reference = "127.0.0.1:5000/x/a:1".parse().unwrap();
        assert_eq!(of_architecture(&reference, "arm64").unwrap().to_string(), "127.0.0.1:5000/x/a:1-arm64");
        assert!(matches!(tagged(&reference, "no tag"), Err(PackageError::BadTag { .. })));
    }

    #[test]
    fn an_index_is_taken_apart_and_a_manifest_described() {
        let digest = Digest::from_bytes([7; 32]);
        let of = |text: &str| {
            let manifest = RemoteManifest { digest, media_type: "m".into(), bytes: text.into() };
            index_entries(&manifest, "arm64")
        };
        assert_eq!(of(r#"{"manifests":[{"digest":"x"}]}"#), [json!({"digest": "x"})]);
        let entry = &of("{}")[0];
        assert_eq!((&entry["size"], &entry["platform"]["architecture"]), (&json!(2), &json!("arm64")));
    }
}
