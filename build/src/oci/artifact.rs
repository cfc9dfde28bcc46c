//! What a build made, as an artifact that registries keep (OCI image specification, "Guidelines for Artifact Usage"):
//! docs/artifacts.md describes it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::json;

use super::document::{CONFIG_BYTES_MAX, Document, MANIFEST_BYTES_MAX, MANIFEST_TYPE, parse_document};
use super::{BlobKind, Digest, DocumentError, Layer, Reference, Store, StoreError, TagEntry};

/// What the artifact is.
pub const MACHINE_TYPE: &str = "application/vnd.kiln.machine.v1";
const CONFIG_TYPE: &str = "application/vnd.kiln.machine.config.v1+json";
const KERNEL_TYPE: &str = "application/vnd.kiln.machine.kernel.v1";
const INITRD_TYPE: &str = "application/vnd.kiln.machine.initrd.v1";
const TITLE: &str = "org.opencontainers.image.title";
/// Architectures that can be told from a kernel, by Go's name.
const BZIMAGE_MAGIC: (u64, &[u8]) = (0x202, b"HdrS");
const ARM64_MAGIC: (u64, &[u8]) = (56, b"ARM\x64");
const RISCV_MAGIC: (u64, &[u8]) = (56, b"RSC\x05");
/// As much as is read of a command line's file.
const CMDLINE_BYTES_MAX: usize = 64 << 10;
const ELF_MAGIC: &[u8] = b"\x7fELF";

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
    let mut layers = vec![blob(store, &files.kernel, KERNEL_TYPE, "kernel")?];
    if let Some(initrd) = &files.initrd {
        layers.push(blob(store, initrd, INITRD_TYPE, "initrd.img")?);
    }
    let config = json!({"os": "linux", "architecture": architecture, "cmdline": files.cmdline}).to_string();
    let config_digest = store.put_blob(config.as_bytes())?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": MACHINE_TYPE,
        "config": {"mediaType": CONFIG_TYPE, "digest": config_digest.to_string(), "size": config.len()},
        "layers": layers,
        "annotations": {"dev.kiln.machine.architecture": architecture, "dev.kiln.machine.cmdline": files.cmdline},
    })
    .to_string();
    let digest = store.put_blob(manifest.as_bytes())?;
    let size_bytes = manifest.len() as u64;
    store.tag(name, &TagEntry { media_type: MANIFEST_TYPE.into(), digest, size_bytes, platform: None })?;
    Ok(digest)
}

/// The machine that `root` in the store is. Its files were verified now.
pub fn machine(store: &Store, name: &Reference, root: Digest) -> Result<Machine, MachineError> {
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

fn blob(store: &Store, path: &Path, media_type: &str, title: &str) -> Result<serde_json::Value, MachineError> {
    let fail = |source| MachineError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(fail)?;
    let mut writer = store.blob_writer()?;
    io::copy(&mut file.by_ref(), &mut writer).map_err(fail)?;
    let size_bytes = writer.len_bytes();
    let digest = writer.commit(None, None)?;
    let layer = Layer { digest, size_bytes, media_type: media_type.into() };
    Ok(json!({
        "mediaType": layer.media_type,
        "digest": layer.digest.to_string(),
        "size": layer.size_bytes,
        "annotations": {TITLE: title},
    }))
}

/// What a kernel runs on (Linux' boot protocols of x86, arm64 and riscv; ELF).
fn architecture(kernel: &Path) -> Result<Option<&'static str>, MachineError> {
    let fail = |source| MachineError::Read { path: kernel.to_owned(), source };
    let file = File::open(kernel).map_err(fail)?;
    let has = |(at, magic): (u64, &[u8])| {
        let mut bytes = vec![0; magic.len()];
        file.read_exact_at(&mut bytes, at).is_ok() && bytes == magic
    };
    let elf_machine = |number: u8| has((0, ELF_MAGIC)) && has((18, &[number, 0]));
    Ok(match () {
        () if has(BZIMAGE_MAGIC) || elf_machine(62) => Some("amd64"),
        () if has(ARM64_MAGIC) || elf_machine(183) => Some("arm64"),
        () if has(RISCV_MAGIC) || elf_machine(243) => Some("riscv64"),
        () => None,
    })
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
        let refused = machine(&store, &name, image.manifest);
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
            let found = machine(&store, &name, root).unwrap();
            assert_eq!((found.architecture.as_str(), found.cmdline.as_str()), (expected, "quiet"));
            assert_eq!(std::fs::read(&found.kernel).unwrap(), std::fs::read(&kernel).unwrap());
            assert_eq!(std::fs::read(found.initrd.unwrap()).unwrap(), b"initrd");
            std::fs::write(&found.kernel, vec![1; 1024]).unwrap();
            assert!(matches!(machine(&store, &name, root), Err(MachineError::Store(StoreError::Damaged { .. }))));
        }
    }
}
