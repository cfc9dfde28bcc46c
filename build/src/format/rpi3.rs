//! The files of a card that a Raspberry Pi 3 starts from, as one tar: to be unpacked onto its FAT partition.
//!
//! The Pi's own firmware loads an arm64 kernel, an initrd and a device tree by itself, so there is no other boot loader in
//! between. The firmware is not ours to give: its files come from an image of the build, as do the device trees, which
//! belong to the kernel.

use super::{FormatError, Material, Sink, Unbootable, Watch, bootable, tar};
use crate::tree::{Attributes, Body, Kind, Tree, TreePath};

/// Where files of the firmware are looked for: where a machine keeps them, and where Debian's package has them.
const FIRMWARE_FOLDERS: [&str; 2] = ["boot/firmware", "usr/lib/raspi-firmware"];
/// What a Pi 3 cannot start without: the second stage, the firmware proper and what it patches itself with.
const FIRMWARE: [&str; 3] = ["bootcode.bin", "start.elf", "fixup.dat"];
/// Where `kernel.tar` has device trees, as LinuxKit's kernels do.
const DEVICE_TREES: &str = "boot/dtb/broadcom";
/// Boards of this kind: `-b`, `-b-plus`, `-a-plus`.
const DEVICE_TREE_PREFIX: &[u8] = b"bcm2837-rpi-3-";
/// What the firmware is told, unless the firmware's folder has a file of this name: a 64-bit kernel, the initrd behind it,
/// the serial port on, and mainline's names of device trees.
const CONFIG: (&str, &str) = (
    "config.txt",
    "arm_64bit=1\nkernel=kernel8.img\ninitramfs initrd.img followkernel\nenable_uart=1\nupstream_kernel=1\n",
);
/// The only architecture of the board that is built for.
const ARCHITECTURE: &str = "arm64";
/// `ARM\x64` in a kernel that starts by itself (Linux' `Documentation/arch/arm64/booting.rst`): the firmware unpacks none.
const IMAGE_MAGIC_AT: u64 = 56;

pub(super) fn write(material: &Material<'_>, sink: &mut dyn Sink, watch: Watch<'_>) -> Result<(), FormatError> {
    let mut card = Tree::new(material.tree.implied_mtime_s());
    for (name, body) in files(material, watch)? {
        let attributes = Attributes::of_root(0o644, material.tree.implied_mtime_s());
        let put = card.put(&TreePath::root().join(&name), attributes, Kind::File(body));
        put.map_err(|source| FormatError::Tree { path: "a file of the card", source })?;
    }
    tar::write(&card, sink, watch)
}

/// Names and contents; of one name the last counts.
fn files(material: &Material<'_>, watch: Watch<'_>) -> Result<Vec<(Vec<u8>, Body)>, FormatError> {
    let boot = check(material)?;
    let text = |text: &str| Body::Inline(text.as_bytes().into());
    let mut all = vec![(CONFIG.0.into(), text(CONFIG.1))];
    all.extend(FIRMWARE_FOLDERS.iter().rev().flat_map(|folder| below(material.tree, folder)));
    all.extend(device_trees(material.tree));
    all.push(("cmdline.txt".into(), text(&format!("{}\n", boot.cmdline))));
    all.push(("kernel8.img".into(), boot.kernel));
    all.push(("initrd.img".into(), material.initrd(watch)?));
    Ok(all)
}

/// Refuses what no Pi 3 starts.
pub(super) fn check(material: &Material<'_>) -> Result<bootable::Boot, FormatError> {
    let boot = bootable::boot(material)?;
    let mut magic = [0; 4];
    if material.options.architecture != ARCHITECTURE {
        return Err(Unbootable::Board { wanted: ARCHITECTURE, built: material.options.architecture.clone() }.into());
    }
    if boot.kernel.read_exact_at(&mut magic, IMAGE_MAGIC_AT).is_err() || magic != *b"ARM\x64" {
        return Err(Unbootable::Packed.into());
    }
    if device_trees(material.tree).next().is_none() {
        return Err(Unbootable::NoDeviceTree { folder: DEVICE_TREES }.into());
    }
    for name in FIRMWARE {
        let mut all = FIRMWARE_FOLDERS.iter().flat_map(|folder| below(material.tree, folder));
        if !all.any(|(found, _)| found == name.as_bytes()) {
            return Err(Unbootable::NoFirmware { name, folder: FIRMWARE_FOLDERS[0] }.into());
        }
    }
    Ok(boot)
}

fn device_trees(tree: &Tree) -> impl Iterator<Item = (Vec<u8>, Body)> {
    below(tree, DEVICE_TREES).filter(|(name, _)| name.starts_with(DEVICE_TREE_PREFIX) && name.ends_with(b".dtb"))
}

/// The files in a folder.
fn below<'a>(tree: &'a Tree, folder: &str) -> impl Iterator<Item = (Vec<u8>, Body)> + use<'a> {
    let folder = TreePath::from_user(folder).ok().and_then(|folder| tree.get(&folder));
    let children = match folder.map(|folder| &folder.kind) {
        Some(Kind::Directory(children)) => Some(children),
        _ => None,
    };
    children.into_iter().flatten().filter_map(|(name, id)| match &tree.node(*id).kind {
        Kind::File(body) => Some((name.to_vec(), body.clone())),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{members, options, packing, path};
    use super::super::{Options, StreamSink};
    use super::*;
    use crate::cancel::Cancel;
    use crate::progress::Silent;

    fn tree(files: &[(&str, &[u8])]) -> Tree {
        let mut tree = Tree::new(7);
        for (name, content) in files {
            tree.put(&path(name), Attributes::of_root(0o600, 9), Kind::file(content)).unwrap();
        }
        tree
    }

    fn written(tree: &Tree, architecture: &str) -> Result<Vec<(String, Vec<u8>)>, String> {
        let options = Options { architecture: architecture.into(), ..options() };
        let watch = Watch { cancel: &Cancel::default(), meter: &Silent, folder: &std::env::temp_dir() };
        let mut out = StreamSink(Vec::new());
        let written = write(&Material::new(tree, &options, packing(1)), &mut out, watch);
        written.map(|()| members(&out.0)).map_err(|error| error.to_string())
    }

    #[test]
    fn what_a_board_lacks_is_named() {
        let kernel = [&[0; 56][..], b"ARM\x64"].concat();
        let mut files: Vec<(&str, &[u8])> = vec![("boot/cmdline", b"quiet")];
        let mut expect = |more: (&'static str, &'static [u8]), architecture: &str, wanted: &str| {
            let fault = written(&tree(&files), architecture).unwrap_err();
            assert!(fault.contains(wanted), "{fault}");
            files.push(more);
        };
        expect(("boot/kernel", b"\x1f\x8b packed"), "arm64", "no kernel");
        expect(("boot/kernel", Box::leak(kernel.into_boxed_slice())), "arm64", "unpacked");
        expect(("boot/dtb/broadcom/bcm2711-rpi-4-b.dtb", b"4"), "amd64", "arm64");
        expect(("boot/dtb/broadcom/bcm2837-rpi-3-b.dtb", b"3"), "arm64", "`boot/dtb/broadcom`");
        expect(("usr/lib/raspi-firmware/bootcode.bin", b"b"), "arm64", "`bootcode.bin`");
        expect(("boot/firmware/start.elf", b"s"), "arm64", "`start.elf`");
        expect(("boot/firmware/fixup.dat", b"f"), "arm64", "`fixup.dat`");
        files.push(("boot/firmware/bootcode.bin", b"own"));
        let members = written(&tree(&files), "arm64").unwrap();
        let names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
        let expected = [
            "bcm2837-rpi-3-b.dtb",
            "bootcode.bin",
            "cmdline.txt",
            "config.txt",
            "fixup.dat",
            "initrd.img",
            "kernel8.img",
            "start.elf",
        ];
        assert_eq!(names, expected);
        assert_eq!((&members[1].1[..], &members[2].1[..]), (&b"own"[..], &b"quiet\n"[..]));
        files.push(("boot/firmware/config.txt", b"own=1\n"));
        assert_eq!(written(&tree(&files), "arm64").unwrap()[3].1, b"own=1\n");
    }
}
