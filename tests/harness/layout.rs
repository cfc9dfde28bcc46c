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

/// Adds an image of one packed layer to the OCI layout `layout`, which is made if it is missing.
pub fn write_image(layout: &Path, name: &str, layer: &[u8]) {
    use sha2::{Digest, Sha256};
    let hex = |bytes: &[u8]| -> String { Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect() };
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |media_type: &str, bytes: &[u8]| {
        fs::write(blobs.join(hex(bytes)), bytes).unwrap();
        let digest = format!("sha256:{}", hex(bytes));
        serde_json::json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    };
    let mut plain = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(layer), &mut plain).unwrap();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/run"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex(&plain))]}
    });
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": manifest_type,
        "config": put("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes()),
        "layers": [put("application/vnd.oci.image.layer.v1.tar+gzip", layer)]
    });
    let mut descriptor = put(manifest_type, manifest.to_string().as_bytes());
    descriptor["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": name});
    let index = layout.join("index.json");
    let mut manifests = match fs::read(&index) {
        Ok(bytes) => serde_json::from_slice::<serde_json::Value>(&bytes).unwrap()["manifests"].take(),
        Err(_) => serde_json::json!([]),
    };
    manifests.as_array_mut().unwrap().push(descriptor);
    fs::write(index, serde_json::json!({"schemaVersion": 2, "manifests": manifests}).to_string()).unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}
