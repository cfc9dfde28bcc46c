//! What is in a store, by name: sizes, and what goes when a name goes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;

use super::index::{entries_mut, entry_name};
use super::walk::Reach;
use super::{Store, StoreError};
use crate::oci::{Digest, Reference};

/// All that is in a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    /// By name.
    pub images: Vec<StoredImage>,
    /// Bytes of all blobs that names reach, each counted once.
    pub reached_bytes: u64,
    /// Bytes of all blobs.
    pub all_bytes: u64,
}

/// One name and what it reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredImage {
    /// The full name.
    pub name: String,
    /// What it means.
    pub digest: Digest,
    /// Platforms that are here, `linux/amd64` and the like, sorted.
    pub platforms: Vec<String>,
    /// Bytes of all blobs that it reaches here.
    pub size_bytes: u64,
    /// Bytes of those that no other name reaches.
    pub own_bytes: u64,
    /// Blobs that a manifest here names and that are not here.
    pub missing: usize,
}

impl Store {
    /// Lists the names and adds up what they reach.
    pub fn stored(&self) -> Result<Stored, StoreError> {
        let here = self.blob_sizes()?;
        let reaches: Vec<(String, Digest, Reach)> =
            self.roots()?.into_iter().map(|(name, root)| (name.unwrap_or_default(), root, self.reach(root))).collect();
        let mut roots_of: HashMap<Digest, HashSet<Digest>> = HashMap::new();
        for (_, root, reach) in &reaches {
            for digest in reach.blobs.keys() {
                roots_of.entry(*digest).or_default().insert(*root);
            }
        }
        let size = |digest: &Digest| here.get(digest).copied().unwrap_or(0);
        let image = |(name, root, reach): &(String, Digest, Reach)| {
            let own = reach.blobs.keys().filter(|digest| roots_of.get(digest).is_some_and(|roots| roots.len() == 1));
            let known = |os: &str| !os.is_empty() && os != "unknown";
            let platforms = reach.platforms.iter().filter(|platform| known(&platform.os));
            let mut platforms: Vec<_> = platforms.map(|platform| platform.to_platform().to_string()).collect();
            platforms.sort();
            platforms.dedup();
            let told = reach.blobs.iter().filter(|(_, told)| told.is_some());
            StoredImage {
                name: name.clone(),
                digest: *root,
                platforms,
                size_bytes: reach.blobs.keys().map(size).sum(),
                own_bytes: own.map(size).sum(),
                missing: told.filter(|(digest, _)| !here.contains_key(*digest)).count()
                    + usize::from(!here.contains_key(root)),
            }
        };
        let mut images: Vec<StoredImage> = reaches.iter().map(image).collect();
        images.sort_by(|a, b| a.name.cmp(&b.name));
        let reached_bytes = roots_of.keys().map(size).sum();
        Ok(Stored { images, reached_bytes, all_bytes: here.values().sum() })
    }

    /// Every blob's file and its length.
    pub(super) fn blob_sizes(&self) -> Result<BTreeMap<Digest, u64>, StoreError> {
        let folder = self.root.join("blobs/sha256");
        let fail = |source| StoreError::Io { action: "list", path: folder.clone(), source };
        let mut sizes = BTreeMap::new();
        for entry in fs::read_dir(&folder).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name();
            // Others may keep their own files here.
            let digest = name.to_str().and_then(|name| format!("sha256:{name}").parse().ok());
            if let (Some(digest), Ok(meta)) = (digest, entry.metadata())
                && meta.is_file()
            {
                sizes.insert(digest, meta.len());
            }
        }
        Ok(sizes)
    }

    /// The names in the store that mean the same as `reference`.
    pub fn names_of(&self, reference: &Reference) -> Result<Vec<String>, StoreError> {
        let wanted = reference.names();
        Ok(self.roots()?.into_iter().filter_map(|(name, _)| name.filter(|name| wanted.contains(name))).collect())
    }

    /// Takes names away; their blobs stay until garbage is collected.
    pub fn untag(&self, names: &[String]) -> Result<(), StoreError> {
        let _lock = self.lock_exclusive()?;
        let mut index = self.read_index()?;
        let Some(entries) = entries_mut(&mut index) else { return Ok(()) };
        entries.retain(|entry| entry_name(entry).is_none_or(|name| !names.iter().any(|gone| gone == name)));
        self.write_index(&index)
    }
}
