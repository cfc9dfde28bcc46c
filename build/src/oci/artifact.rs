//! What a build made, as an artifact that registries keep (OCI image specification, "Guidelines for Artifact Usage"):
//! docs/artifacts.md describes it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::document::{CONFIG_BYTES_MAX, Document, MANIFEST_BYTES_MAX, MANIFEST_TYPE, parse_document};
use super::{BlobKind, Digest, DocumentError, Reference, Store, StoreError, TagEntry};
use crate::artifact::{self, INITRD_TYPE, KERNEL_TYPE, MACHINE_TYPE};

/// As much as is read of a command line's file.
const CMDLINE_BYTES_MAX: usize = 64 << 10;

/// The files of a machine, to be pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineFiles {
    /// Kernel.
    pub kernel: PathBuf,
    /// Initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Kernel command line.
    pub cmdline: String,
    /// Go's name; `None`: told from the kernel.
    pub architecture: Option<String>,
}

/// A machine in the store; its files are blobs there, verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Kernel.
    pub kernel: PathBuf,
    /// Initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Kernel command line.
    pub cmdline: String,
    /// Go's name of the architecture.
    pub architecture: String,
}

/// Why a machine cannot be packed or unpacked.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nobody knows what the kernel is for.
    #[error("`{}` does not tell its architecture; give it with `--arch`", .0.display())]
    Architecture(PathBuf),
    /// The name means something else.
    #[error("`{name}` is no machine that `kiln push` made: {found}")]
    NoMachine {
        /// The name.
        name: String,
        /// What it is instead.
        found: String,
    },
    /// A document is none.
    #[error("`{name}` is a damaged machine")]
    Document {
        /// The name.
        name: String,
        /// Why.
        #[source]
        source: DocumentError,
    },
    /// The store fails, or lacks a part.
    #[error("the store cannot be used")]
    Store(#[from] StoreError),
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(rename = "artifactType")]
    artifact_type: Option<String>,
}

#[derive(Deserialize)]
struct Config {
    architecture: String,
    #[serde(default)]
    cmdline: String,
}

/// Writes a machine into the store and names it. The same files give the same bytes.
pub fn put_machine(store: &Store, name: &Reference, files: &MachineFiles) -> Result<Digest, MachineError> {
    let architecture = match &files.architecture {
        Some(architecture) => architecture.clone(),
        None => architecture(&files.kernel)?.ok_or_else(|| MachineError::Architecture(files.kernel.clone()))?.into(),
    };
    let kernel = blob(store, &files.kernel)?;
    let initrd = files.initrd.as_deref().map(|initrd| blob(store, initrd)).transpose()?;
    let machine = artifact::Machine { architecture: &architecture, cmdline: &files.cmdline, kernel, initrd };
    let artifact::Documents { config, manifest } = machine.documents();
    store.put_blob(&config)?;
    let digest = store.put_blob(&manifest)?;
    let size_bytes = manifest.len() as u64;
    store.tag(name, &TagEntry { media_type: MANIFEST_TYPE.into(), digest, size_bytes, platform: None })?;
    Ok(digest)
}

/// The machine that `root` in the store is. Its files were verified now.
pub fn machine(store: &Store, name: &str, root: Digest) -> Result<Machine, MachineError> {
    let bytes = store.read_document(BlobKind::Manifest, &root, MANIFEST_BYTES_MAX)?;
    let fail = |source| MachineError::Document { name: name.to_string(), source };
    let no_machine = |found: String| MachineError::NoMachine { name: name.to_string(), found };
    let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|error| fail(DocumentError::Json(error)))?;
    let Document::Manifest(config, layers) = parse_document(&bytes).map_err(fail)? else {
        return Err(no_machine("it is an image for several platforms".into()));
    };
    if manifest.artifact_type.as_deref() != Some(MACHINE_TYPE) {
        let found = manifest.artifact_type.unwrap_or(config.media_type);
        return Err(no_machine(format!("its type is `{found}`")));
    }
    let config = store.read_document(BlobKind::Config, &config.digest().map_err(fail)?, CONFIG_BYTES_MAX)?;
    let config: Config = serde_json::from_slice(&config).map_err(|error| fail(DocumentError::Json(error)))?;
    if config.cmdline.len() > CMDLINE_BYTES_MAX || config.cmdline.contains(['\0', '\n']) {
        return Err(no_machine("its command line is too long, or more than a line".into()));
    }
    let file = |media_type: &str| -> Result<Option<PathBuf>, MachineError> {
        let Some(layer) = layers.iter().find(|layer| layer.media_type == media_type) else { return Ok(None) };
        let path = store.blob_path(&layer.digest);
        let verified = store.open_layer(layer)?.finish();
        verified.map_err(|error| StoreError::of_read(error, path.clone()))?;
        Ok(Some(path))
    };
    Ok(Machine {
        kernel: file(KERNEL_TYPE)?.ok_or_else(|| no_machine("it has no kernel".into()))?,
        initrd: file(INITRD_TYPE)?,
        cmdline: config.cmdline,
        architecture: config.architecture,
    })
}

fn blob(store: &Store, path: &Path) -> Result<artifact::Blob, MachineError> {
    let fail = |source| MachineError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(fail)?;
    let mut writer = store.blob_writer()?;
    io::copy(&mut file.by_ref(), &mut writer).map_err(fail)?;
    let size_bytes = writer.len_bytes();
    let digest = writer.commit(None, None)?;
    Ok(artifact::Blob { digest: digest.to_string(), size_bytes })
}

/// What a kernel runs on.
fn architecture(kernel: &Path) -> Result<Option<&'static str>, MachineError> {
    let fail = |source| MachineError::Read { path: kernel.to_owned(), source };
    let file = File::open(kernel).map_err(fail)?;
    artifact::architecture(&|buffer, offset| file.read_exact_at(buffer, offset)).map_err(fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(folder: &Path, at: usize, magic: &[u8]) -> PathBuf {
        let mut bytes = vec![0; 1024];
        bytes[at..at + magic.len()].copy_from_slice(magic);
        std::fs::write(folder.join("k"), bytes).unwrap();
        folder.join("k")
    }

    #[test]
    fn what_is_no_machine_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let name: Reference = "a:1".parse().unwrap();
        let files = |kernel: PathBuf| MachineFiles { kernel, initrd: None, cmdline: String::new(), architecture: None };
        let unknown = put_machine(&store, &name, &files(kernel(folder.path(), 0, b"")));
        assert!(matches!(unknown, Err(MachineError::Architecture(_))));
        assert!(matches!(put_machine(&store, &name, &files("/nonexistent".into())), Err(MachineError::Read { .. })));
        let config = br#"{"os":"linux","architecture":"amd64"}"#;
        let image = store.put_image(&name, &super::super::Platform::linux("amd64"), config, Vec::new()).unwrap();
        let refused = machine(&store, "a:1", image.manifest);
        assert!(matches!(refused, Err(MachineError::NoMachine { .. })), "{refused:?}");
    }

    #[test]
    fn a_machine_comes_out_as_it_went_in_and_damage_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let name: Reference = "a:1".parse().unwrap();
        std::fs::write(folder.path().join("i"), "initrd").unwrap();
        for (at, magic, expected) in [
            (0x202, &b"HdrS"[..], "amd64"),
            (56, b"ARM\x64", "arm64"),
            (0, b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xf3\0", "riscv64"),
        ] {
            let kernel = kernel(folder.path(), at, magic);
            let initrd = Some(folder.path().join("i"));
            let files = MachineFiles { kernel: kernel.clone(), initrd, cmdline: "quiet".into(), architecture: None };
            let root = put_machine(&store, &name, &files).unwrap();
            assert_eq!(put_machine(&store, &name, &files).unwrap(), root);
            let found = machine(&store, "a:1", root).unwrap();
            assert_eq!((found.architecture.as_str(), found.cmdline.as_str()), (expected, "quiet"));
            assert_eq!(std::fs::read(&found.kernel).unwrap(), std::fs::read(&kernel).unwrap());
            assert_eq!(std::fs::read(found.initrd.unwrap()).unwrap(), b"initrd");
            std::fs::write(&found.kernel, vec![1; 1024]).unwrap();
            assert!(matches!(machine(&store, "a:1", root), Err(MachineError::Store(StoreError::Damaged { .. }))));
        }
    }
}
