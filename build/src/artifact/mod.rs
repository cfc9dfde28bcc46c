//! What a build leaves for registries, as documents: a machine (docs/artifacts.md), an image of one layer, and the index of
//! a layout (OCI image specification 1.1). Pure: whoever has the blobs says how long they are and what their digests are.

mod kernel;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub use kernel::architecture;

/// The type that tells a machine from an image.
pub const MACHINE_TYPE: &str = "application/vnd.kiln.machine.v1";
/// A machine's kernel.
pub const KERNEL_TYPE: &str = "application/vnd.kiln.machine.kernel.v1";
/// A machine's initial RAM disk.
pub const INITRD_TYPE: &str = "application/vnd.kiln.machine.initrd.v1";
/// What a layout's `oci-layout` says.
pub const LAYOUT: &[u8] = br#"{"imageLayoutVersion": "1.0.0"}"#;
const CONFIG_TYPE: &str = "application/vnd.kiln.machine.config.v1+json";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const IMAGE_CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
const TITLE: &str = "org.opencontainers.image.title";

/// A blob, by what is said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// `sha256:` and 64 digits.
    pub digest: String,
    /// Length in bytes.
    pub size_bytes: u64,
}

impl Blob {
    /// What is said of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::hashed(&Sha256::digest(bytes).into(), bytes.len() as u64)
    }

    /// What is said of `size_bytes` bytes with this SHA-256.
    pub fn hashed(sha256: &[u8; 32], size_bytes: u64) -> Self {
        let hex: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { digest: format!("sha256:{hex}"), size_bytes }
    }

    /// Where it is in a layout.
    pub fn path(&self) -> String {
        format!("blobs/{}", self.digest.replace(':', "/"))
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": self.digest, "size": self.size_bytes})
    }

    fn titled(&self, media_type: &str, title: &str) -> Value {
        let mut descriptor = self.descriptor(media_type);
        descriptor["annotations"] = json!({TITLE: title});
        descriptor
    }
}

/// The two documents that make blobs an artifact or an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Documents {
    /// The configuration.
    pub config: Vec<u8>,
    /// The manifest, which names the configuration and the blobs.
    pub manifest: Vec<u8>,
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine<'a> {
    /// Go's name of the architecture.
    pub architecture: &'a str,
    /// Kernel command line.
    pub cmdline: &'a str,
    /// Kernel.
    pub kernel: Blob,
    /// Initial RAM disk.
    pub initrd: Option<Blob>,
}

impl Machine<'_> {
    /// Its documents. The same machine has the same ones.
    pub fn documents(&self) -> Documents {
        let Self { architecture, cmdline, kernel, initrd } = self;
        let config = json!({"os": "linux", "architecture": architecture, "cmdline": cmdline}).to_string();
        let mut layers = vec![kernel.titled(KERNEL_TYPE, "kernel")];
        layers.extend(initrd.iter().map(|initrd| initrd.titled(INITRD_TYPE, "initrd.img")));
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": MACHINE_TYPE,
            "config": Blob::of(config.as_bytes()).descriptor(CONFIG_TYPE),
            "layers": layers,
            "annotations": {"dev.kiln.machine.architecture": architecture, "dev.kiln.machine.cmdline": cmdline},
        });
        Documents { config: config.into_bytes(), manifest: manifest.to_string().into_bytes() }
    }
}

/// The documents of an image that nothing runs in, for Go's `architecture`, with one layer, which is not packed.
pub fn image(architecture: &str, layer: &Blob) -> Documents {
    let config = json!({
        "os": "linux",
        "architecture": architecture,
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
    })
    .to_string();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": Blob::of(config.as_bytes()).descriptor(IMAGE_CONFIG_TYPE),
        "layers": [layer.descriptor(LAYER_TYPE)],
    });
    Documents { config: config.into_bytes(), manifest: manifest.to_string().into_bytes() }
}

/// The `index.json` of a layout that holds one manifest, for Go's `architecture`.
pub fn index(manifest: &[u8], architecture: &str) -> Vec<u8> {
    let mut entry = Blob::of(manifest).descriptor(MANIFEST_TYPE);
    entry["platform"] = json!({"os": "linux", "architecture": architecture});
    json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [entry]}).to_string().into_bytes()
}
