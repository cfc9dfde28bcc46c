//! Images that are not made by kiln.

use std::fs;
use std::path::Path;
use std::process::Command;

/// An OCI image layout with one image, written by hand: what `kiln build` reads is not made by kiln.
pub fn write_layout(layout: &Path, name: &str, layers: &[(&str, &str)], from: &Path) {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        use sha2::{Digest, Sha256};
        let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(blobs.join(&hex), bytes).unwrap();
        (format!("sha256:{hex}"), bytes.len())
    };
    let mut descriptors = vec![];
    let mut diff_ids = vec![];
    for (file, kind) in layers {
        let bytes = fs::read(from.join(file)).unwrap();
        let plain = run_bytes(if kind.ends_with("zstd") { "zstd" } else { "gzip" }, &from.join(file));
        use sha2::{Digest, Sha256};
        diff_ids.push(format!(
            "sha256:{}",
            Sha256::digest(&plain).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        ));
        let (digest, size) = put(&bytes);
        descriptors.push(serde_json::json!({
            "mediaType": format!("application/vnd.oci.image.layer.v1.{kind}"), "digest": digest, "size": size
        }));
    }
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/run"], "Env": ["A=b"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}
    });
    let (digest, size) = put(config.to_string().as_bytes());
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": size},
        "layers": descriptors
    });
    let (digest, size) = put(manifest.to_string().as_bytes());
    let index = serde_json::json!({
        "schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size,
            "annotations": {"org.opencontainers.image.ref.name": name}
        }]
    });
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

fn run_bytes(program: &str, file: &Path) -> Vec<u8> {
    Command::new(program).arg("-dc").arg(file).output().unwrap().stdout
}
