//! KubeVirt's containerDisk: an image with one disk in `/disk`, which belongs to the user that QEMU runs as there.

use super::disk::DiskFormat;
use super::oci::{Owner, Tape, archive, blob};
use super::{Extents, FormatError, Material, Sink, Watch, spooled};
use crate::artifact;

/// User and group of QEMU in KubeVirt's pods; the mode is the one that KubeVirt's user guide asks for.
const QEMU: Owner = Owner { id: 107, mode: 0o440 };
const FOLDER: Owner = Owner { id: 107, mode: 0o555 };
/// KubeVirt takes the only file in the folder, whatever its name.
const DISK: &str = "disk/disk.qcow2";

/// The disk inside: for the firmware that KubeVirt starts unless it is told otherwise, a BIOS where there is one, else EFI.
pub(super) fn disk(architecture: &str) -> DiskFormat {
    match architecture {
        "amd64" => DiskFormat::Qcow2Bios,
        _ => DiskFormat::Qcow2Efi,
    }
}

/// The image as an OCI archive.
pub(super) fn write(material: &Material<'_>, sink: &mut dyn Sink, watch: Watch<'_>) -> Result<(), FormatError> {
    let architecture = &material.options.architecture;
    let disk = spooled(watch, |sink| disk(architecture).write(material, sink, watch))?;
    image(&Extents::from(disk), architecture, material.tree.implied_mtime_s(), watch)?.write(sink, watch)
}

fn image(disk: &Extents, architecture: &str, time_s: i64, watch: Watch<'_>) -> Result<Extents, FormatError> {
    let mut layer = Tape::new(time_s);
    layer.folder("disk/", &FOLDER);
    layer.member(DISK, disk, &QEMU);
    let layer = layer.end();
    let blob = blob(&layer, watch)?;
    let documents = artifact::image(architecture, &blob);
    Ok(archive(&documents, architecture, &[(blob, layer)], time_s))
}

#[cfg(test)]
mod tests {
    use super::super::StreamSink;
    use super::super::tests::members;
    use super::*;
    use crate::cancel::Cancel;
    use crate::progress::Silent;
    use crate::tree::Body;

    #[test]
    fn the_image_holds_one_disk_that_is_qemus() {
        let watch = Watch { cancel: &Cancel::default(), meter: &Silent, folder: &std::env::temp_dir() };
        let disk = Extents::from(Body::Inline(b"DISK".as_slice().into()));
        let mut out = StreamSink(Vec::new());
        image(&disk, "arm64", 7, watch).unwrap().write(&mut out, watch).unwrap();
        let blobs = members(&out.0);
        let config: serde_json::Value = serde_json::from_slice(&blobs[3].1).unwrap();
        assert_eq!((&config["os"], &config["architecture"]), (&"linux".into(), &"arm64".into()));
        let layer = &blobs[4].1;
        assert_eq!(config["rootfs"]["diff_ids"][0], artifact::Blob::of(layer).digest);
        let mut layer = tar::Archive::new(&layer[..]);
        let shown = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
            let entry = entry.unwrap();
            let header = entry.header();
            let owner = (header.uid().unwrap(), header.gid().unwrap(), header.mode().unwrap());
            (entry.path().unwrap().display().to_string(), owner, header.size().unwrap())
        };
        let found: Vec<_> = layer.entries().unwrap().map(shown).collect();
        let expected =
            [("disk/".to_owned(), (107, 107, 0o555), 0), ("disk/disk.qcow2".to_owned(), (107, 107, 0o440), 4)];
        assert_eq!(found, expected);
        assert_eq!((disk_name("amd64"), disk_name("arm64")), ("qcow2-bios", "qcow2-efi"));
    }

    fn disk_name(architecture: &str) -> &'static str {
        disk(architecture).name()
    }
}
